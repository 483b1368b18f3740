/* Streams: in-order queues of a device. */
#include <stdlib.h>

#include "internal.h"

enum {
  HANDLE_LEGACY = 1,
  HANDLE_PER_THREAD = 2,
  HIGHEST_PRIORITY = -5,
};

static _Thread_local struct simgpu_stream *per_thread[MOST_DEVICES];

struct simgpu_stream *stream_new(int device, unsigned flags, int priority, uint32_t id) {
  struct device *owner = &core_devices[device];
  struct simgpu_stream *stream = calloc(1, sizeof *stream);
  stream->id = id;
  stream->device = device;
  stream->flags = flags;
  stream->priority = priority;
  stream->references = 1;
  stream->next = owner->streams;
  stream->link = &owner->streams;
  if (stream->next) stream->next->link = &stream->next;
  owner->streams = stream;
  return stream;
}

void stream_unref(struct simgpu_stream *stream) {
  if (--stream->references) return;
  *stream->link = stream->next;
  if (stream->next) stream->next->link = stream->link;
  free(stream->capture_tail);
  free(stream);
}

static struct simgpu_stream *create(unsigned flags, int priority) {
  const int index = simgpu_device_current();
  pthread_mutex_lock(&core_lock);
  device_open_context(index);
  struct simgpu_stream *stream =
      stream_new(index, flags, priority, core_devices[index].next_stream_id++);
  pthread_mutex_unlock(&core_lock);
  const struct simgpu_observer *observer = simgpu_observer();
  if (observer) observer->stream((uint32_t)index + 1, stream->id, priority);
  return stream;
}

SIMGPU_EXPORT int simgpu_stream_create(unsigned flags, int priority,
                                       struct simgpu_stream **stream) {
  if (!stream || flags > SIMGPU_STREAM_NON_BLOCKING) return SIMGPU_INVALID_VALUE;
  if (priority > 0) priority = 0;
  if (priority < HIGHEST_PRIORITY) priority = HIGHEST_PRIORITY;
  *stream = create(flags, priority);
  return SIMGPU_OK;
}

SIMGPU_EXPORT int simgpu_stream_destroy(struct simgpu_stream *stream) {
  if (!stream || stream->is_legacy) return SIMGPU_INVALID_HANDLE;
  pthread_mutex_lock(&core_lock);
  stream->destroyed = true;
  stream_unref(stream);
  pthread_mutex_unlock(&core_lock);
  return SIMGPU_OK;
}

static struct simgpu_stream *default_stream(int device) {
  if (!core_devices[device].has_context) {
    pthread_mutex_lock(&core_lock);
    device_open_context(device);
    pthread_mutex_unlock(&core_lock);
  }
  return core_devices[device].legacy;
}

SIMGPU_EXPORT struct simgpu_stream *simgpu_stream_of(void *handle) {
  const int device = simgpu_device_current();
  if ((uintptr_t)handle <= HANDLE_LEGACY) return default_stream(device);
  if ((uintptr_t)handle != HANDLE_PER_THREAD) return handle;
  if (!per_thread[device]) per_thread[device] = create(0, 0);
  return per_thread[device];
}

SIMGPU_EXPORT uint32_t simgpu_stream_id(const struct simgpu_stream *stream) { return stream->id; }

SIMGPU_EXPORT int simgpu_stream_device(const struct simgpu_stream *stream) {
  return stream->device;
}

SIMGPU_EXPORT int simgpu_stream_priority(const struct simgpu_stream *stream) {
  return stream->priority;
}

SIMGPU_EXPORT unsigned simgpu_stream_flags(const struct simgpu_stream *stream) {
  return stream->flags;
}

static uint64_t settle(struct simgpu_stream *stream) {
  pthread_mutex_lock(&core_lock);
  struct point point = stream_mark(stream);
  const uint64_t end_ns = point_settle(&point);
  pthread_mutex_unlock(&core_lock);
  return end_ns;
}

SIMGPU_EXPORT void simgpu_stream_settle(void *handle) {
  struct simgpu_stream *stream = simgpu_stream_of(handle);
  if (!graph_is_capturing(stream)) settle(stream);
}

int stream_wait_quietly(struct simgpu_stream *stream) {
  simgpu_sleep_until(settle(stream));
  return SIMGPU_OK;
}

SIMGPU_EXPORT int simgpu_stream_synchronize(struct simgpu_stream *stream) {
  if (!stream) return SIMGPU_INVALID_HANDLE;
  if (graph_is_capturing(stream)) return capture_refuse(stream);
  const struct simgpu_sync sync = sync_begin(SYNC_STREAM, stream->device, stream->id, NO_ID);
  stream_wait_quietly(stream);
  sync_end(&sync);
  return SIMGPU_OK;
}

SIMGPU_EXPORT int simgpu_stream_query(struct simgpu_stream *stream) {
  if (graph_is_capturing(stream)) return capture_refuse(stream);
  pthread_mutex_lock(&core_lock);
  struct point point = stream_mark(stream);
  const bool busy = point.after || point.ns > simgpu_now_ns();
  if (point.after) pending_unref(point.after);
  pthread_mutex_unlock(&core_lock);
  return busy ? SIMGPU_NOT_READY : SIMGPU_OK;
}

SIMGPU_EXPORT int simgpu_device_synchronize(int index) {
  if (index < 0 || index >= MOST_DEVICES) return SIMGPU_INVALID_DEVICE;
  struct device *device = &core_devices[index];
  const struct simgpu_sync sync = sync_begin(SYNC_CONTEXT, index, NO_ID, NO_ID);
  pthread_mutex_lock(&core_lock);
  device_open_context(index);
  while (device->pending) pthread_cond_wait(&core_changed, &core_lock);
  const uint64_t end_ns = device->tail_ns;
  pthread_mutex_unlock(&core_lock);
  simgpu_sleep_until(end_ns);
  sync_end(&sync);
  return SIMGPU_OK;
}

SIMGPU_EXPORT void simgpu_streams_visit(int device, void (*visit)(uint32_t context, uint32_t id,
                                                                  int priority)) {
  struct seen {
    uint32_t id;
    int priority;
  };
  size_t count = 0;
  pthread_mutex_lock(&core_lock);
  for (struct simgpu_stream *it = core_devices[device].streams; it; it = it->next) count++;
  struct seen *seen = calloc(count + 1, sizeof *seen);
  size_t i = 0;
  for (struct simgpu_stream *it = core_devices[device].streams; it; it = it->next) {
    if (!it->destroyed) seen[i++] = (struct seen){it->id, it->priority};
  }
  pthread_mutex_unlock(&core_lock);
  while (i-- > 0) visit((uint32_t)device + 1, seen[i].id, seen[i].priority); /* oldest first */
  free(seen);
}
