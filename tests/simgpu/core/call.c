/* Calls of the API: correlation ids, and who watches. */
#include <stdatomic.h>

#include "internal.h"

enum { CALL_NS = 1000 }; /* of the virtual clock, at each end of a call */

static const struct simgpu_observer *_Atomic observer;
static atomic_uint last_correlation_id;
static _Thread_local struct simgpu_call *current;

SIMGPU_EXPORT void simgpu_observe(const struct simgpu_observer *now) { observer = now; }

SIMGPU_EXPORT void simgpu_between_operations(void (*change)(void *), void *argument) {
  pthread_mutex_lock(&core_lock);
  change(argument);
  pthread_mutex_unlock(&core_lock);
}

SIMGPU_EXPORT const struct simgpu_observer *simgpu_observer(void) {
  return atomic_load_explicit(&observer, memory_order_acquire);
}

void observer_forget(void) {
  observer = NULL;
  current = NULL;
}

uint32_t call_correlation_id(void) {
  return current ? current->correlation_id : ++last_correlation_id;
}

SIMGPU_EXPORT void simgpu_call_begin(struct simgpu_call *call) {
  const struct simgpu_observer *watching = simgpu_observer();
  call->correlation_id = current ? current->correlation_id : ++last_correlation_id;
  call->outer = current;
  call->observed = watching;
  call->correlation_data = 0;
  current = call;
  clock_advance(CALL_NS);
  if (!watching) return;
  call->start_ns = simgpu_now_ns();
  watching->enter(call);
}

SIMGPU_EXPORT void simgpu_call_end(struct simgpu_call *call, int result) {
  current = call->outer;
  clock_advance(CALL_NS);
  const struct simgpu_observer *watching = call->observed ? simgpu_observer() : NULL;
  if (watching) watching->leave(call, result, simgpu_now_ns());
}

struct simgpu_sync sync_begin(uint32_t type, int device, uint32_t stream, uint32_t event) {
  struct simgpu_sync sync = {.type = type, .context = (uint32_t)device + 1};
  sync.stream = stream;
  sync.event_id = event;
  sync.start_ns = simgpu_now_ns();
  return sync;
}

void sync_end(const struct simgpu_sync *sync) {
  const struct simgpu_observer *watching = simgpu_observer();
  if (!watching) return;
  struct simgpu_sync done = *sync;
  done.correlation_id = call_correlation_id();
  done.end_ns = simgpu_now_ns();
  watching->sync(&done);
}
