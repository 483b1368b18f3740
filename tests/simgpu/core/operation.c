/*
 * Operations: when they start and end, and who waits for whom.
 *
 * Most are resolved as they are enqueued. One that comes behind an open operation, or behind an
 * event that does, becomes a `pending` with an edge from each of those; it is resolved by the
 * thread that resolves the last of them. Effects and observers always run without the lock.
 */
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "internal.h"

/* Ready operations of the thread that resolves: a queue, so that a chain of any length (an open
   operation that ends within `started`, and starts the next) takes no stack. */
struct queue {
  struct pending *first, **end;
  bool in_use;
};

static _Thread_local struct queue ready;
static _Thread_local uint32_t own_tid;

static uint32_t thread_id(void) {
  if (!own_tid) own_tid = (uint32_t)syscall(SYS_gettid);
  return own_tid;
}

static uint64_t later(uint64_t a, uint64_t b) { return a > b ? a : b; }

static void stop_in_mid_window(void) {
  static atomic_long left = -1;
  static atomic_bool asked;
  if (!atomic_exchange(&asked, true)) left = (long)simgpu_fault("exit_after", -1);
  if (left > 0 && --left == 0) exit(0);
}

/* Its times are known: move the data, tell everybody. */
void operation_perform(const struct simgpu_operation *operation) {
  effect_apply(operation);
  if (operation->kind == SIMGPU_MARKER || operation->kind == SIMGPU_FREE) return;
  truth_log_write(operation);
  const struct simgpu_observer *observer = simgpu_observer();
  if (observer) observer->operation(operation);
  stop_in_mid_window();
}

static void fill_in(struct simgpu_operation *operation, const struct simgpu_stream *stream) {
  static atomic_uint_fast64_t sequence;
  operation->device = (uint32_t)stream->device;
  operation->context = (uint32_t)stream->device + 1;
  operation->stream = stream->id;
  operation->priority = stream->priority;
  operation->correlation_id = call_correlation_id();
  operation->tid = thread_id();
  operation->sequence = ++sequence;
  operation->duration_ns = model_duration_ns(operation);
  operation->queued_ns = simgpu_now_ns();
}

static void set_start(struct simgpu_operation *operation, uint64_t ready_ns) {
  const bool instant = operation->kind == SIMGPU_MARKER || operation->kind == SIMGPU_FREE;
  operation->start_ns =
      later(ready_ns, operation->queued_ns + (instant ? 0 : LAUNCH_LATENCY_NS));
}

/* ---- edges --------------------------------------------------------------------------------- */

void pending_unref(struct pending *pending) {
  if (--pending->references) return;
  stream_unref(pending->stream);
  free(pending->dependents);
  free(pending);
}

