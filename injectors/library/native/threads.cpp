#include "threads.h"

#include "ring.h"

namespace gputap {

__thread ThreadState *t_state;

namespace {

constexpr uint32_t kMostThreads = 8192;
constexpr uint32_t kRoundsBeforeReuse = 2;
constexpr uint32_t kLooksPerRound = 256; /* a look is a system call */
constexpr int64_t kStoreBufferNs = 20000000;

ThreadState *all[kMostThreads];
uint32_t all_count; /* may pass kMostThreads when threads race for the last place */
bool has_membarrier;

uint32_t known() {
  uint32_t count = load_acquire(&all_count);
  return count < kMostThreads ? count : kMostThreads;
}

void give_back(Context *context) {
  ThreadState *owner = context->owner;
  context->open = 0;
  if (GPUTAP_LIKELY(thread_is_current(owner))) {
    context->next = owner->free;
    owner->free = context;
    return;
  }
  Context *top = load(&owner->returned);
  do context->next = top;
  while (!__atomic_compare_exchange_n(&owner->returned, &top, context, true, __ATOMIC_RELEASE,
                                      __ATOMIC_RELAXED));
}

void destroy(Context *) {}

// Itanium C++ ABI: offset to top, type information, complete destructor, deleting destructor. An
// object points at the third.
struct {
  intptr_t offset_to_top;
  const void *type;
  void (*destructors[2])(Context *);
} const context_vtable = {0, nullptr, {destroy, give_back}};

void add_chunk(ThreadState *thread, Chunk *chunk) {
  for (uint32_t i = kChunk; i-- > 0;) {
    Context *context = &chunk->contexts[i];
    context->vtable = context_vtable.destructors;
    context->owner = thread;
    context->next = thread->free;
    thread->free = context;
  }
  thread->chunks++;
}

ThreadState *take_freed() {
  for (uint32_t i = 0; i < known(); i++) {
    ThreadState *thread = load_acquire(&all[i]);
    if (thread && load(&thread->taken) == kNobodys && change(&thread->taken, kNobodys, kBeingTaken))
      return thread;
  }
  return nullptr;
}

ThreadState *make_new() {
  if (load(&all_count) >= kMostThreads) return nullptr;
  ThreadState *thread = (ThreadState *)sys::map_private(sizeof(ThreadState));
  if (!thread) return nullptr;
  add_chunk(thread, &thread->first_chunk);
  thread->taken = kBeingTaken;
  uint32_t place = add(&all_count, 1u);
  if (place >= kMostThreads) {
    sys::unmap(thread, sizeof(ThreadState));
    return nullptr;
  }
  store_release(&all[place], thread);
  return thread;
}

uint32_t free_contexts(ThreadState *thread) {
  Context *back = exchange(&thread->returned, nullptr);
  while (back) {
    Context *next = back->next;
    back->next = thread->free;
    thread->free = back;
    back = next;
  }
  uint32_t count = 0;
  for (Context *c = thread->free; c && count <= kChunk * kMostChunks; c = c->next) count++;
  return count;
}

// Makes what every thread has stored so far visible, and orders what it loads from here on.
void fence_all_threads() {
  if (has_membarrier && sys::call(sys::kMembarrier, sys::kMembarrierPrivate, 0) == 0) return;
  // An old kernel, or a filter. No store buffer holds a store for so long.
  full_fence();
  sys::sleep_ns(kStoreBufferNs);
}

// Fresh pages read as zero. Clearing by hand would touch 100 KB for every thread of the job.
void forget_caches(ThreadState *thread, uint32_t session) {
  uint32_t filled_in = thread->caches_session;
  thread->caches_session = session;
  thread->last_stack_hash = 0;
  if (!filled_in || filled_in == session) return;
  if (sys::failed(sys::call(sys::kMadvise, (long)&thread->caches, sizeof(Caches),
                            sys::kMadvDontNeed)))
    __builtin_memset(&thread->caches, 0, sizeof(Caches));
}

void end_ring(ThreadState *thread, Live *live) {
  if (!thread->ring || thread->session != live->session || !live->header) return;
  store_release(&thread->ring->state, GPUTAP_RING_STATE_THREAD_ENDED);
  thread->ring = nullptr;
}

void look_after(ThreadState *thread, Live *live) {
  uint32_t pid = (uint32_t)sys::getpid();
  // A state that the parent of this forked child left is not ours to judge: the thread that forked
  // still has it, under its old number.
  if (load_acquire(&thread->taken) != kTaken || thread->pid != pid) return;
  if (!thread->dead) {
    if (sys::thread_is_alive((int)pid, (int)thread->tid)) return;
    store_release(&thread->dead, 1);
    end_ring(thread, live);
    return;
  }
  // Two looks of the control thread: whoever took the thread for alive is done by then.
  if (++thread->quiet_rounds < kRoundsBeforeReuse) return;
  if (free_contexts(thread) == thread->chunks * kChunk) store_release(&thread->taken, kNobodys);
}

}  // namespace

ThreadState *thread_create() {
  ThreadState *thread = take_freed();
  if (!thread) thread = make_new();
  if (!thread) return nullptr;
  thread->pointer = thread_pointer();
  thread->pid = (uint32_t)sys::getpid();
  thread->tid = (uint32_t)sys::gettid();
  thread->window = 0;
  thread->session = 0;
  thread->quiet_rounds = 0;
  store(&thread->dead, 0);
  store_release(&thread->taken, kTaken);
  t_state = thread;
  return thread;
}

void thread_enter_window(ThreadState *thread, Live *live, uint32_t torch_tid) {
  thread->window = live->window;
  thread->opened = thread->closed = 0;
  store(&thread->closed_elsewhere, 0);
  thread->gc_start_ticks = 0;
  if (thread->session == live->session) return;
  // Also the way of a forked child into a session of its own: its ids are new.
  thread->pid = (uint32_t)sys::getpid();
  thread->tid = (uint32_t)sys::gettid();
  forget_caches(thread, live->session);
  thread->session = live->session;
  ring_claim(thread, live, torch_tid);
}

Context *context_find_more(ThreadState *thread) {
  thread->free = exchange(&thread->returned, nullptr);
  if (thread->free || thread->chunks == kMostChunks) return thread->free;
  Chunk *chunk = (Chunk *)sys::map_private(sizeof(Chunk));
  if (!chunk) return nullptr;
  add_chunk(thread, chunk);
  chunk->next = thread->first_chunk.next;
  store_release(&thread->first_chunk.next, chunk);
  return thread->free;
}

ThreadTotals threads_totals() {
  ThreadTotals totals = {0, 0, 0};
  for (uint32_t i = 0; i < known(); i++) {
    ThreadState *thread = load_acquire(&all[i]);
    if (!thread) continue;
    totals.op_events += load(&thread->op_events);
    totals.armed_events += load(&thread->armed_events);
    totals.user_events += load(&thread->user_events);
  }
  return totals;
}

bool threads_drain(int64_t timeout_ns) {
  fence_all_threads();
  int64_t deadline = sys::monotonic_ns() + timeout_ns;
  for (uint32_t i = 0; i < known(); i++) {
    ThreadState *thread = load_acquire(&all[i]);
    while (thread && load_acquire(&thread->in_callback)) {
      if (sys::monotonic_ns() > deadline) return false;
      // A state left behind by a thread that died, or by the parent of this forked child, inside a
      // callback.
      if (thread->pid != (uint32_t)sys::getpid() ||
          !sys::thread_is_alive((int)thread->pid, (int)thread->tid))
        break;
      sys::sleep_ns(20000);
    }
  }
  return true;
}

uint64_t threads_open_contexts(uint32_t window) {
  uint64_t open = 0;
  for (uint32_t i = 0; i < known(); i++) {
    ThreadState *thread = load_acquire(&all[i]);
    if (!thread || thread->window != window) continue;
    for (Chunk *chunk = &thread->first_chunk; chunk; chunk = load_acquire(&chunk->next))
      for (const Context &context : chunk->contexts)
        open += load(&context.open) && context.window == window;
  }
  return open;
}

void threads_recycle(Live *live) {
  static uint32_t next_place;
  uint32_t count = known();
  for (uint32_t i = 0; i < count && i < kLooksPerRound; i++) {
    next_place = next_place + 1 < count ? next_place + 1 : 0;
    if (ThreadState *thread = load_acquire(&all[next_place])) look_after(thread, live);
  }
}

void threads_prepare() {
  has_membarrier = sys::call(sys::kMembarrier, sys::kMembarrierRegisterPrivate, 0) == 0;
}

}  // namespace gputap
