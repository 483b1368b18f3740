/* What went wrong, for ncclGetLastError. */
#ifndef SIMGPU_NCCL_ERROR_H
#define SIMGPU_NCCL_ERROR_H
#include "abi.h"

/* Notes the message and returns `result`. With NCCL_DEBUG=WARN or INFO it is printed, too. */
__attribute__((format(printf, 2, 3))) nccl_result fail(nccl_result result, const char *format, ...);

#endif