static void depend(struct pending *pending, struct pending *on) {
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

static bool is_blocking(const struct simgpu_stream *stream) {
  return !stream->is_legacy && !(stream->flags & SIMGPU_STREAM_NON_BLOCKING);
}

/* The latest known end of what the stream's next operation follows. */
static uint64_t known_tail(const struct simgpu_stream *stream) {
  const struct device *device = &core_devices[stream->device];
  if (stream->is_legacy) return later(stream->tail_ns, device->blocking_tail_ns);
  return is_blocking(stream) ? later(stream->tail_ns, device->legacy->tail_ns) : stream->tail_ns;
}

static bool has_unknown_tail(const struct simgpu_stream *stream) {
  const struct device *device = &core_devices[stream->device];
  if (stream->last) return true;
  if (device->pending == 0) return false;
  if (is_blocking(stream)) return device->legacy->last;
  if (!stream->is_legacy) return false;
  for (const struct simgpu_stream *other = device->streams; other; other = other->next) {
    if (is_blocking(other) && other->last) return true;
  }
  return false;
}

static void depend_on_stream(struct pending *pending, struct simgpu_stream *stream) {
  const struct device *device = &core_devices[stream->device];
  pending->ready_ns = later(pending->ready_ns, known_tail(stream));
  depend(pending, stream->last);
  if (is_blocking(stream)) depend(pending, device->legacy->last);
  if (!stream->is_legacy) return;
  for (struct simgpu_stream *other = device->streams; other; other = other->next) {
    if (is_blocking(other)) depend(pending, other->last);
  }
}

/* ---- resolution ----------------------------------------------------------------------------- */

static void advance_tail(struct simgpu_stream *stream, const struct simgpu_operation *operation) {
  struct device *device = &core_devices[stream->device];
  stream->tail_ns = later(stream->tail_ns, operation->end_ns);
  if (is_blocking(stream)) {
    device->blocking_tail_ns = later(device->blocking_tail_ns, operation->end_ns);
  }
  device_account(device, operation);
}

static void push_ready(struct pending *pending) {
  pending->next = NULL;
  if (!ready.first) ready.end = &ready.first;
  *ready.end = pending;
  ready.end = &pending->next;
}

static void settle(struct pending *pending) {
  struct simgpu_stream *stream = pending->stream;
  pending->done = true;
  advance_tail(stream, &pending->operation);
  core_devices[stream->device].pending--;
  if (stream->last == pending) {
    stream->last = NULL;
    pending_unref(pending);
  }
  for (size_t i = 0; i < pending->dependent_count; i++) {
    struct pending *dependent = pending->dependents[i];
    dependent->ready_ns = later(dependent->ready_ns, pending->operation.end_ns);
    if (--dependent->unresolved == 0) {
      push_ready(dependent); /* with our reference */
    } else {
      pending_unref(dependent);
    }
  }
  pending->dependent_count = 0;
  pthread_cond_broadcast(&core_changed);
}

static void begin_open(struct pending *pending) {
  const struct simgpu_observer *observer = simgpu_observer();
  if (board_open_started) board_open_started(&pending->operation);
  pthread_mutex_unlock(&core_lock);
  if (observer) observer->started(&pending->operation);
  pending->started((struct simgpu_open *)pending, pending->state, pending->operation.start_ns);
  pthread_mutex_lock(&core_lock);
}

static void resolve(struct pending *pending) {
  struct simgpu_operation *operation = &pending->operation;
  if (pending->done) return; /* given up by its owner before its turn came */
  set_start(operation, pending->ready_ns);
  if (pending->started) {
    begin_open(pending);
    return;
  }
  operation->end_ns = operation->start_ns + operation->duration_ns;
  pthread_mutex_unlock(&core_lock);
  operation_perform(operation);
  pthread_mutex_lock(&core_lock);
  settle(pending);
}

/* Lock held. The outermost call of the thread does the work, inner ones only queue. */
static void resolve_ready(void) {
  if (ready.in_use) return;
  ready.in_use = true;
  while (ready.first) {
    struct pending *pending = ready.first;
    ready.first = pending->next;
    resolve(pending);
    pending_unref(pending);
  }
  ready.in_use = false;
}

/* ---- enqueuing ------------------------------------------------------------------------------- */

static struct pending *make_pending(struct simgpu_stream *stream,
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

/* Lock held, and given up. */
static void enqueue(struct simgpu_stream *stream, struct simgpu_operation *operation) {
  if (has_unknown_tail(stream)) {
    make_pending(stream, operation);
    pthread_mutex_unlock(&core_lock);
    return;
  }
  set_start(operation, known_tail(stream));
  operation->end_ns = operation->start_ns + operation->duration_ns;
  advance_tail(stream, operation);
  pthread_mutex_unlock(&core_lock);
  operation_perform(operation);
}

SIMGPU_EXPORT int simgpu_enqueue(struct simgpu_stream *stream,
                                 const struct simgpu_operation *operation) {
  struct simgpu_operation own = *operation;
  if (!stream) return SIMGPU_INVALID_HANDLE;
  if (own.kind == SIMGPU_KERNEL && !own.open) own.open = model_take_open(&own.payload);
  if (own.open && !stream->capture) {
    void *state = own.open->submit(own.payload);
    return simgpu_enqueue_open(stream, &own, own.open->start, state, NULL);
  }
  fill_in(&own, stream);
  if (stream->capture) return capture_enqueue(stream, &own);
  pthread_mutex_lock(&core_lock);
  enqueue(stream, &own);
  return SIMGPU_OK;
}

SIMGPU_EXPORT int simgpu_enqueue_open(struct simgpu_stream *stream,
                                      const struct simgpu_operation *operation,
                                      simgpu_started started, void *state,
                                      struct simgpu_open **open) {
  struct simgpu_operation own = *operation;
  if (!stream) return SIMGPU_INVALID_HANDLE;
  if (stream->capture) return SIMGPU_CAPTURE_UNSUPPORTED;
  fill_in(&own, stream);
  pthread_mutex_lock(&core_lock);
  struct pending *pending = make_pending(stream, &own);
  pending->started = started;
  pending->state = state;
  pending->references++; /* the owner's, given up by simgpu_complete */
  if (open) *open = (struct simgpu_open *)pending;
  if (pending->unresolved == 0) {
    pending->references++;
    push_ready(pending);
    resolve_ready();
  }
  pthread_mutex_unlock(&core_lock);
  return SIMGPU_OK;
}

SIMGPU_EXPORT void simgpu_complete(struct simgpu_open *open, uint64_t end_ns) {
  struct pending *pending = (struct pending *)open;
  pending->operation.end_ns = later(end_ns, pending->operation.start_ns);
  if (!pending->operation.start_ns) pending->operation.start_ns = end_ns;
  operation_perform(&pending->operation);
  pthread_mutex_lock(&core_lock);
  settle(pending);
  pending_unref(pending);
  resolve_ready();
  pthread_mutex_unlock(&core_lock);
}

/* ---- points ------------------------------------------------------------------------------------ */

static struct simgpu_operation marker(const struct simgpu_stream *stream) {
  struct simgpu_operation operation = {.kind = SIMGPU_MARKER};
  operation.device = (uint32_t)stream->device;
  operation.queued_ns = simgpu_now_ns();
  return operation;
}

struct point stream_mark(struct simgpu_stream *stream) {
  const struct simgpu_operation operation = marker(stream);
  if (!has_unknown_tail(stream)) {
    return (struct point){later(known_tail(stream), operation.queued_ns), NULL};
  }
  struct pending *pending = make_pending(stream, &operation);
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
  depend(make_pending(stream, &operation), after);
}

uint64_t point_settle(struct point *point) {
  struct pending *after = point->after;
  if (!after) return point->ns;
  while (!after->done) pthread_cond_wait(&core_changed, &core_lock);
  *point = (struct point){after->operation.end_ns, NULL};
  pending_unref(after);
  return point->ns;
}
