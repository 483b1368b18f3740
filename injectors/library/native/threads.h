// Per-thread state of the callbacks: contexts of open operators, caches, the ring being written.
#ifndef GPUTAP_THREADS_H
#define GPUTAP_THREADS_H

#include "clock.h"
#include "live.h"

namespace gputap {

struct ThreadState;

// What torch keeps between the start and the end of one RecordFunction. torch owns it by
// unique_ptr<ObserverContext> and "deletes" it on whatever thread the RecordFunction dies; that gives
// it back to its thread's pool. The table of virtual functions is written out by hand: a C++
// destructor would entitle the compiler to drop what it stores into the dying object.
struct Context {
  void (*const *vtable)(Context *);
  ThreadState *owner;
  Context *next;
  uint64_t start_ticks;
  int64_t seq;
  uint32_t window; /* that it was started in */
  uint32_t name_id;
  uint32_t stack_id;
  uint32_t shape_id;
  uint32_t fwd_tid;
  uint16_t depth;
  uint8_t kind;
  uint8_t flags;
  uint8_t open;  /* between start and end */
  uint8_t nests; /* counts for the depth of what starts inside it */
  uint8_t name_class;
};

struct NameEntry {
  const char *name;
  uint64_t first, second; /* the name's first 16 bytes, against reused addresses */
  uint32_t id;
};

struct CachedId {
  uint64_t key;
  uint32_t id;
  uint32_t extra;
};

// Contexts come in chunks. A job may hold on to record_function objects long after their end, so the
// pool grows; a thread that has all of them open at once loses events, and they are counted.
constexpr uint32_t kChunk = 256, kMostChunks = 16;

struct Chunk {
  Chunk *next;
  Context contexts[kChunk];
};

constexpr uint32_t kNameCache = 1024;
constexpr uint32_t kTextCache = 512;
constexpr uint32_t kStackCache = 4096;

struct Caches {
  NameEntry names[kNameCache];
  CachedId texts[kTextCache];
  CachedId stacks[kStackCache];
};

enum Taken : uint32_t { kNobodys, kBeingTaken, kTaken };

struct alignas(64) ThreadState {
  // The control thread's view of this thread.
  uint32_t in_callback; /* 1 while shared memory may be touched */
  uint32_t dead;        /* the thread is gone: nothing here is thread-local any more */
  uint32_t taken;       /* enum Taken */
  uint32_t pid, tid;
  uint32_t quiet_rounds; /* control thread's: how long it has been dead */

  // The thread's own.
  uintptr_t pointer; /* thread_pointer() */
  uint32_t window, session;
  uint32_t caches_session; /* that the caches are of */
  uint32_t opened, closed; /* nesting contexts of this window; their difference is the depth */
  uint32_t ring_patience;  /* events to go without a ring before trying to get one again */
  uint32_t mask;
  gputap_ring_header *ring;
  gputap_event_record *records;
  uint64_t head, cached_tail;
  Context *free;
  uint32_t chunks;
  uint64_t last_stack_hash;
  uint32_t last_stack_id;
  uint32_t gc_generation;
  uint64_t gc_start_ticks;

  // Counters that only grow; the control thread sums them.
  uint64_t op_events, armed_events, user_events;

  // Written by other threads.
  alignas(64) uint32_t closed_elsewhere;
  Context *returned;

  Chunk first_chunk;

  // Whole pages, given back to the kernel when a new session makes them stale.
  alignas(sys::kPage) Caches caches;
};

extern __thread ThreadState *t_state;

ThreadState *thread_create();
void thread_enter_window(ThreadState *thread, Live *live, uint32_t torch_tid);

// The calling thread's state; null if there can be none.
inline ThreadState *thread_state() {
  ThreadState *thread = t_state;
  return GPUTAP_LIKELY(thread != nullptr) ? thread : thread_create();
}

// A thread that set `in_callback` and then reads an open window is seen by `threads_drain`, because
// membarrier() of the control thread falls either before the store (then the window reads closed) or
// after it (then the control thread waits).
inline uint32_t callback_enter(ThreadState *thread, Live *live) {
  store(&thread->in_callback, 1);
  compiler_fence();
  return load_acquire(&live->window);
}

// The same for CUPTI's callbacks, which have their own time: records come after the window's end.
inline uint32_t callback_enter_device(ThreadState *thread, Live *live) {
  store(&thread->in_callback, 1);
  compiler_fence();
  return load_acquire(&live->device);
}

inline void callback_leave(ThreadState *thread) { store_release(&thread->in_callback, 0); }

inline bool thread_is_current(const ThreadState *thread) {
  return thread->pointer == thread_pointer() && !load(&thread->dead);
}

inline uint32_t thread_depth(const ThreadState *thread) {
  return thread->opened - thread->closed - load(&thread->closed_elsewhere);
}

// Those that other threads gave back, or a new chunk; null if there can be no more.
Context *context_find_more(ThreadState *thread);

inline Context *context_take(ThreadState *thread) {
  Context *context = thread->free;
  if (GPUTAP_UNLIKELY(!context)) {
    context = context_find_more(thread);
    if (!context) return nullptr;
  }
  thread->free = context->next;
  return context;
}

struct ThreadTotals {
  uint64_t op_events, armed_events, user_events;
};

ThreadTotals threads_totals();

// Waits until no callback is inside the shared memory. The window must be closed. False: somebody
// stayed in, so nothing may be unmapped.
bool threads_drain(int64_t timeout_ns);

// Contexts started in `window` whose end has not come.
uint64_t threads_open_contexts(uint32_t window);

// Marks rings of ended threads, frees them once read, frees the states. Control thread only.
void threads_recycle(Live *live);

// Registers the process for membarrier().
void threads_prepare();

}  // namespace gputap

#endif
