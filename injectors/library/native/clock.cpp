#include "clock.h"

#include "text.h"

namespace gputap {

Clock g_clock;

namespace {

constexpr int64_t kFirstBaseNs = 2000000;
constexpr int kAttempts = 5;

bool kernel_trusts_counter() {
  int fd = (int)sys::call(
      sys::kOpenat, -100,
      (long)"/sys/devices/system/clocksource/clocksource0/current_clocksource", 0x80000);
  if (fd < 0) return false;
  char name[16] = {0};
  long got = sys::call(sys::kRead, fd, (long)name, sizeof name - 1);
  sys::close(fd);
  return got > 0 && text_starts(name, (size_t)got, "tsc");
}

}  // namespace

gputap_clock_sample clock_sample() {
  gputap_clock_sample best = {0, 0, 0, ~0ull};
  for (int i = 0; i < kAttempts; i++) {
    uint64_t before = now_ticks();
    int64_t mono_ns = quick_clock_ns(sys::kClockMonotonic);
    int64_t unix_ns = quick_clock_ns(sys::kClockRealtime);
    uint64_t width = now_ticks() - before;
    if (width < best.width_ticks) best = {before + width / 2, mono_ns, unix_ns, width};
  }
  return best;
}

void clock_learn(const gputap_clock_sample &sample) {
  if (g_clock.kind != GPUTAP_CLOCK_KIND_CPU_COUNTER) return;
  uint64_t ticks = sample.ticks - g_clock.first.ticks;
  int64_t ns = sample.mono_ns - g_clock.first.mono_ns;
  if (ticks && ns >= kFirstBaseNs / 2) g_clock.ns_per_tick = (double)ns / (double)ticks;
}

void clock_prepare() {
  if (g_clock.ns_per_tick > 0) return;
  g_clock.ns_per_tick = 1;
  if (!cpu_ticks_are_invariant() && !kernel_trusts_counter()) return;
  g_clock.kind = GPUTAP_CLOCK_KIND_CPU_COUNTER;
  g_clock.first = clock_sample();
  sys::sleep_ns(kFirstBaseNs);
  clock_learn(clock_sample());
}

}  // namespace gputap
