/* Memory: allocation, copies, fills. */
#include "core/copy.h"
#include "driver.h"

static int allocate(enum simgpu_memory_kind kind, size_t bytes, void **pointer) {
  if (bytes == 0) return SIMGPU_INVALID_VALUE; /* the runtime takes it, the driver does not */
  return simgpu_memory_allocate(kind, bytes, pointer);
}

static int allocate_on_device(device_pointer *pointer, size_t bytes) {
  return allocate(SIMGPU_MEMORY_DEVICE, bytes, (void **)pointer);
}

static int release(void *pointer) {
  const struct simgpu_memory memory = simgpu_memory_of(pointer);
  if (!pointer || memory.base != pointer) return SIMGPU_INVALID_VALUE;
  simgpu_device_synchronize(memory.device);
  return simgpu_memory_free(pointer);
}

static int release_async(void *pointer, stream_handle stream) {
  const struct simgpu_operation operation = {.kind = SIMGPU_FREE, .payload = pointer};
  if (simgpu_memory_of(pointer).base != pointer) return SIMGPU_INVALID_VALUE;
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

/* CUpointer_attribute */
enum { POINTER_CONTEXT = 1, POINTER_MEMORY_TYPE = 2, POINTER_DEVICE = 3, POINTER_ORDINAL = 9 };

static int pointer_attribute(void *value, int attribute, device_pointer pointer) {
  const struct simgpu_memory memory = simgpu_memory_of((void *)pointer);
  if (!value || memory.kind == SIMGPU_MEMORY_PAGEABLE) return SIMGPU_INVALID_VALUE;
  switch (attribute) {
  case POINTER_CONTEXT:
    *(void **)value = CONTEXT_OF(memory.device);
    return SIMGPU_OK;
  case POINTER_MEMORY_TYPE:
    *(unsigned *)value = memory.kind == SIMGPU_MEMORY_PINNED ? ABI_DRIVER_MEMORY_HOST
                                                             : ABI_DRIVER_MEMORY_DEVICE;
    return SIMGPU_OK;
  case POINTER_DEVICE:
    *(device_pointer *)value = pointer;
    return SIMGPU_OK;
  case POINTER_ORDINAL:
    *(int *)value = memory.device;
    return SIMGPU_OK;
  default:
    return SIMGPU_NOT_SUPPORTED;
  }
}

static int copy(device_pointer to, device_pointer from, size_t bytes,
                enum simgpu_direction direction, bool wait, stream_handle stream) {
  const struct simgpu_rows target = {(void *)to, bytes}, source = {(void *)from, bytes};
  return simgpu_copy(target, source, bytes, 1, direction, wait, simgpu_stream_of(stream));
}

static int copy_2d(const struct abi_driver_copy_2d *it, bool wait, stream_handle stream) {
  if (!it) return SIMGPU_INVALID_VALUE;
  const bool to_host = it->to_type == ABI_DRIVER_MEMORY_HOST;
  const bool from_host = it->from_type == ABI_DRIVER_MEMORY_HOST;
  char *to = to_host ? it->to_host : (char *)it->to_device;
  const char *from = from_host ? it->from_host : (const char *)it->from_device;
  const struct simgpu_rows target = {to + it->to_y * it->to_pitch + it->to_x, it->to_pitch};
  const struct simgpu_rows source = {(char *)from + it->from_y * it->from_pitch + it->from_x,
                                     it->from_pitch};
  return simgpu_copy(target, source, it->width, it->height, SIMGPU_BY_POINTERS, wait,
                     simgpu_stream_of(stream));
}

static int fill(device_pointer to, uint32_t value, size_t count, uint8_t element_size,
                bool asynchronous, stream_handle stream) {
  const struct simgpu_rows target = {(void *)to, count * element_size};
  return simgpu_fill(target, count * element_size, 1, value, element_size, asynchronous,
                     simgpu_stream_of(stream));
}

#define PER_THREAD (stream ? stream : (stream_handle)2)

DRIVER_2(cuMemAlloc_v2, 243, device_pointer *, pointer, size_t, bytes,
         allocate_on_device(pointer, bytes))
DRIVER_1(cuMemFree_v2, 245, device_pointer, pointer, release((void *)pointer))
DRIVER_2(cuMemAllocHost_v2, 294, void **, pointer, size_t, bytes,
         allocate(SIMGPU_MEMORY_PINNED, bytes, pointer))
DRIVER_1(cuMemFreeHost, 38, void *, pointer, release(pointer))
DRIVER_3(cuMemHostAlloc, 271, void **, pointer, size_t, bytes, unsigned, flags,
         ((void)flags, allocate(SIMGPU_MEMORY_PINNED, bytes, pointer)))
DRIVER_3(cuMemAllocManaged, 371, device_pointer *, pointer, size_t, bytes, unsigned, flags,
         ((void)flags, allocate(SIMGPU_MEMORY_MANAGED, bytes, (void **)pointer)))
DRIVER_3(cuMemAllocAsync, 598, device_pointer *, pointer, size_t, bytes, stream_handle, stream,
         ((void)stream, allocate_on_device(pointer, bytes)))
DRIVER_2(cuMemFreeAsync, 600, device_pointer, pointer, stream_handle, stream,
         release_async((void *)pointer, stream))
DRIVER_2(cuMemGetInfo_v2, 242, size_t *, free_bytes, size_t *, total,
         memory_info(free_bytes, total))
DRIVER_3(cuPointerGetAttribute, 310, void *, value, int, attribute, device_pointer, pointer,
         pointer_attribute(value, attribute, pointer))

DRIVER_3(cuMemcpy, 305, device_pointer, to, device_pointer, from, size_t, bytes,
         copy(to, from, bytes, SIMGPU_BY_POINTERS, true, NULL))
DRIVER_4(cuMemcpyAsync, 306, device_pointer, to, device_pointer, from, size_t, bytes,
         stream_handle, stream, copy(to, from, bytes, SIMGPU_BY_POINTERS, false, stream))
DRIVER_3(cuMemcpyHtoD_v2, 276, device_pointer, to, const void *, from, size_t, bytes,
         copy(to, (uintptr_t)from, bytes, SIMGPU_TO_DEVICE, true, NULL))
DRIVER_4(cuMemcpyHtoDAsync_v2, 277, device_pointer, to, const void *, from, size_t, bytes,
         stream_handle, stream,
         copy(to, (uintptr_t)from, bytes, SIMGPU_TO_DEVICE, false, stream))
DRIVER_3(cuMemcpyDtoH_v2, 278, void *, to, device_pointer, from, size_t, bytes,
         copy((uintptr_t)to, from, bytes, SIMGPU_FROM_DEVICE, true, NULL))
DRIVER_4(cuMemcpyDtoHAsync_v2, 279, void *, to, device_pointer, from, size_t, bytes,
         stream_handle, stream,
         copy((uintptr_t)to, from, bytes, SIMGPU_FROM_DEVICE, false, stream))
DRIVER_3(cuMemcpyDtoD_v2, 280, device_pointer, to, device_pointer, from, size_t, bytes,
         copy(to, from, bytes, SIMGPU_ON_DEVICE, true, NULL))
DRIVER_4(cuMemcpyDtoDAsync_v2, 281, device_pointer, to, device_pointer, from, size_t, bytes,
         stream_handle, stream, copy(to, from, bytes, SIMGPU_ON_DEVICE, false, stream))
DRIVER_1(cuMemcpy2D_v2, 287, const struct abi_driver_copy_2d *, how, copy_2d(how, true, NULL))
DRIVER_2(cuMemcpy2DAsync_v2, 289, const struct abi_driver_copy_2d *, how, stream_handle, stream,
         copy_2d(how, false, stream))

DRIVER_3(cuMemsetD8_v2, 249, device_pointer, to, uint8_t, value, size_t, count,
         fill(to, value, count, 1, false, NULL))
DRIVER_3(cuMemsetD16_v2, 250, device_pointer, to, uint16_t, value, size_t, count,
         fill(to, value, count, 2, false, NULL))
DRIVER_3(cuMemsetD32_v2, 251, device_pointer, to, uint32_t, value, size_t, count,
         fill(to, value, count, 4, false, NULL))
DRIVER_4(cuMemsetD8Async, 216, device_pointer, to, uint8_t, value, size_t, count, stream_handle,
         stream, fill(to, value, count, 1, true, stream))
DRIVER_4(cuMemsetD16Async, 218, device_pointer, to, uint16_t, value, size_t, count, stream_handle,
         stream, fill(to, value, count, 2, true, stream))
DRIVER_4(cuMemsetD32Async, 220, device_pointer, to, uint32_t, value, size_t, count, stream_handle,
         stream, fill(to, value, count, 4, true, stream))
DRIVER_4(cuMemcpyAsync_ptsz, 418, device_pointer, to, device_pointer, from, size_t, bytes,
         stream_handle, stream, copy(to, from, bytes, SIMGPU_BY_POINTERS, false, PER_THREAD))
