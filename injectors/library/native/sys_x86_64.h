// System calls, tick counter and thread pointer of x86-64.
#ifndef GPUTAP_SYS_X86_64_H
#define GPUTAP_SYS_X86_64_H

#include <stdint.h>

namespace gputap {
namespace sys {

enum Number : long {
  kRead = 0,
  kClose = 3,
  kFstat = 5,
  kMmap = 9,
  kMprotect = 10,
  kMunmap = 11,
  kRtSigprocmask = 14,
  kSchedYield = 24,
  kMadvise = 28,
  kGetpid = 39,
  kFcntl = 72,
  kFtruncate = 77,
  kPrctl = 157,
  kGettid = 186,
  kFutex = 202,
  kClockGettime = 228,
  kTgkill = 234,
  kOpenat = 257,
  kProcessVmReadv = 310,
  kMemfdCreate = 319,
  kMembarrier = 324,
};

inline long call(Number number, long a = 0, long b = 0, long c = 0, long d = 0, long e = 0,
                 long f = 0) {
  long result;
  register long r10 __asm__("r10") = d;
  register long r8 __asm__("r8") = e;
  register long r9 __asm__("r9") = f;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"((long)number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                   : "rcx", "r11", "memory");
  return result;
}

}  // namespace sys

inline uint64_t cpu_ticks() {
  uint32_t low, high;
  __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
  return (uint64_t)high << 32 | low;
}

// CPUID 8000_0007h, EDX bit 8: the counter ticks at one rate in every power state and on all cores.
inline bool cpu_ticks_are_invariant() {
  uint32_t a = 0x80000000u, b, c, d;
  __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "=c"(c), "=d"(d));
  if (a < 0x80000007u) return false;
  a = 0x80000007u;
  c = 0;
  __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
  return d >> 8 & 1;
}

inline uintptr_t thread_pointer() {
  uintptr_t pointer;
  __asm__("mov %%fs:0, %0" : "=r"(pointer));
  return pointer;
}

inline void spin_pause() { __asm__ volatile("pause"); }

}  // namespace gputap

#endif
