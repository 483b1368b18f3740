/* System calls of the bootstrap, per architecture. */
#ifndef GPUTAP_BOOT_ARCH_H
#define GPUTAP_BOOT_ARCH_H

#if defined(__x86_64__)

enum {
  BOOT_NR_close = 3,
  BOOT_NR_rt_sigprocmask = 14,
  BOOT_NR_nanosleep = 35,
  BOOT_NR_fcntl = 72,
  BOOT_NR_gettid = 186,
  BOOT_NR_memfd_create = 319,
};

static inline __attribute__((always_inline)) long boot_syscall(long number, long a, long b, long c,
                                                               long d) {
  long result;
  register long r10 __asm__("r10") = d;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10)
                   : "rcx", "r11", "memory");
  return result;
}

#else
#error "gputap-inject has no bootstrap for this architecture yet"
#endif

#endif
