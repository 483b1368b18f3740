/* Streams and their capture. */
#include "api.h"

static int create(void **stream, unsigned flags, int priority) {
  return simgpu_stream_create(flags, priority, (struct simgpu_stream **)stream);
}

static int priority_range(int *least, int *greatest) {
  if (least) *least = 0;
  if (greatest) *greatest = -5;
  return SIMGPU_OK;
}

static int capture_status(void *stream, int *status, uint64_t *id, struct graph **graph) {
  const int found = simgpu_capture_status(simgpu_stream_of(stream), id, graph);
  if (!status) return SIMGPU_INVALID_VALUE;
  *status = found;
  return SIMGPU_OK;
}

static int exchange_mode(int *mode) {
  static _Thread_local int current;
  const int before = current;
  current = *mode;
  *mode = before;
  return SIMGPU_OK;
}

API_1(cudaStreamCreate, 129, void **, stream, create(stream, 0, 0))
API_2(cudaStreamCreateWithFlags, 198, void **, stream, unsigned, flags, create(stream, flags, 0))
API_3(cudaStreamCreateWithPriority, 202, void **, stream, unsigned, flags, int, priority,
      create(stream, flags, priority))
API_1(cudaStreamDestroy, 201, struct simgpu_stream *, stream, simgpu_stream_destroy(stream))
STREAM_API_1(cudaStreamSynchronize, 131, 239, simgpu_stream_synchronize(simgpu_stream_of(stream)))
STREAM_API_1(cudaStreamQuery, 132, 240, simgpu_stream_query(simgpu_stream_of(stream)))
API_2(cudaDeviceGetStreamPriorityRange, 205, int *, least, int *, greatest,
      priority_range(least, greatest))
API_1(cudaThreadExchangeStreamCaptureMode, 327, int *, mode, exchange_mode(mode))

/* For calls whose first argument is the stream. */
#define FROM_STREAM_2(name, cbid, cbid_ptsz, A, a, x)                                         \
  SIMGPU_EXPORT int name(void *stream, A a) {                                                 \
    PACK(void *stream; A a;) = {stream, a};                                                   \
    BODY(name, cbid, NULL, x)                                                                 \
  }                                                                                           \
  SIMGPU_EXPORT int name##_ptsz(void *stream, A a) {                                          \
    PACK(void *stream; A a;) = {stream, a};                                                   \
    PTSZ BODY(name, cbid_ptsz, NULL, x)                                                       \
  }
#define OF simgpu_stream_of(stream)

FROM_STREAM_2(cudaStreamGetPriority, 203, 237, int *, priority,
              (*priority = simgpu_stream_priority(OF), SIMGPU_OK))
FROM_STREAM_2(cudaStreamGetFlags, 204, 238, unsigned *, flags,
              (*flags = simgpu_stream_flags(OF), SIMGPU_OK))
FROM_STREAM_2(cudaStreamGetId, 441, 442, unsigned long long *, id,
              (*id = simgpu_stream_id(OF), SIMGPU_OK))
FROM_STREAM_2(cudaStreamGetDevice, 480, 481, int *, device,
              (*device = simgpu_stream_device(OF), SIMGPU_OK))
FROM_STREAM_2(cudaStreamBeginCapture, 315, 316, int, mode, ((void)mode, simgpu_capture_begin(OF)))
FROM_STREAM_2(cudaStreamIsCapturing, 317, 318, int *, status,
              capture_status(stream, status, NULL, NULL))
FROM_STREAM_2(cudaStreamEndCapture, 319, 320, struct graph **, graph, simgpu_capture_end(OF, graph))

SIMGPU_EXPORT int cudaStreamWaitEvent(void *stream, struct simgpu_event *event, unsigned flags) {
  PACK(void *stream; struct simgpu_event *event; unsigned flags;) = {stream, event, flags};
  BODY(cudaStreamWaitEvent, 147, NULL, simgpu_stream_wait_event(OF, event))
}

SIMGPU_EXPORT int cudaStreamWaitEvent_ptsz(void *stream, struct simgpu_event *event,
                                           unsigned flags) {
  PACK(void *stream; struct simgpu_event *event; unsigned flags;) = {stream, event, flags};
  PTSZ BODY(cudaStreamWaitEvent, 247, NULL, simgpu_stream_wait_event(OF, event))
}

/* Edges and dependencies are not told. */
#if CUDART_VERSION >= 13000
SIMGPU_EXPORT int cudaStreamGetCaptureInfo(void *stream, int *status, unsigned long long *id,
                                           struct graph **graph, void *dependencies, void *edges,
                                           size_t *count) {
  PACK(void *stream; int *status; unsigned long long *id; struct graph **graph;
       void *dependencies, *edges; size_t *count;) = {
      stream, status, id, graph, dependencies, edges, count};
  if (count) *count = 0;
  BODY(cudaStreamGetCaptureInfo, 461, NULL, capture_status(stream, status, (uint64_t *)id, graph))
}
#else
SIMGPU_EXPORT int cudaStreamGetCaptureInfo_v2(void *stream, int *status, unsigned long long *id,
                                              struct graph **graph, void *dependencies,
                                              size_t *count) {
  PACK(void *stream; int *status; unsigned long long *id; struct graph **graph;
       void *dependencies; size_t *count;) = {stream, status, id, graph, dependencies, count};
  if (count) *count = 0;
  BODY(cudaStreamGetCaptureInfo_v2, 409, NULL,
       capture_status(stream, status, (uint64_t *)id, graph))
}
#endif
