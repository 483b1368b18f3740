/* Events: moments in the work of a stream. */
#include <stdatomic.h>
#include <stdlib.h>

#include "internal.h"

SIMGPU_EXPORT int simgpu_event_create(unsigned flags, struct simgpu_event **event) {
  static atomic_uint ids;
  if (!event) return SIMGPU_INVALID_VALUE;
  *event = calloc(1, sizeof **event);
  (*event)->id = ++ids;
  (*event)->flags = flags;
  (*event)->device = simgpu_device_current();
  return SIMGPU_OK;
}

static void forget(struct simgpu_event *event) {
  if (event->point.after) pending_unref(event->point.after);
  event->point = (struct point){0, NULL};
  capture_forget_event(event);
}

SIMGPU_EXPORT int simgpu_event_destroy(struct simgpu_event *event) {
  if (!event) return SIMGPU_INVALID_HANDLE;
  pthread_mutex_lock(&core_lock);
  forget(event);
  pthread_mutex_unlock(&core_lock);
  free(event);
  return SIMGPU_OK;
}

SIMGPU_EXPORT int simgpu_event_record(struct simgpu_event *event, struct simgpu_stream *stream) {
  if (!event || !stream) return SIMGPU_INVALID_HANDLE;
  pthread_mutex_lock(&core_lock);
  forget(event);
  event->recorded = true;
  int result = SIMGPU_OK;
  if (stream->capture) {
    result = capture_record_event(event, stream);
  } else {
    event->point = stream_mark(stream);
  }
  pthread_mutex_unlock(&core_lock);
  return result;
}

SIMGPU_EXPORT int simgpu_stream_wait_event(struct simgpu_stream *stream,
                                           struct simgpu_event *event) {
  if (!event || !stream) return SIMGPU_INVALID_HANDLE;
  const struct simgpu_sync sync =
      sync_begin(SYNC_STREAM_WAIT, stream->device, stream->id, event->id);
  pthread_mutex_lock(&core_lock);
  int result = SIMGPU_OK;
  if (event->capture || stream->capture) {
    result = capture_wait_event(stream, event);
  } else if (event->recorded) {
    stream_wait_point(stream, &event->point);
  }
  pthread_mutex_unlock(&core_lock);
  sync_end(&sync);
  return result;
}

/* An event of a capture never happens. */
enum { CAPTURED_EVENT = 907 };

SIMGPU_EXPORT int simgpu_event_query(struct simgpu_event *event) {
  if (!event) return SIMGPU_INVALID_HANDLE;
  pthread_mutex_lock(&core_lock);
  int result = SIMGPU_OK;
  if (event->capture) {
    result = CAPTURED_EVENT;
  } else if (event->recorded) {
    struct pending *after = event->point.after;
    const bool known = !after || after->done;
    const uint64_t end_ns = after ? after->operation.end_ns : event->point.ns;
    result = known && end_ns <= simgpu_now_ns() ? SIMGPU_OK : SIMGPU_NOT_READY;
  }
  pthread_mutex_unlock(&core_lock);
  return result;
}

SIMGPU_EXPORT int simgpu_event_synchronize(struct simgpu_event *event) {
  if (!event) return SIMGPU_INVALID_HANDLE;
  const struct simgpu_sync sync = sync_begin(SYNC_EVENT, event->device, NO_ID, event->id);
  pthread_mutex_lock(&core_lock);
  const bool captured = event->capture;
  struct point point = event->point;
  if (point.after) point.after->references++; /* the event may be recorded anew meanwhile */
  const uint64_t end_ns = point_settle(&point);
  pthread_mutex_unlock(&core_lock);
  if (captured) return CAPTURED_EVENT;
  simgpu_sleep_until(end_ns);
  sync_end(&sync);
  return SIMGPU_OK;
}

SIMGPU_EXPORT int simgpu_event_elapsed_ns(struct simgpu_event *start, struct simgpu_event *end,
                                          int64_t *ns) {
  if (!start || !end || !start->recorded || !end->recorded ||
      ((start->flags | end->flags) & SIMGPU_EVENT_DISABLE_TIMING)) {
    return SIMGPU_INVALID_HANDLE;
  }
  const int first = simgpu_event_query(start), second = simgpu_event_query(end);
  if (first || second) return first ? first : second;
  pthread_mutex_lock(&core_lock);
  const uint64_t from = point_settle(&start->point), to = point_settle(&end->point);
  pthread_mutex_unlock(&core_lock);
  *ns = (int64_t)(to - from);
  return SIMGPU_OK;
}
