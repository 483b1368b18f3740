/*
 * A library of its own in a PyTorch process that asks NCCL for collectives, as those of other
 * frameworks do: two devices of this process, one communicator each.
 *
 * Build: cc -shared -fPIC asks_nccl.c -o asks_nccl.so -L FOLDER -l:libnccl.so.2 -l:libcudart.so.13
 */
#include <stddef.h>

enum { RANKS = 2, MOST_BYTES = 1 << 20 };
enum { INT8 = 0, INT64 = 4, FLOAT32 = 7, BFLOAT16 = 9 };
enum { SUM = 0, MAX = 2 };

int cudaSetDevice(int device);
int cudaMalloc(void **pointer, size_t size);
int cudaStreamCreate(void **stream);
int cudaStreamSynchronize(void *stream);
int ncclCommInitAll(void **comms, int count, const int *devices);
int ncclGroupStart(void);
int ncclGroupEnd(void);
int ncclAllReduce(const void *, void *, size_t, int, int, void *, void *);
int ncclReduce(const void *, void *, size_t, int, int, int, void *, void *);
int ncclReduceScatter(const void *, void *, size_t, int, int, void *, void *);
int ncclAllGather(const void *, void *, size_t, int, void *, void *);
int ncclAlltoAll(const void *, void *, size_t, int, void *, void *);
int ncclGather(const void *, void *, size_t, int, int, void *, void *);
int ncclScatter(const void *, void *, size_t, int, int, void *, void *);
int ncclBroadcast(const void *, void *, size_t, int, int, void *, void *);
int ncclBcast(void *, size_t, int, int, void *, void *);
int ncclSend(const void *, size_t, int, int, void *, void *);
int ncclRecv(void *, size_t, int, int, void *, void *);

void *comms[RANKS], *streams[RANKS];
static void *from[RANKS], *to[RANKS];

int open_two(void) {
  const int devices[RANKS] = {0, 1};
  for (int rank = 0; rank < RANKS; rank++) {
    if (cudaSetDevice(rank) || cudaMalloc(&from[rank], MOST_BYTES)) return -1;
    if (cudaMalloc(&to[rank], MOST_BYTES) || cudaStreamCreate(&streams[rank])) return -1;
  }
  const int result = ncclCommInitAll(comms, RANKS, devices);
  cudaSetDevice(0);
  return result;
}

static int wait(void) {
  for (int rank = 0; rank < RANKS; rank++) {
    if (cudaSetDevice(rank) || cudaStreamSynchronize(streams[rank])) return -1;
  }
  return cudaSetDevice(0);
}

#define GROUP(call)                                                    \
  do {                                                                 \
    if (ncclGroupStart()) return -1;                                   \
    for (int rank = 0; rank < RANKS; rank++) {                         \
      void *in = from[rank], *out = to[rank];                          \
      void *comm = comms[rank], *stream = streams[rank];               \
      (void)in, (void)out;                                             \
      if (call) return -1;                                             \
    }                                                                  \
    if (ncclGroupEnd() || wait()) return -1;                           \
  } while (0)

int all_reduce(size_t count) {
  GROUP(ncclAllReduce(in, out, count, FLOAT32, SUM, comm, stream));
  return 0;
}

int every_kind(void) {
  GROUP(ncclAllReduce(in, out, 1000, FLOAT32, SUM, comm, stream));
  GROUP(ncclReduce(in, out, 1001, BFLOAT16, MAX, 1, comm, stream));
  GROUP(ncclReduceScatter(in, out, 1002, INT64, SUM, comm, stream));
  GROUP(ncclAllGather(in, out, 1003, INT8, comm, stream));
  GROUP(ncclAlltoAll(in, out, 1004, FLOAT32, comm, stream));
  GROUP(ncclGather(in, out, 1005, FLOAT32, 0, comm, stream));
  GROUP(ncclScatter(in, out, 1006, FLOAT32, 1, comm, stream));
  GROUP(ncclBroadcast(in, out, 1007, FLOAT32, 0, comm, stream));
  GROUP(ncclBcast(in, 1008, FLOAT32, 1, comm, stream));
  GROUP(rank == 0 ? ncclSend(in, 1009, FLOAT32, 1, comm, stream)
                  : ncclRecv(out, 1009, FLOAT32, 0, comm, stream));
  return 0;
}

/* Refused: a communicator must not be asked then. */
int refused(void) { return ncclAllReduce(from[0], to[0], 10, 99, SUM, comms[0], streams[0]); }

/* The same, of every kind; works without a device, too. */
int without_communicator(void) {
  int refusals = 0;
  refusals += ncclAllReduce(NULL, NULL, 1000, FLOAT32, SUM, NULL, NULL) != 0;
  refusals += ncclReduce(NULL, NULL, 1001, BFLOAT16, MAX, 1, NULL, NULL) != 0;
  refusals += ncclReduceScatter(NULL, NULL, 1002, INT64, SUM, NULL, NULL) != 0;
  refusals += ncclAllGather(NULL, NULL, 1003, INT8, NULL, NULL) != 0;
  refusals += ncclAlltoAll(NULL, NULL, 1004, FLOAT32, NULL, NULL) != 0;
  refusals += ncclGather(NULL, NULL, 1005, FLOAT32, 0, NULL, NULL) != 0;
  refusals += ncclScatter(NULL, NULL, 1006, FLOAT32, 1, NULL, NULL) != 0;
  refusals += ncclBroadcast(NULL, NULL, 1007, FLOAT32, 0, NULL, NULL) != 0;
  refusals += ncclBcast(NULL, 1008, FLOAT32, 1, NULL, NULL) != 0;
  refusals += ncclSend(NULL, 1009, FLOAT32, 1, NULL, NULL) != 0;
  refusals += ncclRecv(NULL, 1009, FLOAT32, 0, NULL, NULL) != 0;
  return refusals;
}
