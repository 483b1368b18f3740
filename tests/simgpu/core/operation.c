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

static void stop_in_mid_window(void) {
  static atomic_long left = -1;
  static atomic_bool asked;
  if (!atomic_exchange(&asked, true)) left = (long)simgpu_fault("exit_after", -1);
  if (left > 0 && --left == 0) exit(0);
}

static bool is_silent(const struct simgpu_operation *operation) {
  return operation->kind == SIMGPU_MARKER || operation->kind == SIMGPU_FREE;
}

/* Its times are known: move the data, tell everybody. */
void operation_perform(const struct simgpu_operation *operation) {
  effect_apply(operation);
  if (is_silent(operation)) return;
  truth_log_write(operation);
  if (operation->observer) operation->observer->operation(operation);
  stop_in_mid_window();
}

/* Lock held: the times are being set. Performed, and arrived, without it. */
static void depart(struct simgpu_operation *operation) {
  const struct simgpu_observer *observer = is_silent(operation) ? NULL : simgpu_observer();
  operation->observer = observer;
  if (!observer) return;
  operation->admitted |= observer->admit();
  operation->ticket = observer->depart();
}

static void perform_and_arrive(const struct simgpu_operation *operation) {
  operation_perform(operation);
  if (operation->observer) operation->observer->arrive(operation->ticket);
}

/* Lock held. */
static void admit(struct simgpu_operation *operation) {
  const struct simgpu_observer *observer = simgpu_observer();
  operation->queued_ns = simgpu_now_ns();
  operation->admitted = observer ? observer->admit() : 0;
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
}

static void set_start(struct simgpu_operation *operation, uint64_t ready_ns) {
  const uint64_t latency_ns = is_silent(operation) ? 0 : LAUNCH_LATENCY_NS;
  operation->start_ns = later(ready_ns, operation->queued_ns + latency_ns);
}

/* ---- resolution --------------------------------------------------------------------------- */

static void advance_tail(struct simgpu_stream *stream, const struct simgpu_operation *operation) {
  struct device *device = &core_devices[stream->device];
  stream->tail_ns = later(stream->tail_ns, operation->end_ns);
  if (stream_is_blocking(stream)) {
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
  if (observer) pending->operation.admitted |= observer->admit();
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
  depart(operation);
  pthread_mutex_unlock(&core_lock);
  perform_and_arrive(operation);
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

/* ---- enqueuing ---------------------------------------------------------------------------- */

/* Lock held, and given up. */
static void enqueue(struct simgpu_stream *stream, struct simgpu_operation *operation) {
  admit(operation);
  if (stream_has_unknown_tail(stream)) {
    pending_new(stream, operation);
    pthread_mutex_unlock(&core_lock);
    return;
  }
  set_start(operation, stream_known_tail(stream));
  operation->end_ns = operation->start_ns + operation->duration_ns;
  advance_tail(stream, operation);
  depart(operation);
  pthread_mutex_unlock(&core_lock);
  perform_and_arrive(operation);
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
  admit(&own);
  struct pending *pending = pending_new(stream, &own);
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
  struct simgpu_operation *operation = &pending->operation;
  pthread_mutex_lock(&core_lock);
  operation->end_ns = later(end_ns, operation->start_ns);
  if (!operation->start_ns) operation->start_ns = end_ns;
  depart(operation);
  pthread_mutex_unlock(&core_lock);
  perform_and_arrive(operation);
  pthread_mutex_lock(&core_lock);
  settle(pending);
  pending_unref(pending);
  resolve_ready();
  pthread_mutex_unlock(&core_lock);
}
