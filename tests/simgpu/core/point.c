/* Points: moments in the work of a stream, for events and for whoever waits. */
#include "internal.h"

static struct simgpu_operation marker(const struct simgpu_stream *stream) {
  struct simgpu_operation operation = {.kind = SIMGPU_MARKER};
  operation.device = (uint32_t)stream->device;
  operation.queued_ns = simgpu_now_ns();
  return operation;
}

struct point stream_mark(struct simgpu_stream *stream) {
  const struct simgpu_operation operation = marker(stream);
  if (!stream_has_unknown_tail(stream)) {
    return (struct point){later(stream_known_tail(stream), operation.queued_ns), NULL};
  }
  struct pending *pending = pending_new(stream, &operation);
  pending->references++;
  return (struct point){0, pending};
}

void stream_wait_point(struct simgpu_stream *stream, const struct point *point) {
  struct pending *after = point->after;
  if (!after || after->done) {
    const uint64_t ns = after ? after->operation.end_ns : point->ns;
    stream->tail_ns = later(stream->tail_ns, ns);
    return;
  }
  const struct simgpu_operation operation = marker(stream);
  pending_depend(pending_new(stream, &operation), after);
}

uint64_t point_settle(struct point *point) {
  struct pending *after = point->after;
  if (!after) return point->ns;
  while (!after->done) pthread_cond_wait(&core_changed, &core_lock);
  *point = (struct point){after->operation.end_ns, NULL};
  pending_unref(after);
  return point->ns;
}
