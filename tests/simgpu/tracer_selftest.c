/*
 * libcupti under threads that never stop launching: clients come and go, and no record is lost,
 * told twice, or told after the end. Run under sanitizers by tests/integration/test_simgpu.py.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/kernel.h"
#include "core/simgpu.h"
#include "device_abi.h"
#include "include/simgpu_abi.h"

#define CHECK(condition)                                              \
  do {                                                                \
    if (!(condition)) {                                               \
      fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
      exit(1);                                                        \
    }                                                                 \
  } while (0)

int cudaLaunchKernel(const void *kernel, struct abi_dim3 grid, struct abi_dim3 block,
                     void **arguments, size_t shared, void *stream);
int cudaStreamCreate(void **stream);
int cudaStreamSynchronize(void *stream);
int cuptiSubscribe(void **subscriber, void *callback, void *user);
int cuptiUnsubscribe(void *subscriber);
int cuptiEnableCallback(uint32_t on, void *subscriber, uint32_t domain, uint32_t cbid);
int cuptiActivityRegisterCallbacks(void *request, void *complete);
int cuptiActivityEnable(uint32_t kind);
int cuptiActivityDisable(uint32_t kind);
int cuptiActivityFlushAll(uint32_t flags);
int cuptiActivityFlushPeriod(uint32_t milliseconds);
int cuptiActivityGetNextRecord(uint8_t *buffer, size_t valid, uint8_t **record);
int cuptiActivityGetNumDroppedRecords(void *context, uint32_t stream, size_t *dropped);
int cuptiFinalize(void);

enum { THREADS = 3, CYCLES = 60, BUFFER = 4096, CBID_LAUNCH = 211, IDS = 1 << 24 };

static atomic_bool stop;
static atomic_ulong kernels, calls, heard, entered;
static atomic_long buffers_out;
static atomic_uchar *told; /* kernels by correlation id */

/* Each stream counts its kernels in their grids: what a session records has no hole. */
enum { MOST_STREAMS = 64 };
static struct {
  atomic_uint first, last, count;
} seen[MOST_STREAMS];

static pthread_mutex_t seen_lock = PTHREAD_MUTEX_INITIALIZER;

static void see(uint32_t stream, uint32_t number) {
  CHECK(stream < MOST_STREAMS);
  if (seen[stream].count++ == 0) seen[stream].first = seen[stream].last = number;
  if (number < seen[stream].first) seen[stream].first = number;
  if (number > seen[stream].last) seen[stream].last = number;
}

static void check_holes(void) {
  for (uint32_t stream = 0; stream < MOST_STREAMS; stream++) {
    if (!seen[stream].count) continue;
    CHECK(seen[stream].last - seen[stream].first + 1 == seen[stream].count);
    seen[stream].count = 0;
  }
}

static void request(uint8_t **buffer, size_t *size, size_t *most) {
  *buffer = aligned_alloc(8, BUFFER);
  *size = BUFFER;
  *most = 0;
  buffers_out++;
}

static void complete(void *context, uint32_t stream, uint8_t *buffer, size_t size, size_t valid) {
  (void)context, (void)stream;
  uint8_t *record = NULL;
  CHECK(size == BUFFER && valid <= size);
  while (valid && cuptiActivityGetNextRecord(buffer, valid, &record) == 0) {
    uint32_t kind, id;
    memcpy(&kind, record, sizeof kind);
    if (kind == CUPTI_ABI_KIND_RUNTIME) calls++;
    if (kind != CUPTI_ABI_KIND_CONCURRENT_KERNEL) continue;
    memcpy(&id, record + CUPTI_ABI_KERNEL_CORRELATION_ID, sizeof id);
    CHECK(told[id % IDS]++ == 0);
    uint32_t stream, number;
    memcpy(&stream, record + CUPTI_ABI_KERNEL_STREAM_ID, sizeof stream);
    memcpy(&number, record + CUPTI_ABI_KERNEL_GRID_X, sizeof number);
    pthread_mutex_lock(&seen_lock);
    see(stream, number);
    pthread_mutex_unlock(&seen_lock);
    kernels++;
  }
  free(buffer);
  buffers_out--;
}

static void hear(void *user, uint32_t domain, uint32_t cbid, const void *data) {
  (void)data;
  CHECK(user == &heard && domain == SIMGPU_RUNTIME && cbid == CBID_LAUNCH);
  entered++;
  heard++;
  entered--;
}

static void *launch(void *unused) {
  (void)unused;
  void *stream;
  const struct simgpu_kernel *kernel = simgpu_kernel_named("_Z4spinv");
  const struct abi_dim3 one = {1, 1, 1};
  CHECK(cudaStreamCreate(&stream) == 0);
  for (unsigned i = 1; !stop; i++) {
    const struct abi_dim3 grid = {i, 1, 1};
    simgpu_next_duration_ns(100);
    CHECK(cudaLaunchKernel(kernel, grid, one, NULL, 0, stream) == 0);
    if (i % 64 == 0) CHECK(cudaStreamSynchronize(stream) == 0);
  }
  return NULL;
}

static void wait_for_some(atomic_ulong *counter) {
  const unsigned long from = *counter;
  while (*counter < from + 100) simgpu_sleep_until(simgpu_now_ns() + 200000);
}

static void attach_and_detach(int cycle) {
  void *subscriber;
  CHECK(cuptiSubscribe(&subscriber, hear, &heard) == 0);
  CHECK(cuptiEnableCallback(1, subscriber, SIMGPU_RUNTIME, CBID_LAUNCH) == 0);
  CHECK(cuptiActivityRegisterCallbacks(request, complete) == 0);
  CHECK(cuptiActivityFlushPeriod(cycle % 2 ? 1 : 0) == 0);
  CHECK(cuptiActivityEnable(CUPTI_ABI_KIND_CONCURRENT_KERNEL) == 0);
  CHECK(cuptiActivityEnable(CUPTI_ABI_KIND_RUNTIME) == 0);
  wait_for_some(&heard);
  CHECK(cuptiActivityFlushAll(0) == 0);
  CHECK(cuptiUnsubscribe(subscriber) == 0);
  CHECK(entered == 0); /* nobody is in a callback of ours when unsubscribing returns */
  size_t dropped;
  CHECK(cuptiActivityGetNumDroppedRecords(NULL, 0, &dropped) == 0 && dropped == 0);
  if (cycle % 3 == 0) {
    CHECK(cuptiFinalize() == 0);
    check_holes();
    return;
  }
  CHECK(cuptiActivityDisable(CUPTI_ABI_KIND_CONCURRENT_KERNEL) == 0);
  CHECK(cuptiActivityDisable(CUPTI_ABI_KIND_RUNTIME) == 0);
  CHECK(cuptiActivityFlushAll(1) == 0);
  check_holes();
}

int main(void) {
  pthread_t threads[THREADS];
  told = calloc(IDS, sizeof *told);
  CHECK(simgpu_initialize() == SIMGPU_OK);
  for (int i = 0; i < THREADS; i++) CHECK(pthread_create(&threads[i], NULL, launch, NULL) == 0);
  for (int cycle = 0; cycle < CYCLES; cycle++) attach_and_detach(cycle);
  stop = true;
  for (int i = 0; i < THREADS; i++) CHECK(pthread_join(threads[i], NULL) == 0);
  CHECK(cuptiFinalize() == 0);
  CHECK(kernels > 0 && calls > 0 && buffers_out == 0);
  printf("%d cycles, %lu kernels, %lu calls\n", CYCLES, kernels, calls);
  free((void *)told);
  return 0;
}
