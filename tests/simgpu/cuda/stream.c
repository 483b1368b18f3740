/* Streams, events and graphs. */
#include "driver.h"

#define OF simgpu_stream_of(stream)

static int elapsed(float *milliseconds, struct simgpu_event *start, struct simgpu_event *end) {
  int64_t ns = 0;
  const int result = simgpu_event_elapsed_ns(start, end, &ns);
  if (result == SIMGPU_OK) *milliseconds = (float)((double)ns / 1e6);
  return result;
}

static int is_capturing(stream_handle stream, int *status) {
  *status = simgpu_capture_status(OF, NULL, NULL);
  return SIMGPU_OK;
}

DRIVER_2(cuStreamCreate, 124, stream_handle *, stream, unsigned, flags,
         simgpu_stream_create(flags, 0, stream))
DRIVER_3(cuStreamCreateWithPriority, 367, stream_handle *, stream, unsigned, flags, int, priority,
         simgpu_stream_create(flags, priority, stream))
DRIVER_1(cuStreamDestroy_v2, 326, stream_handle, stream, simgpu_stream_destroy(stream))
DRIVER_1(cuStreamSynchronize, 126, stream_handle, stream, simgpu_stream_synchronize(OF))
DRIVER_1(cuStreamQuery, 125, stream_handle, stream, simgpu_stream_query(OF))
DRIVER_3(cuStreamWaitEvent, 295, stream_handle, stream, struct simgpu_event *, event, unsigned,
         flags, ((void)flags, simgpu_stream_wait_event(OF, event)))
DRIVER_2(cuStreamGetPriority, 368, stream_handle, stream, int *, priority,
         (*priority = simgpu_stream_priority(OF), SIMGPU_OK))
DRIVER_2(cuStreamGetFlags, 369, stream_handle, stream, unsigned *, flags,
         (*flags = simgpu_stream_flags(OF), SIMGPU_OK))
DRIVER_2(cuStreamGetId, 693, stream_handle, stream, unsigned long long *, id,
         (*id = simgpu_stream_id(OF), SIMGPU_OK))
DRIVER_2(cuStreamGetCtx, 483, stream_handle, stream, void **, context,
         (*context = CONTEXT_OF(simgpu_stream_device(OF)), SIMGPU_OK))
DRIVER_2(cuStreamBeginCapture_v2, 539, stream_handle, stream, int, mode,
         ((void)mode, simgpu_capture_begin(OF)))
DRIVER_2(cuStreamEndCapture, 497, stream_handle, stream, struct graph **, graph,
         simgpu_capture_end(OF, graph))
DRIVER_2(cuStreamIsCapturing, 499, stream_handle, stream, int *, status,
         is_capturing(stream, status))

DRIVER_2(cuEventCreate, 118, struct simgpu_event **, event, unsigned, flags,
         simgpu_event_create(flags, event))
DRIVER_2(cuEventRecord, 119, struct simgpu_event *, event, stream_handle, stream,
         simgpu_event_record(event, OF))
DRIVER_1(cuEventQuery, 120, struct simgpu_event *, event, simgpu_event_query(event))
DRIVER_1(cuEventSynchronize, 121, struct simgpu_event *, event, simgpu_event_synchronize(event))
DRIVER_1(cuEventDestroy_v2, 325, struct simgpu_event *, event, simgpu_event_destroy(event))
DRIVER_3(cuEventElapsedTime, 123, float *, milliseconds, struct simgpu_event *, start,
         struct simgpu_event *, end, elapsed(milliseconds, start, end))
DRIVER_3(cuEventElapsedTime_v2, 780, float *, milliseconds, struct simgpu_event *, start,
         struct simgpu_event *, end, elapsed(milliseconds, start, end))

DRIVER_2(cuGraphCreate, 501, struct graph **, graph, unsigned, flags,
         ((void)flags, simgpu_graph_create(graph)))
DRIVER_1(cuGraphDestroy, 517, struct graph *, graph, simgpu_graph_destroy(graph))
DRIVER_3(cuGraphInstantiateWithFlags, 643, struct graph_exec **, exec, struct graph *, graph,
         unsigned long long, flags, ((void)flags, simgpu_graph_instantiate(graph, exec)))
DRIVER_1(cuGraphExecDestroy, 516, struct graph_exec *, exec, simgpu_graph_exec_destroy(exec))
DRIVER_2(cuGraphLaunch, 514, struct graph_exec *, exec, stream_handle, stream,
         simgpu_graph_launch(exec, OF))
