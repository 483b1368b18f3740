/* Copies and fills: kinds by what the pointers are, and when the host has to wait. */
#include "copy.h"

#include "internal.h"

static bool is_device(const struct simgpu_memory *memory) {
  return memory->kind == SIMGPU_MEMORY_DEVICE || memory->kind == SIMGPU_MEMORY_MANAGED;
}

static uint8_t copy_kind(const struct simgpu_memory *to, const struct simgpu_memory *from) {
  if (is_device(to) && is_device(from)) {
    return to->device == from->device ? SIMGPU_COPY_DTOD : SIMGPU_COPY_PTOP;
  }
  if (is_device(to)) return SIMGPU_COPY_HTOD;
  return is_device(from) ? SIMGPU_COPY_DTOH : SIMGPU_COPY_HTOH;
}

/* Pinned and managed memory is both; pageable memory is never the device's. */
static bool fits(enum simgpu_direction direction, const struct simgpu_memory *to,
                 const struct simgpu_memory *from) {
  const bool to_is_host = to->kind != SIMGPU_MEMORY_DEVICE;
  const bool from_is_host = from->kind != SIMGPU_MEMORY_DEVICE;
  const bool to_is_device = to->kind != SIMGPU_MEMORY_PAGEABLE;
  const bool from_is_device = from->kind != SIMGPU_MEMORY_PAGEABLE;
  switch (direction) {
  case SIMGPU_TO_DEVICE:
    return to_is_device && from_is_host;
  case SIMGPU_FROM_DEVICE:
    return to_is_host && from_is_device;
  case SIMGPU_ON_DEVICE:
    return to_is_device && from_is_device;
  case SIMGPU_ON_HOST:
    return to_is_host && from_is_host;
  default:
    return true;
  }
}

SIMGPU_EXPORT int simgpu_copy_describe(struct simgpu_rows to, struct simgpu_rows from,
                                       size_t width, size_t height,
                                       enum simgpu_direction direction,
                                       struct simgpu_operation *operation) {
  const struct simgpu_memory target = simgpu_memory_of(to.start);
  const struct simgpu_memory source = simgpu_memory_of(from.start);
  if (!to.start || !from.start || !fits(direction, &target, &source)) return SIMGPU_INVALID_VALUE;
  *operation = (struct simgpu_operation){
      .kind = SIMGPU_MEMCPY,
      .from = from,
      .to = to,
      .width = width,
      .height = height,
      .bytes = width * height,
      .copy_kind = copy_kind(&target, &source),
      .source_kind = (uint8_t)source.kind,
      .destination_kind = (uint8_t)target.kind,
      .source_device = source.device,
      .destination_device = target.device,
  };
  return SIMGPU_OK;
}

static int refuse_waiting(struct simgpu_stream *stream, bool wait) {
  return wait && graph_is_capturing(stream) ? capture_refuse(stream) : SIMGPU_OK;
}

SIMGPU_EXPORT int simgpu_copy(struct simgpu_rows to, struct simgpu_rows from, size_t width,
                              size_t height, enum simgpu_direction direction, bool wait,
                              struct simgpu_stream *stream) {
  struct simgpu_operation operation;
  if (width * height == 0) return SIMGPU_OK;
  int result = simgpu_copy_describe(to, from, width, height, direction, &operation);
  if (result == SIMGPU_OK) result = refuse_waiting(stream, wait);
  if (result != SIMGPU_OK) return result;
  operation.asynchronous = !wait;
  result = simgpu_enqueue(stream, &operation);
  const bool pageable = operation.source_kind == SIMGPU_MEMORY_PAGEABLE ||
                        operation.destination_kind == SIMGPU_MEMORY_PAGEABLE;
  const bool on_device =
      operation.copy_kind == SIMGPU_COPY_DTOD || operation.copy_kind == SIMGPU_COPY_PTOP;
  if (result != SIMGPU_OK || graph_is_capturing(stream) || (!pageable && (!wait || on_device))) {
    return result;
  }
  return stream_wait_quietly(stream);
}

SIMGPU_EXPORT int simgpu_fill_describe(struct simgpu_rows to, size_t width, size_t height,
                                       uint32_t value, uint8_t element_size,
                                       struct simgpu_operation *operation) {
  const struct simgpu_memory target = simgpu_memory_of(to.start);
  if (!to.start || target.kind == SIMGPU_MEMORY_PAGEABLE) return SIMGPU_INVALID_VALUE;
  *operation = (struct simgpu_operation){
      .kind = SIMGPU_MEMSET,
      .to = to,
      .width = width,
      .height = height,
      .bytes = width * height,
      .value = value,
      .element_size = element_size,
      .destination_kind = (uint8_t)target.kind,
  };
  return SIMGPU_OK;
}

SIMGPU_EXPORT int simgpu_fill(struct simgpu_rows to, size_t width, size_t height, uint32_t value,
                              uint8_t element_size, bool asynchronous,
                              struct simgpu_stream *stream) {
  struct simgpu_operation operation;
  if (width * height == 0) return SIMGPU_OK;
  const int result = simgpu_fill_describe(to, width, height, value, element_size, &operation);
  if (result != SIMGPU_OK) return result;
  operation.asynchronous = asynchronous;
  return simgpu_enqueue(stream, &operation);
}
