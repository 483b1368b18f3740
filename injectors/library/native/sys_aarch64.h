// System calls, tick counter and thread pointer of aarch64.
#ifndef GPUTAP_SYS_AARCH64_H
#define GPUTAP_SYS_AARCH64_H

#include <stdint.h>

namespace gputap {
namespace sys {

enum Number : long {
  kFcntl = 25,
  kFtruncate = 46,
  kFstat = 80,
  kOpenat = 56,
  kClose = 57,
  kRead = 63,
  kFutex = 98,
  kClockGettime = 113,
  kSchedYield = 124,
  kTgkill = 131,
  kRtSigprocmask = 135,
  kPrctl = 167,
  kGetpid = 172,
  kGettid = 178,
  kMunmap = 215,
  kMmap = 222,
  kMprotect = 226,
  kMadvise = 233,
  kProcessVmReadv = 270,
  kMemfdCreate = 279,
  kMembarrier = 283,
};

inline long call(Number number, long a = 0, long b = 0, long c = 0, long d = 0, long e = 0,
                 long f = 0) {
  register long x8 __asm__("x8") = number;
  register long x0 __asm__("x0") = a;
  register long x1 __asm__("x1") = b;
  register long x2 __asm__("x2") = c;
  register long x3 __asm__("x3") = d;
  register long x4 __asm__("x4") = e;
  register long x5 __asm__("x5") = f;
  __asm__ volatile("svc #0"
                   : "+r"(x0)
                   : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
                   : "memory");
  return x0;
}

}  // namespace sys

inline uint64_t cpu_ticks() {
  uint64_t ticks;
  __asm__ volatile("mrs %0, cntvct_el0" : "=r"(ticks));
  return ticks;
}

// The generic timer has one rate by architecture.
inline bool cpu_ticks_are_invariant() { return true; }

inline uintptr_t thread_pointer() {
  uintptr_t pointer;
  __asm__("mrs %0, tpidr_el0" : "=r"(pointer));
  return pointer;
}

inline void spin_pause() { __asm__ volatile("yield"); }

}  // namespace gputap

#endif
