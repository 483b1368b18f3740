/* The device's clock: CLOCK_REALTIME, or a counter that every call of the API moves on. */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "internal.h"

enum {
  SECOND_NS = 1000000000,
  /* Below, a sleep would end far too late: timers have a slack of 50 us. */
  SHORTEST_SLEEP_NS = 60000,
};

static pthread_once_t kind_once = PTHREAD_ONCE_INIT;
static bool is_virtual;
static atomic_uint_fast64_t counter_ns = 1000ull * SECOND_NS;
static uint64_t step_at_ns = UINT64_MAX;
static int64_t step_ns;

static uint64_t read_realtime(void) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return (uint64_t)now.tv_sec * SECOND_NS + (uint64_t)now.tv_nsec;
}

static void read_kind(void) {
  const char *kind = getenv("SIMGPU_CLOCK");
  is_virtual = kind && strcmp(kind, "virtual") == 0;
}

/* Before the devices are there as well: cuptiGetTimestamp needs none. */
SIMGPU_EXPORT bool simgpu_clock_is_virtual(void) {
  pthread_once(&kind_once, read_kind);
  return is_virtual;
}

void clock_start(void) {
  step_ns = (int64_t)simgpu_fault("clock_step", 0);
  if (step_ns) step_at_ns = simgpu_now_ns() + (uint64_t)simgpu_fault("clock_step_after", 0);
}

void clock_advance(uint64_t ns) {
  if (simgpu_clock_is_virtual()) counter_ns += ns;
}

SIMGPU_EXPORT uint64_t simgpu_now_ns(void) {
  return simgpu_clock_is_virtual() ? counter_ns : read_realtime();
}

SIMGPU_EXPORT uint64_t simgpu_record_ns(uint64_t time_ns) {
  return time_ns >= step_at_ns ? time_ns + (uint64_t)step_ns : time_ns;
}

static void advance_to(uint64_t until_ns) {
  uint_fast64_t now = counter_ns;
  while (now < until_ns && !atomic_compare_exchange_weak(&counter_ns, &now, until_ns)) {
  }
}

SIMGPU_EXPORT void simgpu_sleep_until(uint64_t until_ns) {
  if (simgpu_clock_is_virtual()) {
    advance_to(until_ns);
    return;
  }
  for (uint64_t now = read_realtime(); now < until_ns; now = read_realtime()) {
    const uint64_t left = until_ns - now;
    if (left > SHORTEST_SLEEP_NS) {
      const uint64_t nap = left - SHORTEST_SLEEP_NS;
      const struct timespec request = {(time_t)(nap / SECOND_NS), (long)(nap % SECOND_NS)};
      nanosleep(&request, NULL);
    }
  }
}
