#include "bursts.h"

#include "python_samples.h"
#include "record_function.h"

namespace gputap {

namespace {

constexpr int64_t kTickNs = 2000000, kIdleTickNs = 20000000;
constexpr int64_t kNoStepsNs = 300000000;  /* no boundary for so long: slices of time instead */
constexpr int64_t kFirstSliceNs = 50000000, kLongestSliceNs = 500000000;
constexpr int64_t kBudgetSpanNs = 10000000000; /* the bucket holds a quarter of this time's budget */
constexpr int64_t kRateSpanNs = 100000000;
constexpr int64_t kArmAheadNs = 5000000, kOverdueNs = 50000000;

// Prices where gputap gives none: what one event costs a small-operator loop on CPU.
constexpr uint32_t kEventCostNs = 220, kArmedCostNs = 160, kUserCostNs = 800;

enum State : uint32_t {
  kOff,       /* the operator callback is disabled */
  kArmed,     /* enabled, waiting for a boundary */
  kRecording, /* until a boundary, or the end of the slice */
  kDone,      /* recording has ended; the control thread disables the callback */
};

// Written by the control thread while the window is closed, then by whom the comment says.
struct Controller {
  uint32_t state;
  uint32_t mode;
  double budget;        /* share of wall time; 0.01 = 1 % */
  int64_t capacity_ns;  /* of the bucket */
  int64_t allowance_ns; /* what may still accrue in this window */
  uint32_t event_cost_ns, armed_cost_ns, user_cost_ns;
  uint32_t least_steps;

  // Control thread; the boundary thread reads.
  int64_t tokens_ns;
  int64_t spent_at_tick_ns;

  // Boundary thread; the control thread reads.
  uint32_t step_tid;
  uint32_t kind; /* enum Boundary */
  uint64_t boundary_ticks; /* when the last one was */
  uint64_t period_ticks;
  uint32_t burst_steps;
  int64_t step_cost_ns;

  // Who moved the state to kRecording.
  uint64_t burst_ticks;
  int64_t burst_spent_ns;
  uint32_t slice; /* this burst ends by time */

