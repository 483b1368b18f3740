#include "fork.h"

#include "atomics.h"
#include "device.h"
#include "got.h"
#include "host.h"
#include "record_function.h"
#include "session.h"
#include "torch_lock.h"

namespace gputap {

namespace {

constexpr int64_t kPatienceNs = 50000000;
constexpr int64_t kSettleNs = 3000000;
constexpr int64_t kDevicePatienceNs = 300000000;

uint32_t in_torch;      /* calls into torch that are under way */
uint32_t in_loader;     /* threads of ours that hold the loader's list of libraries */
uint32_t forks_pending; /* threads between prepare and parent handler */
uint32_t ending;        /* exit handlers run */
int64_t left_torch_ns;  /* when the last call returned */
bool prepared;

// Bounded: a fork or an exit must never hang on us.
void wait_until_out() {
  int64_t deadline = sys::monotonic_ns() + kPatienceNs;
  while ((load_acquire(&in_torch) || load_acquire(&in_loader)) && sys::monotonic_ns() < deadline)
    sys::yield();
}

// After each of our calls every busy thread of the job takes torch's lock once, at its next operator,
// to read the list of callbacks. A child forked in that moment would find it locked for ever. Where
// the lock is not known (torch_lock.h) the fork waits until they are most likely through.
void wait_until_settled() {
  int64_t left_ns = load(&left_torch_ns) + kSettleNs - sys::monotonic_ns();
  if (left_ns > 0 && left_ns <= kSettleNs) sys::sleep_ns(left_ns);
}

void leave(uint32_t *inside) { __atomic_fetch_sub(inside, 1u, __ATOMIC_RELEASE); }

// Not while a fork is under way, nor is one begun before `leave`.
void enter(uint32_t *inside) {
  for (;;) {
    int64_t deadline = sys::monotonic_ns() + kPatienceNs;
    while (load_acquire(&forks_pending) && sys::monotonic_ns() < deadline) sys::sleep_ns(50000);
    add(inside, 1u);
    full_fence();
    if (!load(&forks_pending) || sys::monotonic_ns() >= deadline) break;
    leave(inside);
  }
}

void before_fork() {
  add(&forks_pending, 1u);
  full_fence();
  wait_until_out();
  if (!torch_lock_take()) wait_until_settled();
}

void after_fork_in_parent() {
  torch_lock_give();
  __atomic_fetch_sub(&forks_pending, 1u, __ATOMIC_RELEASE);
}

// Runs in the child, maybe between fork and exec of a process with a thousand threads: no lock, no
// allocation.
void after_fork_in_child() {
  got_forget_after_fork(); /* slots are written below */
  record_function_forget_after_fork();
  torch_lock_give();
  store(&forks_pending, 0);
  store(&in_torch, 0);
  store(&in_loader, 0);
  session_forget_after_fork();
}

void at_exit(void *) {
  store(&ending, 1);
  // CUDA is taken down by exit handlers too; before that the last records can still be had.
  device_yield(kDevicePatienceNs);
  full_fence();
  wait_until_out();
}

}  // namespace

ForkGuard::ForkGuard() {
  enter(&in_torch);
  allowed_ = !load(&ending);
}

ForkGuard::~ForkGuard() {
  store(&left_torch_ns, sys::monotonic_ns());
  leave(&in_torch);
}

LoaderGuard::LoaderGuard() { enter(&in_loader); }

LoaderGuard::~LoaderGuard() { leave(&in_loader); }

bool process_is_ending() { return load(&ending); }

void fork_prepare() {
  if (prepared) return;
  prepared = true;
  typedef int (*RegisterAtfork)(void (*)(), void (*)(), void (*)(), void *);
  typedef int (*PthreadAtfork)(void (*)(), void (*)(), void (*)());
  typedef int (*AtExit)(void (*)(void *), void *, void *);
  if (RegisterAtfork glibc = (RegisterAtfork)host_symbol("__register_atfork"))
    glibc(before_fork, after_fork_in_parent, after_fork_in_child, nullptr);
  else if (PthreadAtfork other = (PthreadAtfork)host_symbol("pthread_atfork"))
    other(before_fork, after_fork_in_parent, after_fork_in_child);
  // Registered late, so it runs early: before torch's own exit handlers.
  if (AtExit at_exit_of_host = (AtExit)host_symbol("__cxa_atexit"))
    at_exit_of_host(at_exit, nullptr, nullptr);
}

}  // namespace gputap
