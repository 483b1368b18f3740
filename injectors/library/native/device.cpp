#include "device.h"

#include "device_manners.h"
#include "device_records.h"
#include "device_session.h"
#include "host.h"

namespace gputap {

namespace {

constexpr int64_t kRetryNs = 200000000, kIdleNs = 1000000000;
constexpr int64_t kDrainNs = 2000000000, kYieldDrainNs = 50000000, kStuckNs = 5000000000;
constexpr uint32_t kFewestMs = 10, kMostMs = 10000;
constexpr uint64_t kZeroTimesToCare = 1000; /* in a row, as far as one tick can tell */

struct Device {
  uint32_t word;     /* changes with every wish; the thread sleeps on it */
  uint32_t wanted;
  uint32_t yielding; /* the target's own profiler goes first */
  uint32_t quitting;
  uint32_t alive;
  uint32_t busy; /* CUPTI is held, or about to be */
  uint32_t over; /* this window has had what it may have */
  uint32_t gave_up; /* somebody has waited for us in vain */

  // The device thread's: records without times, and all, at its last turn.
  uint64_t zeros, work, zero_streak;
};

Device g;

void wake() {
  __atomic_fetch_add(&g.word, 1u, __ATOMIC_RELEASE);
  sys::futex_wake(&g.word);
}

void set_state(Live *live, gputap_device_state state) {
  store_release(&live->header->device_state, state);
}

// Waits until CUPTI is free of us. False: not in time.
bool wait_until_free(int64_t timeout_ns) {
  int64_t deadline = sys::monotonic_ns() + timeout_ns;
  while (load_acquire(&g.busy)) {
    int64_t left = deadline - sys::monotonic_ns();
    if (left <= 0) return false;
    sys::futex_wait(&g.busy, 1, left);
  }
  return true;
}

// ------------------------------------------------------------------------------- the device thread

void release() {
  store_release(&g.busy, 0);
  sys::futex_wake(&g.busy);
}

bool should_hold() {
  return load_acquire(&g.wanted) && !load_acquire(&g.yielding) && !load_acquire(&g.quitting) && !g.over;
}

gputap_device_state state_without() {
  if (load(&g.yielding)) return GPUTAP_DEVICE_STATE_YIELDED;
  return g.over ? GPUTAP_DEVICE_STATE_BUDGET : GPUTAP_DEVICE_STATE_OFF;
}

void begin(Live *live) {
  // Whoever asks us to yield sees that we are busy, or we see the asking.
  store(&g.busy, 1);
  full_fence();
  if (!should_hold()) return release();
  // While it is tried again and again, what gputap reads is the reason.
  if (load(&live->header->device_state) == GPUTAP_DEVICE_STATE_OFF)
    set_state(live, GPUTAP_DEVICE_STATE_STARTING);
  device_manners_begin();
  g.zeros = load(&live->header->device_zero_times);
  g.work = device_work_records();
  g.zero_streak = 0;
  gputap_device_state state = device_session_begin(live);
  if (state != GPUTAP_DEVICE_STATE_ON) release();
  set_state(live, state);
}

void end(Live *live) {
  bool yields = load(&g.yielding);
  set_state(live, GPUTAP_DEVICE_STATE_STOPPING);
  device_session_end(live, yields ? kYieldDrainNs : kDrainNs);
  if (yields) {
    add(&live->header->device_yields, 1u);
    device_say(live, "let go for the profiler of the target itself");
  }
  release();
  set_state(live, state_without());
}

// CUPTI's device buffers run out in long captures of some versions; then all it has is zeros.
bool has_run_dry(const gputap_control_header *header) {
  uint64_t zeros = load(&header->device_zero_times), work = device_work_records();
  uint64_t new_zeros = zeros - g.zeros, new_work = work - g.work;
  g.zeros = zeros;
  g.work = work;
  if (new_work) g.zero_streak = 2 * new_zeros > new_work ? g.zero_streak + new_zeros : 0;
  return g.zero_streak >= kZeroTimesToCare;
}

bool is_over(Live *live) {
  const gputap_control_header *header = live->header;
  uint64_t records = load(&header->device_records);
  uint64_t limit = header->device_record_limit;
  if (limit && records >= limit) {
    device_say(live, "the number of records for one window is used up");
    return true;
  }
  if (!has_run_dry(header)) return false;
  device_say(live, "CUPTI delivers records without times");
  return true;
}

void turn(Live *live) {
  bool holds = load(&g.busy);
  if (!holds && should_hold()) {
    begin(live);
  } else if (!holds) {
    // Why it could not be had stays readable after the window.
    if (load(&g.yielding) && load(&g.wanted)) set_state(live, GPUTAP_DEVICE_STATE_YIELDED);
  } else if (should_hold()) {
    device_session_tick(live);
    if (is_over(live)) g.over = 1;
  }
  if (load(&g.busy) && !should_hold()) end(live);
  device_manners_look_after(load(&g.wanted) && !g.over);
}

int64_t sleep_ns(const Live *live) {
  if (!load(&g.busy)) return load(&g.wanted) ? kRetryNs : kIdleNs;
  uint32_t ms = live->header->device_flush_ms;
  if (ms < kFewestMs) ms = kFewestMs;
  return (int64_t)(ms < kMostMs ? ms : kMostMs) * 1000000;
}

void *device_main(void *name) {
  host_name_thread((const char *)name);
  Live *live = g_live;
  for (;;) {
    uint32_t seen = load_acquire(&g.word);
    turn(live);
    if (load_acquire(&g.quitting)) break;
    sys::futex_wait(&g.word, seen, sleep_ns(live));
  }
  device_manners_end();
  store_release(&g.alive, 0);
  sys::futex_wake(&g.alive);
  return nullptr;
}

}  // namespace

// ------------------------------------------------------------------------------ the control thread

static void start_over() {
  store(&g.wanted, 0);
  store(&g.yielding, 0);
  store(&g.quitting, 0);
  store(&g.gave_up, 0);
}

int32_t device_want(Live *live, bool on) {
  if (on && load(&g.quitting)) {
    if (load_acquire(&g.alive)) { /* an earlier session's thread has not come back from CUPTI */
      set_state(live, GPUTAP_DEVICE_STATE_STUCK);
      return 0;
    }
    start_over();
  }
  if (!on && !load(&g.alive)) return 0;
  if (on && !load(&g.busy)) set_state(live, GPUTAP_DEVICE_STATE_OFF);
  if (on) g.over = 0;
  store_release(&g.wanted, on);
  if (load(&g.alive)) {
    wake();
    return 0;
  }
  store(&g.alive, 1);
  if (host_start_thread(device_main, kDeviceThread)) return 0;
  store(&g.alive, 0);
  return -EAGAIN_;
}

void device_look_after(Live *live) {
  int64_t since = device_inside_since();
  if (!since || sys::monotonic_ns() - since < kStuckNs) return;
  uint32_t state = load(&live->header->device_state);
  if (state == GPUTAP_DEVICE_STATE_STUCK) return;
  // The device thread writes its own state when it comes back, whichever that is.
  change(&live->header->device_state, state, (uint32_t)GPUTAP_DEVICE_STATE_STUCK);
}

bool device_shut_down(Live *, int64_t timeout_ns) {
  if (!load_acquire(&g.alive)) return true;
  int64_t deadline = sys::monotonic_ns() + timeout_ns;
  store_release(&g.quitting, 1);
  wake();
  while (load_acquire(&g.alive)) {
    int64_t left = deadline - sys::monotonic_ns();
    if (left <= 0) return false;
    sys::futex_wait(&g.alive, 1, left);
  }
  start_over();
  return true;
}

// --------------------------------------------------------------------------- threads of the job

void device_yield(int64_t timeout_ns) {
  if (!g_live || !load(&g_live->session) || !load_acquire(&g.alive)) return;
  store(&g.yielding, 1);
  full_fence();
  if (!load_acquire(&g.busy)) {
    store(&g.gave_up, 0);
    return;
  }
  // A profiler makes a dozen such calls when it starts: it waits for a stuck CUPTI only once.
  if (load(&g.gave_up)) return;
  wake();
  if (!wait_until_free(timeout_ns)) store(&g.gave_up, 1);
}

void device_resume() {
  // Asked at every turn of the device thread, which must not wake itself.
  if (exchange(&g.yielding, 0u) && load_acquire(&g.alive)) wake();
}

void device_forget_after_fork() {
  g = {};
  device_manners_forget_after_fork();
}

}  // namespace gputap
