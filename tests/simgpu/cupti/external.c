/* External correlation: ids of the client's own ranges, a stack per kind and thread. */
#include "tracer.h"

enum { EXTERNAL_KINDS = 9, DEEPEST = 64 };

static _Thread_local struct {
  uint64_t ids[DEEPEST];
  unsigned depth;
} stacks[EXTERNAL_KINDS];

void external_put(uint32_t correlation_id) {
  if (!activity_is_on(CUPTI_ABI_KIND_EXTERNAL_CORRELATION)) return;
  for (uint32_t kind = 1; kind < EXTERNAL_KINDS; kind++) {
    struct record record;
    if (stacks[kind].depth == 0) continue;
    record_begin(&record, CUPTI_ABI_KIND_EXTERNAL_CORRELATION);
    PUT(&record, EXTERNAL_CORRELATION_EXTERNAL_KIND, kind);
    PUT(&record, EXTERNAL_CORRELATION_EXTERNAL_ID, stacks[kind].ids[stacks[kind].depth - 1]);
    PUT(&record, EXTERNAL_CORRELATION_CORRELATION_ID, correlation_id);
    buffer_put(&record);
  }
}

SIMGPU_EXPORT int cuptiActivityPushExternalCorrelationId(uint32_t kind, uint64_t id) {
  const int refused = tracer_enter();
  if (refused) return refused;
  if (kind == 0 || kind >= EXTERNAL_KINDS || stacks[kind].depth == DEEPEST) {
    return CUPTI_ABI_RESULT_INVALID_PARAMETER;
  }
  stacks[kind].ids[stacks[kind].depth++] = id;
  return CUPTI_ABI_RESULT_SUCCESS;
}

SIMGPU_EXPORT int cuptiActivityPopExternalCorrelationId(uint32_t kind, uint64_t *last) {
  const int refused = tracer_enter();
  if (refused) return refused;
  if (kind == 0 || kind >= EXTERNAL_KINDS) return CUPTI_ABI_RESULT_INVALID_PARAMETER;
  if (stacks[kind].depth == 0) return RESULT_QUEUE_EMPTY;
  const uint64_t id = stacks[kind].ids[--stacks[kind].depth];
  if (last) *last = id;
  return CUPTI_ABI_RESULT_SUCCESS;
}
