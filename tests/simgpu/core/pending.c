/* Operations that wait, and for whom: an edge from each operation that has no end yet. */
#include <stdlib.h>

#include "internal.h"

void pending_unref(struct pending *pending) {
  if (--pending->references) return;
  stream_unref(pending->stream);
  free(pending->dependents);
  free(pending);
}

void pending_depend(struct pending *pending, struct pending *on) {
  if (!on) return;
  if (on->done) {
    pending->ready_ns = later(pending->ready_ns, on->operation.end_ns);
    return;
  }
  if (on->dependent_count == on->dependent_room) {
    on->dependent_room = on->dependent_room * 2 + 2;
    on->dependents = realloc(on->dependents, on->dependent_room * sizeof *on->dependents);
  }
  on->dependents[on->dependent_count++] = pending;
  pending->references++;
  pending->unresolved++;
}

bool stream_is_blocking(const struct simgpu_stream *stream) {
  return !stream->is_legacy && !(stream->flags & SIMGPU_STREAM_NON_BLOCKING);
}

/* The latest known end of what the stream's next operation follows. */
uint64_t stream_known_tail(const struct simgpu_stream *stream) {
  const struct device *device = &core_devices[stream->device];
  if (stream->is_legacy) return later(stream->tail_ns, device->blocking_tail_ns);
  if (!stream_is_blocking(stream)) return stream->tail_ns;
  return later(stream->tail_ns, device->legacy->tail_ns);
}

bool stream_has_unknown_tail(const struct simgpu_stream *stream) {
  const struct device *device = &core_devices[stream->device];
  if (stream->last) return true;
  if (device->pending == 0) return false;
  if (stream_is_blocking(stream)) return device->legacy->last;
  if (!stream->is_legacy) return false;
  for (const struct simgpu_stream *other = device->streams; other; other = other->next) {
    if (stream_is_blocking(other) && other->last) return true;
  }
  return false;
}

static void depend_on_stream(struct pending *pending, struct simgpu_stream *stream) {
  const struct device *device = &core_devices[stream->device];
  pending->ready_ns = later(pending->ready_ns, stream_known_tail(stream));
  pending_depend(pending, stream->last);
  if (stream_is_blocking(stream)) pending_depend(pending, device->legacy->last);
  if (!stream->is_legacy) return;
  for (struct simgpu_stream *other = device->streams; other; other = other->next) {
    if (stream_is_blocking(other)) pending_depend(pending, other->last);
  }
}

struct pending *pending_new(struct simgpu_stream *stream,
                            const struct simgpu_operation *operation) {
  struct pending *pending = calloc(1, sizeof *pending);
  pending->operation = *operation;
  pending->stream = stream;
  pending->references = 1; /* stream->last's */
  stream->references++;
  core_devices[stream->device].pending++;
  depend_on_stream(pending, stream);
  if (stream->last) pending_unref(stream->last);
  stream->last = pending;
  return pending;
}
