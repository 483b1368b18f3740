/* Flushing, stepping through a buffer, and the end of it all. */
#include <string.h>

#include "tracer.h"

enum { FLAG_FORCED = 1 };

SIMGPU_EXPORT int cuptiActivityFlushAll(uint32_t flags) {
  const int refused = tracer_enter();
  if (refused) return refused;
  if (!buffer_has_client()) return RESULT_INVALID_OPERATION;
  pending_flush(flags & FLAG_FORCED);
  buffer_flush();
  return CUPTI_ABI_RESULT_SUCCESS;
}

SIMGPU_EXPORT int cuptiActivityFlushPeriod(uint32_t milliseconds) {
  const int refused = tracer_enter();
  if (refused) return refused;
  buffer_take_full_ones_every(milliseconds);
  return CUPTI_ABI_RESULT_SUCCESS;
}

/* Works without a device, and on buffers from elsewhere. */
SIMGPU_EXPORT int cuptiActivityGetNextRecord(uint8_t *buffer, size_t valid, uint8_t **record) {
  uint32_t kind;
  if (!buffer || !record) return CUPTI_ABI_RESULT_INVALID_PARAMETER;
  uint8_t *next = buffer;
  if (*record) {
    memcpy(&kind, *record, sizeof kind);
    next = *record + cupti_abi_record_size(kind, tracer_version());
  }
  if (next >= buffer + valid) return CUPTI_ABI_RESULT_MAX_LIMIT_REACHED;
  memcpy(&kind, next, sizeof kind);
  if (cupti_abi_record_size(kind, tracer_version()) == 0) return RESULT_INVALID_KIND;
  *record = next;
  return CUPTI_ABI_RESULT_SUCCESS;
}

SIMGPU_EXPORT int cuptiFinalize(void) {
  const int refused = tracer_enter();
  if (refused) return refused;
  observer_detach();
  pending_flush(true);
  buffer_reset();
  activity_reset();
  activity_reset_clock();
  callback_reset();
  return CUPTI_ABI_RESULT_SUCCESS;
}
