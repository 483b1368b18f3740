/* cudaMalloc and its family. */
#include "api.h"

enum { PITCH = 512, INVALID_DEVICE_POINTER = 1 };

/* Work that uses the memory may be queued: as the real one, wait for the device. */
static int release(void *pointer) {
  if (!pointer) return SIMGPU_OK;
  const struct simgpu_memory memory = simgpu_memory_of(pointer);
  if (memory.base != pointer) return INVALID_DEVICE_POINTER;
  simgpu_device_synchronize(memory.device);
  return simgpu_memory_free(pointer);
}

static int allocate_pitched(void **pointer, size_t *pitch, size_t width, size_t height) {
  *pitch = (width + PITCH - 1) / PITCH * PITCH;
  return simgpu_memory_allocate(SIMGPU_MEMORY_DEVICE, *pitch * height, pointer);
}

/* Allocation is at once, whatever the stream does; the order of uses is the caller's to keep. */
static int allocate_async(void **pointer, size_t bytes) {
  return simgpu_memory_allocate(SIMGPU_MEMORY_DEVICE, bytes, pointer);
}

static int free_async(void *pointer, void *stream) {
  const struct simgpu_operation operation = {.kind = SIMGPU_FREE, .payload = pointer};
  if (!pointer) return SIMGPU_OK;
  if (simgpu_memory_of(pointer).base != pointer) return INVALID_DEVICE_POINTER;
  return simgpu_enqueue(simgpu_stream_of(stream), &operation);
}

static int memory_info(size_t *free_bytes, size_t *total) {
  struct simgpu_device_info info;
  const int result = simgpu_device_info(simgpu_device_current(), &info);
  if (result != SIMGPU_OK) return result;
  *free_bytes = info.memory_total - info.memory_used;
  *total = info.memory_total;
  return SIMGPU_OK;
}

static int device_pointer(void **device, void *host) {
  if (simgpu_memory_of(host).kind == SIMGPU_MEMORY_PAGEABLE) return SIMGPU_INVALID_VALUE;
  *device = host;
  return SIMGPU_OK;
}

static int pointer_attributes(struct abi_pointer_attributes *attributes, const void *pointer) {
  static const int types[] = {[SIMGPU_MEMORY_PINNED] = 1,
                              [SIMGPU_MEMORY_DEVICE] = 2,
                              [SIMGPU_MEMORY_MANAGED] = 3};
  if (!attributes) return SIMGPU_INVALID_VALUE;
  const struct simgpu_memory memory = simgpu_memory_of(pointer);
  const bool known = memory.kind != SIMGPU_MEMORY_PAGEABLE;
  attributes->type = types[memory.kind];
  attributes->device = known ? memory.device : -2; /* cudaInvalidDeviceId */
  attributes->device_pointer = known ? (void *)pointer : NULL;
  attributes->host_pointer = memory.kind == SIMGPU_MEMORY_DEVICE ? NULL : (void *)pointer;
  return SIMGPU_OK;
}

API_2(cudaMalloc, 20, void **, pointer, size_t, bytes,
      simgpu_memory_allocate(SIMGPU_MEMORY_DEVICE, bytes, pointer))
API_4(cudaMallocPitch, 21, void **, pointer, size_t *, pitch, size_t, width, size_t, height,
      allocate_pitched(pointer, pitch, width, height))
API_1(cudaFree, 22, void *, pointer, release(pointer))
API_2(cudaMallocHost, 25, void **, pointer, size_t, bytes,
      simgpu_memory_allocate(SIMGPU_MEMORY_PINNED, bytes, pointer))
API_1(cudaFreeHost, 26, void *, pointer, release(pointer))
API_3(cudaHostAlloc, 27, void **, pointer, size_t, bytes, unsigned, flags,
      ((void)flags, simgpu_memory_allocate(SIMGPU_MEMORY_PINNED, bytes, pointer)))
API_3(cudaHostGetDevicePointer, 28, void **, device, void *, host, unsigned, flags,
      ((void)flags, device_pointer(device, host)))
API_2(cudaMemGetInfo, 30, size_t *, free_bytes, size_t *, total, memory_info(free_bytes, total))
API_2(cudaPointerGetAttributes, 151, struct abi_pointer_attributes *, attributes, const void *,
      pointer, pointer_attributes(attributes, pointer))
API_3(cudaHostRegister, 152, void *, pointer, size_t, bytes, unsigned, flags,
      ((void)flags, simgpu_memory_register(pointer, bytes)))
API_1(cudaHostUnregister, 153, void *, pointer, simgpu_memory_unregister(pointer))
API_3(cudaMallocManaged, 206, void **, pointer, size_t, bytes, unsigned, flags,
      ((void)flags, simgpu_memory_allocate(SIMGPU_MEMORY_MANAGED, bytes, pointer)))
STREAM_API_3(cudaMallocAsync, 373, 374, void **, pointer, size_t, bytes,
             ((void)stream, allocate_async(pointer, bytes)))
STREAM_API_2(cudaFreeAsync, 375, 376, void *, pointer, free_async(pointer, stream))
