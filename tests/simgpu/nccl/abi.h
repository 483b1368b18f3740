/* What a program compiled for NCCL 2.28 expects of libnccl.so.2: numbers, sizes, prototypes. */
#ifndef SIMGPU_NCCL_ABI_H
#define SIMGPU_NCCL_ABI_H
#include <limits.h>
#include <stddef.h>

#define NCCL_API __attribute__((visibility("default")))

enum { NCCL_VERSION = 22809, NCCL_CONFIG_MAGIC = (int)0xcafebeef, NCCL_UNDEFINED = INT_MIN };
enum { NCCL_SPLIT_NOCOLOR = -1 };

typedef enum {
  NCCL_SUCCESS = 0,
  NCCL_UNHANDLED_CUDA_ERROR = 1,
  NCCL_SYSTEM_ERROR = 2,
  NCCL_INTERNAL_ERROR = 3,
  NCCL_INVALID_ARGUMENT = 4,
  NCCL_INVALID_USAGE = 5,
  NCCL_REMOTE_ERROR = 6,
  NCCL_IN_PROGRESS = 7,
} nccl_result;

typedef enum {
  NCCL_INT8 = 0,
  NCCL_UINT8 = 1,
  NCCL_INT32 = 2,
  NCCL_UINT32 = 3,
  NCCL_INT64 = 4,
  NCCL_UINT64 = 5,
  NCCL_FLOAT16 = 6,
  NCCL_FLOAT32 = 7,
  NCCL_FLOAT64 = 8,
  NCCL_BFLOAT16 = 9,
  NCCL_FLOAT8E4M3 = 10,
  NCCL_FLOAT8E5M2 = 11,
  NCCL_TYPE_COUNT = 12,
} nccl_type;

/* From NCCL_OP_COUNT on: made by ncclRedOpCreatePreMulSum. */
typedef enum {
  NCCL_SUM = 0,
  NCCL_PROD = 1,
  NCCL_MAX = 2,
  NCCL_MIN = 3,
  NCCL_AVG = 4,
  NCCL_OP_COUNT = 5,
  NCCL_OP_LAST = INT_MAX,
} nccl_op;

typedef enum { NCCL_SCALAR_DEVICE = 0, NCCL_SCALAR_HOST = 1 } nccl_residence;

typedef struct {
  char internal[128];
} nccl_unique_id;

/* Older callers pass a shorter one and say so in `size`. */
typedef struct {
  size_t size;
  unsigned magic, version;
  int blocking, cga_cluster_size, min_ctas, max_ctas;
  const char *net_name;
  int split_share, traffic_class;
  const char *comm_name;
  int collnet_enable, cta_policy, shrink_share, nvls_ctas, channels_per_net_peer, nvlink_centric;
} nccl_config;
_Static_assert(sizeof(nccl_config) == 80, "ncclConfig_t of 2.28");

typedef struct nccl_comm *nccl_comm;
typedef void *nccl_stream;

NCCL_API nccl_result ncclGetVersion(int *version);
NCCL_API const char *ncclGetErrorString(nccl_result result);
NCCL_API const char *ncclGetLastError(nccl_comm comm);

NCCL_API nccl_result ncclGetUniqueId(nccl_unique_id *id);
NCCL_API nccl_result ncclCommInitRank(nccl_comm *comm, int ranks, nccl_unique_id id, int rank);
NCCL_API nccl_result ncclCommInitRankConfig(nccl_comm *comm, int ranks, nccl_unique_id id, int rank,
                                            nccl_config *config);
NCCL_API nccl_result ncclCommInitAll(nccl_comm *comms, int count, const int *devices);
NCCL_API nccl_result ncclCommSplit(nccl_comm comm, int color, int key, nccl_comm *made,
                                   nccl_config *config);
NCCL_API nccl_result ncclCommFinalize(nccl_comm comm);
NCCL_API nccl_result ncclCommDestroy(nccl_comm comm);
NCCL_API nccl_result ncclCommAbort(nccl_comm comm);
NCCL_API nccl_result ncclCommGetAsyncError(nccl_comm comm, nccl_result *error);
NCCL_API nccl_result ncclCommCount(nccl_comm comm, int *count);
NCCL_API nccl_result ncclCommUserRank(nccl_comm comm, int *rank);
NCCL_API nccl_result ncclCommCuDevice(nccl_comm comm, int *device);

NCCL_API nccl_result ncclMemAlloc(void **pointer, size_t size);
NCCL_API nccl_result ncclMemFree(void *pointer);
NCCL_API nccl_result ncclCommRegister(nccl_comm comm, void *buffer, size_t size, void **handle);
NCCL_API nccl_result ncclCommDeregister(nccl_comm comm, void *handle);

NCCL_API nccl_result ncclRedOpCreatePreMulSum(nccl_op *op, void *scalar, nccl_type type,
                                              nccl_residence residence, nccl_comm comm);
NCCL_API nccl_result ncclRedOpDestroy(nccl_op op, nccl_comm comm);

NCCL_API nccl_result ncclGroupStart(void);
NCCL_API nccl_result ncclGroupEnd(void);

NCCL_API nccl_result ncclAllReduce(const void *from, void *to, size_t count, nccl_type type,
                                   nccl_op op, nccl_comm comm, nccl_stream stream);
NCCL_API nccl_result ncclReduce(const void *from, void *to, size_t count, nccl_type type,
                                nccl_op op, int root, nccl_comm comm, nccl_stream stream);
NCCL_API nccl_result ncclReduceScatter(const void *from, void *to, size_t count, nccl_type type,
                                       nccl_op op, nccl_comm comm, nccl_stream stream);
NCCL_API nccl_result ncclAllGather(const void *from, void *to, size_t count, nccl_type type,
                                   nccl_comm comm, nccl_stream stream);
NCCL_API nccl_result ncclBroadcast(const void *from, void *to, size_t count, nccl_type type,
                                   int root, nccl_comm comm, nccl_stream stream);
NCCL_API nccl_result ncclBcast(void *buffer, size_t count, nccl_type type, int root, nccl_comm comm,
                               nccl_stream stream);
NCCL_API nccl_result ncclAlltoAll(const void *from, void *to, size_t count, nccl_type type,
                                  nccl_comm comm, nccl_stream stream);
NCCL_API nccl_result ncclGather(const void *from, void *to, size_t count, nccl_type type, int root,
                                nccl_comm comm, nccl_stream stream);
NCCL_API nccl_result ncclScatter(const void *from, void *to, size_t count, nccl_type type, int root,
                                 nccl_comm comm, nccl_stream stream);
NCCL_API nccl_result ncclSend(const void *from, size_t count, nccl_type type, int peer,
                              nccl_comm comm, nccl_stream stream);
NCCL_API nccl_result ncclRecv(void *to, size_t count, nccl_type type, int peer, nccl_comm comm,
                              nccl_stream stream);

#endif
