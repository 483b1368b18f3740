// The NCCL functions that the process group calls, declared as facts of the ABI (2.28). Weak: a process
// without libnccl.so.2 can still use the device.
#pragma once

#include <cstddef>

#include "runtime_api.h"

extern "C" {

typedef int ncclResult_t;
typedef struct ncclComm *ncclComm_t;
typedef int ncclDataType_t;
typedef int ncclRedOp_t;

struct ncclUniqueId {
  char internal[128];
};

enum { ncclSum = 0, ncclProd = 1, ncclMax = 2, ncclMin = 3, ncclAvg = 4 };
enum { ncclScalarHostImmediate = 1 };

#define SIMCUDA_WEAK __attribute__((weak))
SIMCUDA_WEAK const char *ncclGetErrorString(ncclResult_t result);
SIMCUDA_WEAK ncclResult_t ncclGetUniqueId(ncclUniqueId *id);
SIMCUDA_WEAK ncclResult_t ncclCommInitRank(ncclComm_t *comm, int ranks, ncclUniqueId id, int rank);
SIMCUDA_WEAK ncclResult_t ncclCommDestroy(ncclComm_t comm);
SIMCUDA_WEAK ncclResult_t ncclCommAbort(ncclComm_t comm);
SIMCUDA_WEAK ncclResult_t ncclGroupStart(void);
SIMCUDA_WEAK ncclResult_t ncclGroupEnd(void);
SIMCUDA_WEAK ncclResult_t ncclAllReduce(const void *from, void *to, size_t count, ncclDataType_t type,
                                        ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream);
SIMCUDA_WEAK ncclResult_t ncclBroadcast(const void *from, void *to, size_t count, ncclDataType_t type,
                                        int root, ncclComm_t comm, cudaStream_t stream);
SIMCUDA_WEAK ncclResult_t ncclReduce(const void *from, void *to, size_t count, ncclDataType_t type,
                                     ncclRedOp_t op, int root, ncclComm_t comm, cudaStream_t stream);
SIMCUDA_WEAK ncclResult_t ncclAllGather(const void *from, void *to, size_t count, ncclDataType_t type,
                                        ncclComm_t comm, cudaStream_t stream);
SIMCUDA_WEAK ncclResult_t ncclReduceScatter(const void *from, void *to, size_t count,
                                            ncclDataType_t type, ncclRedOp_t op, ncclComm_t comm,
                                            cudaStream_t stream);
SIMCUDA_WEAK ncclResult_t ncclSend(const void *from, size_t count, ncclDataType_t type, int peer,
                                   ncclComm_t comm, cudaStream_t stream);
SIMCUDA_WEAK ncclResult_t ncclRecv(void *to, size_t count, ncclDataType_t type, int peer,
                                   ncclComm_t comm, cudaStream_t stream);
SIMCUDA_WEAK ncclResult_t ncclRedOpCreatePreMulSum(ncclRedOp_t *op, void *scalar, ncclDataType_t type,
                                                   int residence, ncclComm_t comm);
SIMCUDA_WEAK ncclResult_t ncclRedOpDestroy(ncclRedOp_t op, ncclComm_t comm);
}
