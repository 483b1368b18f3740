// The clock of the records: the CPU counter where it is invariant, else CLOCK_MONOTONIC in ns.
#ifndef GPUTAP_CLOCK_H
#define GPUTAP_CLOCK_H

#include "atomics.h"
#include "host.h"
#include "wire.h"

namespace gputap {

struct Clock {
  uint32_t kind; /* enum gputap_clock_kind */
  double ns_per_tick;
  gputap_clock_sample first; /* of the process's life with the agent: the base of the rate */
};

extern Clock g_clock;

// Chooses the clock and measures its rate; takes about 2 ms the first time, nothing later.
void clock_prepare();

gputap_clock_sample clock_sample();

// Refines the rate: the longer the base, the better.
void clock_learn(const gputap_clock_sample &sample);

inline int64_t quick_clock_ns(int clock) {
  Timespec now = {0, 0};
  if (!g_host.clock_gettime || g_host.clock_gettime(clock, &now)) return sys::clock_ns(clock);
  return now.seconds * 1000000000 + now.nanoseconds;
}

inline uint64_t now_ticks() {
  if (GPUTAP_LIKELY(g_clock.kind == GPUTAP_CLOCK_KIND_CPU_COUNTER)) return cpu_ticks();
  return (uint64_t)quick_clock_ns(sys::kClockMonotonic);
}

inline int64_t ticks_to_ns(uint64_t ticks) { return (int64_t)((double)ticks * g_clock.ns_per_tick); }

inline uint64_t ns_to_ticks(int64_t ns) { return (uint64_t)((double)ns / g_clock.ns_per_tick); }

}  // namespace gputap

#endif
