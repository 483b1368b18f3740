/*
 * Launches an empty kernel in a loop, and can take CUPTI itself with callbacks that only count: what
 * CUPTI costs without gputap.
 *
 * Build: cc -O2 -shared -fPIC launch_loop.c -o launch_loop.so -L FOLDER -l:libcudart.so.13 -l:libcupti.so.13
 */
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

enum { KERNEL = 10, BUFFER = 1 << 20, LAUNCH_CALL = 211 };

struct dim3 {
  unsigned x, y, z;
};

void **__cudaRegisterFatBinary(void *);
void __cudaRegisterFunction(void **, const char *, char *, const char *, int, void *, void *, void *,
                            void *, int *);
int cudaLaunchKernel(const void *, struct dim3, struct dim3, void **, size_t, void *);
int cudaDeviceSynchronize(void);
int cudaFree(void *);
int cuptiSubscribe(void **, void *, void *);
int cuptiUnsubscribe(void *);
int cuptiActivityRegisterCallbacks(void (*)(uint8_t **, size_t *, size_t *),
                                   void (*)(void *, uint32_t, uint8_t *, size_t, size_t));
int cuptiActivityEnable(uint32_t);
int cuptiActivityDisable(uint32_t);
int cuptiActivityFlushAll(uint32_t);
int cuptiActivityEnableRuntimeApi(uint32_t, uint8_t);

static char kernel;
static void *subscriber;

static void request(uint8_t **buffer, size_t *size, size_t *most_records) {
  *buffer = aligned_alloc(8, BUFFER);
  *size = BUFFER;
  *most_records = 0;
}

static void complete(void *context, uint32_t stream, uint8_t *buffer, size_t size, size_t valid) {
  (void)context, (void)stream, (void)size, (void)valid;
  free(buffer);
}

static void callback(void *user, int domain, uint32_t cbid, const void *data) {
  (void)user, (void)domain, (void)cbid, (void)data;
}

int prepare(void) {
  static char image[64];
  void **handle = __cudaRegisterFatBinary(image);
  __cudaRegisterFunction(handle, &kernel, &kernel, "_Z5emptyv", -1, NULL, NULL, NULL, NULL, NULL);
  return cudaFree(NULL);
}

/* CPU time of this thread for so many launches, ns. */
int64_t launches(int count) {
  struct timespec a, b;
  struct dim3 one = {1, 1, 1};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &a);
  for (int i = 0; i < count; i++) cudaLaunchKernel(&kernel, one, one, NULL, 0, NULL);
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &b);
  cudaDeviceSynchronize();
  return (b.tv_sec - a.tv_sec) * 1000000000L + b.tv_nsec - a.tv_nsec;
}

int client(int on) {
  if (on) {
    int result = cuptiSubscribe(&subscriber, callback, NULL);
    if (result) return result;
    cuptiActivityRegisterCallbacks(request, complete);
    cuptiActivityEnable(KERNEL);
    return cuptiActivityEnableRuntimeApi(LAUNCH_CALL, 1);
  }
  cuptiActivityEnableRuntimeApi(LAUNCH_CALL, 0);
  cuptiActivityDisable(KERNEL);
  cuptiActivityFlushAll(0);
  return cuptiUnsubscribe(subscriber);
}
