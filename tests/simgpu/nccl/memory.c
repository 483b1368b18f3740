#include "../core/simgpu.h"
#include "comm.h"
#include "error.h"

nccl_result ncclMemAlloc(void **pointer, size_t size) {
  if (!pointer || size == 0) {
    return fail(NCCL_INVALID_ARGUMENT, "ncclMemAlloc: %zu bytes", size);
  }
  if (simgpu_initialize() != SIMGPU_OK ||
      simgpu_memory_allocate(SIMGPU_MEMORY_DEVICE, size, pointer) != SIMGPU_OK) {
    return fail(NCCL_UNHANDLED_CUDA_ERROR, "ncclMemAlloc: %zu bytes cannot be had", size);
  }
  return NCCL_SUCCESS;
}

nccl_result ncclMemFree(void *pointer) {
  if (simgpu_memory_free(pointer) != SIMGPU_OK) {
    return fail(NCCL_UNHANDLED_CUDA_ERROR, "ncclMemFree: nothing was allocated at %p", pointer);
  }
  return NCCL_SUCCESS;
}

/* Data go by way of shared memory, registered or not: the handle is only one. */
nccl_result ncclCommRegister(nccl_comm comm, void *buffer, size_t size, void **handle) {
  const nccl_result result = comm_check(comm, "ncclCommRegister");
  if (result == NCCL_SUCCESS && (!buffer || !handle || size == 0)) {
    return fail(NCCL_INVALID_ARGUMENT, "ncclCommRegister: %zu bytes", size);
  }
  if (result == NCCL_SUCCESS) {
    *handle = buffer;
  }
  return result;
}

nccl_result ncclCommDeregister(nccl_comm comm, void *handle) {
  const nccl_result result = comm_check(comm, "ncclCommDeregister");
  if (result == NCCL_SUCCESS && !handle) {
    return fail(NCCL_INVALID_ARGUMENT, "ncclCommDeregister: handle is NULL");
  }
  return result;
}
