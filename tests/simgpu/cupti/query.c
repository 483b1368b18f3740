/* Ids of CUDA's objects, and texts. */
#include <stdlib.h>
#include <string.h>

#include "core/graph.h"
#include "tracer.h"

/* A CUcontext of the simulated driver is the number of its device, plus one. */
static bool is_context(const void *context) {
  return context && (uintptr_t)context <= (uintptr_t)simgpu_device_count();
}

SIMGPU_EXPORT int cuptiGetContextId(void *context, uint32_t *id) {
  const int refused = tracer_enter();
  if (refused) return refused;
  if (!id) return CUPTI_ABI_RESULT_INVALID_PARAMETER;
  if (!is_context(context)) return RESULT_INVALID_CONTEXT;
  *id = (uint32_t)(uintptr_t)context;
  return CUPTI_ABI_RESULT_SUCCESS;
}

SIMGPU_EXPORT int cuptiGetDeviceId(void *context, uint32_t *id) {
  const int refused = tracer_enter();
  if (refused) return refused;
  if (!id) return CUPTI_ABI_RESULT_INVALID_PARAMETER;
  if (context && !is_context(context)) return RESULT_INVALID_CONTEXT;
  *id = context ? (uint32_t)(uintptr_t)context - 1 : (uint32_t)simgpu_device_current();
  return CUPTI_ABI_RESULT_SUCCESS;
}

SIMGPU_EXPORT int cuptiGetStreamIdEx(void *context, void *stream, uint8_t per_thread,
                                     uint32_t *id) {
  const int refused = tracer_enter();
  if (refused) return refused;
  if (!id) return CUPTI_ABI_RESULT_INVALID_PARAMETER;
  if (context && !is_context(context)) return RESULT_INVALID_CONTEXT;
  void *handle = per_thread && !stream ? (void *)2 : stream;
  *id = simgpu_stream_id(simgpu_stream_of(handle));
  return CUPTI_ABI_RESULT_SUCCESS;
}

SIMGPU_EXPORT int cuptiGetGraphId(const struct graph *graph, uint32_t *id) {
  if (!graph || !id) return CUPTI_ABI_RESULT_INVALID_PARAMETER;
  *id = simgpu_graph_id(graph);
  return CUPTI_ABI_RESULT_SUCCESS;
}

#if CUPTI_SONAME_VERSION >= 1200
SIMGPU_EXPORT int cuptiGetGraphExecId(const struct graph_exec *exec, uint32_t *id) {
  if (!exec || !id) return CUPTI_ABI_RESULT_INVALID_PARAMETER;
  *id = simgpu_graph_exec_id(exec);
  return CUPTI_ABI_RESULT_SUCCESS;
}
#endif

struct text {
  int result;
  const char *name, *message;
};

static const struct text TEXTS[] = {
    {0, "CUPTI_SUCCESS", "No error"},
    {1, "CUPTI_ERROR_INVALID_PARAMETER", "Invalid parameter"},
    {7, "CUPTI_ERROR_INVALID_OPERATION", "Invalid operation"},
    {12, "CUPTI_ERROR_MAX_LIMIT_REACHED", "No more records"},
    {15, "CUPTI_ERROR_NOT_INITIALIZED", "CUPTI is not initialized"},
    {18, "CUPTI_ERROR_QUEUE_EMPTY", "The queue is empty"},
    {21, "CUPTI_ERROR_INVALID_KIND", "Invalid activity kind"},
    {39, "CUPTI_ERROR_MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED", "There is a subscriber already"},
    {999, "CUPTI_ERROR_UNKNOWN", "Unknown error"},
};

static const struct text *find_text(int result) {
  for (size_t i = 0; i < sizeof TEXTS / sizeof *TEXTS; i++) {
    if (TEXTS[i].result == result) return &TEXTS[i];
  }
  return NULL;
}

SIMGPU_EXPORT int cuptiGetResultString(int result, const char **text) {
  const struct text *found = find_text(result);
  if (!text || !found) return CUPTI_ABI_RESULT_INVALID_PARAMETER;
  *text = found->name;
  return CUPTI_ABI_RESULT_SUCCESS;
}

#if CUPTI_SONAME_VERSION >= 1200
SIMGPU_EXPORT int cuptiGetErrorMessage(int result, const char **text) {
  const struct text *found = find_text(result);
  if (!text || !found) return CUPTI_ABI_RESULT_INVALID_PARAMETER;
  *text = found->message;
  return CUPTI_ABI_RESULT_SUCCESS;
}
#endif
