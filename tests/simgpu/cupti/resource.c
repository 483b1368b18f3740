/* Records of devices, contexts, streams and allocations. */
#include <unistd.h>

#include "core/identity.h"
#include "resource.h"

void resource_put_context(uint32_t device, uint32_t context) {
  enum { COMPUTE_API_CUDA = 1, NULL_STREAM = 7 };
  struct record record;
  if (!activity_is_on(CUPTI_ABI_KIND_CONTEXT)) return;
  record_begin(&record, CUPTI_ABI_KIND_CONTEXT);
  PUT(&record, CONTEXT_CONTEXT_ID, context);
  PUT(&record, CONTEXT_DEVICE_ID, device);
  PUT(&record, CONTEXT_COMPUTE_API_KIND, COMPUTE_API_CUDA);
  PUT(&record, CONTEXT_NULL_STREAM_ID, NULL_STREAM);
  buffer_put(&record);
}

void resource_put_stream(uint32_t context, uint32_t id, int priority) {
  enum { NULL_STREAM = 7, FLAG_DEFAULT = 1, FLAG_NULL = 3 };
  struct record record;
  if (!activity_is_on(CUPTI_ABI_KIND_STREAM)) return;
  record_begin(&record, CUPTI_ABI_KIND_STREAM);
  PUT(&record, STREAM_CONTEXT_ID, context);
  PUT(&record, STREAM_STREAM_ID, id);
  PUT(&record, STREAM_PRIORITY, priority);
  PUT(&record, STREAM_FLAG, id == NULL_STREAM ? FLAG_NULL : FLAG_DEFAULT);
  buffer_put(&record);
}

static void put_device(int device) {
  struct simgpu_device_info info;
  struct record record;
  if (simgpu_device_info(device, &info) != SIMGPU_OK) return;
  record_begin(&record, CUPTI_ABI_KIND_DEVICE);
  PUT(&record, DEVICE_GLOBAL_MEMORY_BANDWIDTH, 3350000000ull); /* kB/s */
  PUT(&record, DEVICE_GLOBAL_MEMORY_SIZE, info.memory_total);
  PUT(&record, DEVICE_NUM_MULTIPROCESSORS, info.multiprocessors);
  PUT(&record, DEVICE_COMPUTE_CAPABILITY_MAJOR, info.major);
  PUT(&record, DEVICE_COMPUTE_CAPABILITY_MINOR, info.minor);
  PUT(&record, DEVICE_ID, device);
  PUT(&record, DEVICE_NAME, (uintptr_t)info.name);
  buffer_put(&record);
}

void resource_put_allocation(const struct simgpu_allocation *allocation) {
  enum { ALLOCATED = 1, RELEASED = 2 };
  struct record record;
  if (!activity_is_on(CUPTI_ABI_KIND_MEMORY2)) return;
  record_begin(&record, CUPTI_ABI_KIND_MEMORY2);
  PUT(&record, MEMORY_MEMORY_OPERATION_TYPE, allocation->is_free ? RELEASED : ALLOCATED);
  PUT(&record, MEMORY_MEMORY_KIND, allocation->kind);
  PUT(&record, MEMORY_CORRELATION_ID, allocation->correlation_id);
  PUT(&record, MEMORY_ADDRESS, allocation->address);
  PUT(&record, MEMORY_BYTES, allocation->bytes);
  PUT(&record, MEMORY_TIMESTAMP, activity_convert_ns(allocation->time_ns));
  PUT(&record, MEMORY_PROCESS_ID, getpid());
  PUT(&record, MEMORY_DEVICE_ID, allocation->device);
  PUT(&record, MEMORY_CONTEXT_ID, allocation->context);
  PUT(&record, MEMORY_STREAM_ID, UINT32_MAX); /* not stream-ordered */
  buffer_put(&record);
}

void record_dump(uint32_t kind) {
  for (int device = 0; device < simgpu_device_count(); device++) {
    if (kind == CUPTI_ABI_KIND_DEVICE) put_device(device);
    if (!simgpu_device_has_context(device)) continue;
    if (kind == CUPTI_ABI_KIND_CONTEXT) {
      resource_put_context((uint32_t)device, (uint32_t)device + 1);
    }
    if (kind == CUPTI_ABI_KIND_STREAM) simgpu_streams_visit(device, resource_put_stream);
  }
}