  // Control thread only.
  ThreadTotals base;
  uint64_t begin_ticks, tick_ticks;
  uint64_t armed_ticks;
  uint64_t slice_end_ticks;
  int64_t slice_ns;
  double slice_cost; /* share of time that recording costs, from the last slices */
  uint64_t rate_ticks;
  uint64_t rate_user_events;
  bool user_gated; /* user scopes alone would eat the budget: they are seen in bursts only */
  uint64_t user_on_ticks;
};

Controller g;

ThreadTotals since_base() {
  ThreadTotals now = threads_totals();
  return {now.op_events - g.base.op_events, now.armed_events - g.base.armed_events,
          now.user_events - g.base.user_events};
}

int64_t cost_ns(const ThreadTotals &totals) {
  return (int64_t)(totals.op_events * g.event_cost_ns + totals.armed_events * g.armed_cost_ns +
                   totals.user_events * g.user_cost_ns);
}

int64_t spent_ns() { return cost_ns(since_base()); }

int64_t tokens_left_ns(int64_t spent) { return g.tokens_ns - (spent - g.spent_at_tick_ns); }

// How long the boundaries may stay away before there are no steps.
int64_t patience_ns() {
  int64_t period_ns = ticks_to_ns(load(&g.period_ticks));
  return period_ns * 4 > kNoStepsNs ? period_ns * 4 : kNoStepsNs;
}

bool is_stale(uint64_t now, uint64_t since) { return ticks_to_ns(now - since) > patience_ns(); }

// Must come before the state says kRecording: the first end of a step may follow at once.
void prepare_burst(uint64_t now, int64_t spent, bool slice) {
  g.burst_ticks = now;
  g.burst_spent_ns = spent;
  g.burst_steps = 0;
  store(&g.slice, slice);
}

void record_from(Live *live) {
  add(&live->header->bursts, 1u);
  store(&live->header->recording, 1);
  store_release(&live->recording, 1);
}

// The caller has moved the state away from kRecording.
void record_until(Live *live, uint64_t now) {
  store_release(&live->recording, 0);
  store(&live->header->recording, 0);
  add(&live->header->recorded_ticks, now - g.burst_ticks);
}

bool begin_burst(Live *live, State from, uint64_t now, int64_t spent, bool slice) {
  prepare_burst(now, spent, slice);
  if (!change(&g.state, (uint32_t)from, (uint32_t)kRecording)) return false;
  record_from(live);
  return true;
}

bool end_burst(Live *live, uint64_t now) {
  if (!change(&g.state, (uint32_t)kRecording, (uint32_t)kDone)) return false;
  record_until(live, now);
  return true;
}

int64_t least_burst_ns() { return load(&g.step_cost_ns) * g.least_steps; }

void learn_step_cost(int64_t spent) {
  int64_t mean = (spent - g.burst_spent_ns) / g.burst_steps;
  int64_t known = g.step_cost_ns;
  store(&g.step_cost_ns, known ? (known + mean) / 2 : mean);
}

// The thread whose boundaries count. Taken over when it has shown none for long.
bool is_step_thread(ThreadState *thread, uint64_t now) {
  uint32_t tid = load(&g.step_tid);
  if (tid == thread->tid) return true;
  if (tid && !is_stale(now, load(&g.boundary_ticks))) return false;
  if (!change(&g.step_tid, tid, thread->tid)) return false;
  store(&g.period_ticks, 0);
  store(&g.boundary_ticks, 0);
  return true;
}

bool counts(Boundary kind, uint64_t now) {
  if (kind == kOptimizerBoundary || g.kind != kOptimizerBoundary) {
    g.kind = kind;
    return true;
  }
  if (!is_stale(now, load(&g.boundary_ticks))) return false;
  g.kind = kind;
  return true;
}

void learn_period(uint64_t now) {
  uint64_t last = g.boundary_ticks;
  store(&g.boundary_ticks, now);
  if (!last) return;
  uint64_t interval = now - last, period = g.period_ticks;
  // Pauses (evaluation, a gated callback) are not the period.
  if (period && interval > period * 8) return;
  store(&g.period_ticks, period ? (period * 3 + interval) / 4 : interval);
}

// ------------------------------------------------------------------------- control thread's part

void accrue(uint64_t now, int64_t spent) {
  int64_t gained = (int64_t)(g.budget * (double)ticks_to_ns(now - g.tick_ticks));
  if (gained > g.allowance_ns) gained = g.allowance_ns;
  g.allowance_ns -= gained;
  int64_t tokens = tokens_left_ns(spent) + gained;
  int64_t least = least_burst_ns() * 2;
  int64_t capacity = g.capacity_ns > least ? g.capacity_ns : least;
  store(&g.tokens_ns, tokens < capacity ? tokens : capacity);
  store(&g.spent_at_tick_ns, spent);
  g.tick_ticks = now;
}

void enable_user(Live *live, bool on, uint64_t now) {
  if (on == record_function_user_enabled()) return;
  record_function_enable_user(on);
  if (on)
    g.user_on_ticks = now;
  else
    add(&live->header->user_ticks, now - g.user_on_ticks);
}

// Decides whether user scopes can be recorded all the time, or in bursts only.
void judge_user_rate(Live *live, const ThreadTotals &totals, uint64_t now) {
  int64_t span_ns = ticks_to_ns(now - g.rate_ticks);
  if (span_ns < kRateSpanNs) return;
  double share = (double)((totals.user_events - g.rate_user_events) * g.user_cost_ns) / (double)span_ns;
  if (!g.user_gated)
    g.user_gated = share > g.budget / 2;
  else if (record_function_user_enabled())
    g.user_gated = share > g.budget / 4;
  g.rate_ticks = now;
  g.rate_user_events = totals.user_events;
  if (g.user_gated && load_acquire(&g.state) == kOff) enable_user(live, false, now);
}

// Tokens that a burst needs before it is worth arming for.
int64_t enough_ns() {
  int64_t least = least_burst_ns(), half = g.capacity_ns / 2;
  return least > half ? least : half;
}

// How long after a boundary, or after arming, the next boundary is still expected.
int64_t overdue_ns() {
  int64_t period_ns = ticks_to_ns(load(&g.period_ticks));
  return period_ns + period_ns / 2 + kOverdueNs;
}

// Long steps are armed for shortly before they end: what is seen until then is cost for nothing. A
// step that is overdue (an evaluation, a checkpoint) is not waited for armed.
bool is_near_boundary(uint64_t now) {
  int64_t period_ns = ticks_to_ns(load(&g.period_ticks));
  int64_t since_ns = ticks_to_ns(now - load(&g.boundary_ticks));
  int64_t ahead_ns = period_ns / 8 > kArmAheadNs ? period_ns / 8 : kArmAheadNs;
  return since_ns < overdue_ns() && (period_ns < 2 * ahead_ns || since_ns > period_ns - ahead_ns);
}

void arm(Live *live, uint64_t now) {
  enable_user(live, true, now);
  // A callback that was off has seen no boundaries: their absence says nothing.
  if (g.user_gated) store(&g.boundary_ticks, 0);
  g.armed_ticks = now;
  record_function_enable_operators(true);
  store_release(&g.state, kArmed);
}

void disarm(Live *live, uint64_t now) {
  record_function_enable_operators(false);
  store_release(&g.state, kOff);
  if (g.user_gated) enable_user(live, false, now);
}

void slice_begin(Live *live, uint64_t now, int64_t spent) {
  if (!begin_burst(live, kArmed, now, spent, true)) return;
  g.slice_end_ticks = now + ns_to_ticks(g.slice_ns);
}

void slice_end(Live *live, uint64_t now, int64_t spent) {
  double length = (double)ticks_to_ns(now - g.burst_ticks);
  if (!end_burst(live, now)) return;
  g.slice_cost = (double)(spent - g.burst_spent_ns) / length;
  g.slice_ns = g.slice_ns * 2 < kLongestSliceNs ? g.slice_ns * 2 : kLongestSliceNs;
}

bool steps_are_seen(uint64_t now) {
  uint64_t last = load(&g.boundary_ticks);
  return last && !is_stale(now, last);
}

// Whether bursts can be whole steps. While user scopes are gated no boundaries are seen; then the
// last burst says it.
bool steps_are_expected(uint64_t now) { return g.user_gated ? g.step_tid != 0 : steps_are_seen(now); }

void when_off(Live *live, uint64_t now, int64_t spent) {
  if (steps_are_expected(now)) {
    if (g.tokens_ns >= enough_ns() && (g.user_gated || is_near_boundary(now))) arm(live, now);
    return;
  }
  // Nothing is known of this loop yet: boundaries get their time to show up.
  if (!g.user_gated && !is_stale(now, g.begin_ticks)) return;
  int64_t cost_ns = (int64_t)(g.slice_cost * (double)g.slice_ns);
  int64_t most_ns = g.capacity_ns / 2;
  if (g.tokens_ns < (cost_ns < most_ns ? cost_ns : most_ns) || g.tokens_ns <= 0) return;
  arm(live, now);
  slice_begin(live, now, spent);
}

void when_armed(Live *live, uint64_t now) {
  if (g.tokens_ns >= 0 && ticks_to_ns(now - g.armed_ticks) < overdue_ns()) return;
  if (!change(&g.state, (uint32_t)kArmed, (uint32_t)kDone)) return;
  if (g.user_gated && !load(&g.boundary_ticks)) store(&g.step_tid, 0); /* slices from here on */
  disarm(live, now);
}

void when_recording(Live *live, uint64_t now, int64_t spent) {
  if (load(&g.slice)) {
    if (now >= g.slice_end_ticks || g.tokens_ns <= 0) slice_end(live, now, spent);
  } else if (g.tokens_ns < -g.capacity_ns) {
    end_burst(live, now); /* steps far dearer than thought: a cut step, but not the job's time */
  } else if (is_stale(now, load(&g.boundary_ticks))) {
    g.slice_end_ticks = now;
    store(&g.slice, 1);
  }
}

void count_boundary(Live *live, uint64_t now) {
  python_samples_boundary(now, add(&live->header->boundaries, 1u) + 1);
}

}  // namespace

void bursts_boundary(Live *live, ThreadState *thread, Boundary kind) {
  uint64_t now = now_ticks();
  if (g.mode != GPUTAP_CAPTURE_MODE_BURSTS) {
    if (kind == kOptimizerBoundary) count_boundary(live, now);
    return;
  }
  if (!is_step_thread(thread, now) || !counts(kind, now)) return;
  count_boundary(live, now);
  learn_period(now);
  uint32_t state = load_acquire(&g.state);
  if (state == kArmed) {
    begin_burst(live, kArmed, now, spent_ns(), false);
  } else if (state == kRecording) {
    if (g.slice) { /* steps have come back: from here on they are whole */
      g.slice = 0;
      g.burst_steps = 0;
      return;
    }
    int64_t spent = spent_ns();
    g.burst_steps++;
    learn_step_cost(spent);
    if (g.burst_steps >= g.least_steps && tokens_left_ns(spent) < g.step_cost_ns)
      end_burst(live, now);
  }
}

void bursts_begin(Live *live) {
  const gputap_control_header *header = live->header;
  __builtin_memset(&g, 0, sizeof g);
  g.mode = header->mode;
  g.event_cost_ns = header->event_cost_ns ? header->event_cost_ns : kEventCostNs;
  g.armed_cost_ns = header->armed_cost_ns ? header->armed_cost_ns : kArmedCostNs;
  g.user_cost_ns = header->user_cost_ns ? header->user_cost_ns : kUserCostNs;
  g.least_steps = header->min_burst_steps ? header->min_burst_steps : 1;
  g.budget = (double)header->budget_ppm / 1e6;
  int64_t window_ns = (int64_t)header->window_ns;
  int64_t span_ns = window_ns && window_ns < kBudgetSpanNs ? window_ns : kBudgetSpanNs;
  g.capacity_ns = (int64_t)(g.budget * (double)span_ns / 4);
  g.allowance_ns = window_ns ? (int64_t)(g.budget * (double)window_ns) - g.capacity_ns : INT64_MAX;
  g.tokens_ns = g.capacity_ns;
  g.slice_ns = kFirstSliceNs;
  g.base = threads_totals();
  g.begin_ticks = g.tick_ticks = g.rate_ticks = now_ticks();
  enable_user(live, true, g.begin_ticks);
  if (g.mode != GPUTAP_CAPTURE_MODE_FULL) return;
  prepare_burst(g.begin_ticks, 0, false);
  g.state = kRecording;
  record_from(live);
  record_function_enable_operators(true);
}

void bursts_tick(Live *live) {
  uint64_t now = now_ticks();
  ThreadTotals totals = since_base();
  int64_t spent = cost_ns(totals);
  store(&live->header->spent_ns, spent);
  if (g.mode != GPUTAP_CAPTURE_MODE_BURSTS) return;
  accrue(now, spent);
  judge_user_rate(live, totals, now);
  switch (load_acquire(&g.state)) {
    case kOff:
      return when_off(live, now, spent);
    case kArmed:
      return when_armed(live, now);
    case kRecording:
      return when_recording(live, now, spent);
    case kDone:
      return disarm(live, now);
  }
}

void bursts_end(Live *live) {
  uint64_t now = now_ticks();
  if (exchange(&g.state, (uint32_t)kDone) == kRecording) record_until(live, now);
  enable_user(live, false, now);
  record_function_enable_operators(false);
  store(&live->header->spent_ns, spent_ns());
}

int64_t bursts_wait_ns() {
  if (g.mode != GPUTAP_CAPTURE_MODE_BURSTS) return kIdleTickNs;
  if (load(&g.state) != kOff) return kTickNs;
  // Long steps: be back in time to arm for the boundary.
  return g.tokens_ns >= enough_ns() ? kTickNs : kIdleTickNs;
}

}  // namespace gputap
