/* Records, as long as the chosen version has them. */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/identity.h"
#include "tracer.h"

enum { CHANNEL_COMPUTE = 1, CHANNEL_COPY = 2 };

void record_begin(struct record *record, uint32_t kind) {
  record->size = cupti_abi_record_size(kind, tracer_version());
  record->start_at = record->end_at = 0;
  memset(record->bytes, 0, record->size);
  memcpy(record->bytes, &kind, sizeof kind);
}

/* The defects of real versions: from some record on, all times are zero. */
static bool times_are_lost(void) {
  static atomic_long kernels;
  const double after = simgpu_fault("zero_timestamps", -1);
  return after >= 0 && ++kernels > (long)after;
}

/* The fields that kernels, copies and fills share have the same names, at other offsets. */
#define PUT_COMMON(record, RECORD, operation)                             \
  do {                                                                    \
    PUT(record, RECORD##_START, activity_convert_ns((operation)->start_ns)); \
    PUT(record, RECORD##_END, activity_convert_ns((operation)->end_ns));  \
    PUT(record, RECORD##_DEVICE_ID, (operation)->device);                 \
    PUT(record, RECORD##_CONTEXT_ID, (operation)->context);               \
    PUT(record, RECORD##_STREAM_ID, (operation)->stream);                 \
    PUT(record, RECORD##_CORRELATION_ID, (operation)->correlation_id);    \
    PUT(record, RECORD##_GRAPH_NODE_ID, (operation)->graph_node_id);      \
    PUT(record, RECORD##_GRAPH_ID, (operation)->graph_id);                \
    (record)->start_at = CUPTI_ABI_##RECORD##_START;                      \
    (record)->end_at = CUPTI_ABI_##RECORD##_END;                          \
  } while (0)

static void blank_times(struct record *record) {
  memset(record->bytes + record->start_at, 0, sizeof(uint64_t));
  memset(record->bytes + record->end_at, 0, sizeof(uint64_t));
}

static bool kernel_record(const struct simgpu_operation *operation, struct record *record) {
  const bool concurrent = operation->admitted & ADMIT_CONCURRENT_KERNEL;
  if (!concurrent && !(operation->admitted & ADMIT_KERNEL)) return false;
  record_begin(record,
               concurrent ? CUPTI_ABI_KIND_CONCURRENT_KERNEL : CUPTI_ABI_KIND_KERNEL);
  PUT_COMMON(record, KERNEL, operation);
  PUT(record, KERNEL_COMPLETED, activity_convert_ns(operation->end_ns));
  PUT(record, KERNEL_REGISTERS_PER_THREAD, operation->registers);
  PUT(record, KERNEL_GRID_X, operation->grid[0]);
  PUT(record, KERNEL_GRID_Y, operation->grid[1]);
  PUT(record, KERNEL_GRID_Z, operation->grid[2]);
  PUT(record, KERNEL_BLOCK_X, operation->block[0]);
  PUT(record, KERNEL_BLOCK_Y, operation->block[1]);
  PUT(record, KERNEL_BLOCK_Z, operation->block[2]);
  PUT(record, KERNEL_STATIC_SHARED_MEMORY, operation->static_shared);
  PUT(record, KERNEL_DYNAMIC_SHARED_MEMORY, operation->dynamic_shared);
  PUT(record, KERNEL_GRID_ID, operation->sequence);
  PUT(record, KERNEL_NAME, (uintptr_t)operation->name);
  PUT(record, KERNEL_LAUNCH_TYPE, operation->cooperative);
  PUT(record, KERNEL_CHANNEL_ID, operation->stream);
  PUT(record, KERNEL_CHANNEL_TYPE, CHANNEL_COMPUTE);
  PUT(record, KERNEL_CLUSTER_X, operation->cluster[0]);
  PUT(record, KERNEL_CLUSTER_Y, operation->cluster[1]);
  PUT(record, KERNEL_CLUSTER_Z, operation->cluster[2]);
  if (tracer_version() >= 1301) PUT(record, KERNEL_PRIORITY, operation->priority);
  if (times_are_lost()) blank_times(record);
  return true;
}

static bool ptop_record(const struct simgpu_operation *operation, struct record *record) {
  if (!(operation->admitted & ADMIT_MEMCPY2)) return false;
  record_begin(record, CUPTI_ABI_KIND_MEMCPY2);
  PUT_COMMON(record, MEMCPY_PTOP, operation);
  PUT(record, MEMCPY_PTOP_COPY_KIND, operation->copy_kind);
  PUT(record, MEMCPY_PTOP_SRC_KIND, operation->source_kind);
  PUT(record, MEMCPY_PTOP_DST_KIND, operation->destination_kind);
  PUT(record, MEMCPY_PTOP_FLAGS, operation->asynchronous);
  PUT(record, MEMCPY_PTOP_BYTES, operation->bytes);
  PUT(record, MEMCPY_PTOP_SRC_DEVICE_ID, operation->source_device);
  PUT(record, MEMCPY_PTOP_SRC_CONTEXT_ID, operation->source_device + 1);
  PUT(record, MEMCPY_PTOP_DST_DEVICE_ID, operation->destination_device);
  PUT(record, MEMCPY_PTOP_DST_CONTEXT_ID, operation->destination_device + 1);
  PUT(record, MEMCPY_PTOP_CHANNEL_TYPE, CHANNEL_COPY);
  return true;
}

static bool copy_record(const struct simgpu_operation *operation, struct record *record) {
  if (operation->copy_kind == SIMGPU_COPY_PTOP) return ptop_record(operation, record);
  if (!(operation->admitted & ADMIT_MEMCPY)) return false;
  record_begin(record, CUPTI_ABI_KIND_MEMCPY);
  PUT_COMMON(record, MEMCPY, operation);
  PUT(record, MEMCPY_COPY_KIND, operation->copy_kind);
  PUT(record, MEMCPY_SRC_KIND, operation->source_kind);
  PUT(record, MEMCPY_DST_KIND, operation->destination_kind);
  PUT(record, MEMCPY_FLAGS, operation->asynchronous);
  PUT(record, MEMCPY_BYTES, operation->bytes);
  PUT(record, MEMCPY_CHANNEL_TYPE, CHANNEL_COPY);
  if (tracer_version() >= 1208) PUT(record, MEMCPY_COPY_COUNT, 1);
  return true;
}

static bool fill_record(const struct simgpu_operation *operation, struct record *record) {
  if (!(operation->admitted & ADMIT_MEMSET)) return false;
  record_begin(record, CUPTI_ABI_KIND_MEMSET);
  PUT_COMMON(record, MEMSET, operation);
  PUT(record, MEMSET_VALUE, operation->value);
  PUT(record, MEMSET_BYTES, operation->bytes);
  PUT(record, MEMSET_FLAGS, operation->asynchronous);
  PUT(record, MEMSET_MEMORY_KIND, operation->destination_kind);
  PUT(record, MEMSET_CHANNEL_TYPE, CHANNEL_COMPUTE);
  return true;
}

static bool graph_record(const struct simgpu_operation *operation, struct record *record) {
  if (!(operation->admitted & ADMIT_GRAPH_TRACE)) return false;
  record_begin(record, CUPTI_ABI_KIND_GRAPH_TRACE);
  PUT(record, GRAPH_TRACE_CORRELATION_ID, operation->correlation_id);
  PUT(record, GRAPH_TRACE_START, activity_convert_ns(operation->start_ns));
  PUT(record, GRAPH_TRACE_END, activity_convert_ns(operation->end_ns));
  PUT(record, GRAPH_TRACE_DEVICE_ID, operation->device);
  PUT(record, GRAPH_TRACE_GRAPH_ID, operation->graph_id);
  PUT(record, GRAPH_TRACE_CONTEXT_ID, operation->context);
  PUT(record, GRAPH_TRACE_STREAM_ID, operation->stream);
  record->start_at = CUPTI_ABI_GRAPH_TRACE_START;
  record->end_at = CUPTI_ABI_GRAPH_TRACE_END;
  return true;
}

bool record_operation(const struct simgpu_operation *operation, struct record *record) {
  if (operation->kind == SIMGPU_GRAPH) return graph_record(operation, record);
  /* One record for the launch, or one for each node. */
  if (operation->graph_id && operation->admitted & ADMIT_GRAPH_TRACE) return false;
  switch (operation->kind) {
  case SIMGPU_KERNEL:
    return kernel_record(operation, record);
  case SIMGPU_MEMCPY:
    return copy_record(operation, record);
  case SIMGPU_MEMSET:
    return fill_record(operation, record);
  default:
    return false;
  }
}
