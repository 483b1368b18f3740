/* Events. */
#include "api.h"

static int elapsed(float *milliseconds, struct simgpu_event *start, struct simgpu_event *end) {
  int64_t ns = 0;
  const int result = simgpu_event_elapsed_ns(start, end, &ns);
  if (result == SIMGPU_OK) *milliseconds = (float)((double)ns / 1e6);
  return result;
}

API_1(cudaEventCreate, 133, struct simgpu_event **, event, simgpu_event_create(0, event))
API_2(cudaEventCreateWithFlags, 134, struct simgpu_event **, event, unsigned, flags,
      simgpu_event_create(flags, event))
STREAM_API_2(cudaEventRecord, 135, 242, struct simgpu_event *, event,
             simgpu_event_record(event, simgpu_stream_of(stream)))
API_1(cudaEventDestroy, 136, struct simgpu_event *, event, simgpu_event_destroy(event))
API_1(cudaEventSynchronize, 137, struct simgpu_event *, event, simgpu_event_synchronize(event))
API_1(cudaEventQuery, 138, struct simgpu_event *, event, simgpu_event_query(event))
API_3(cudaEventElapsedTime, 139, float *, milliseconds, struct simgpu_event *, start,
      struct simgpu_event *, end, elapsed(milliseconds, start, end))
#if CUDART_VERSION < 13000
API_3(cudaEventElapsedTime_v2, 486, float *, milliseconds, struct simgpu_event *, start,
      struct simgpu_event *, end, elapsed(milliseconds, start, end))
#endif

SIMGPU_EXPORT int cudaEventRecordWithFlags(struct simgpu_event *event, void *stream,
                                           unsigned flags) {
  PACK(struct simgpu_event *event; void *stream; unsigned flags;) = {event, stream, flags};
  BODY(cudaEventRecordWithFlags, 370, NULL, simgpu_event_record(event, simgpu_stream_of(stream)))
}
