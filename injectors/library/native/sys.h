// Raw system calls. The agent imports no libc: its symbols would pin the glibc it loads on, and
// libc's own wrappers touch errno of a thread that is not ours.
#ifndef GPUTAP_SYS_H
#define GPUTAP_SYS_H

#include <stddef.h>
#include <stdint.h>

#if defined(__x86_64__)
#include "sys_x86_64.h"
#elif defined(__aarch64__)
#include "sys_aarch64.h"
#else
#error "no system-call layer for this architecture"
#endif

namespace gputap {

struct Timespec {
  int64_t seconds;
  int64_t nanoseconds;
};

// The kernel's struct flock on 64-bit Linux.
struct FileLock {
  int16_t type;
  int16_t whence;
  int64_t start;
  int64_t length;
  int32_t pid;
};

enum : long {
  EINTR_ = 4,
  EAGAIN_ = 11,
  EBUSY_ = 16,
  EINVAL_ = 22,
  ENOSYS_ = 38,
  ETIMEDOUT_ = 110,
  EOPNOTSUPP_ = 95,
  ENOMEM_ = 12,
  ESRCH_ = 3,
  E2BIG_ = 7,
};

namespace sys {

constexpr int kProtRead = 1, kProtWrite = 2;
constexpr int kMapShared = 1, kMapPrivate = 2, kMapAnonymous = 0x20, kMapNoReserve = 0x4000;
constexpr int kMadvDontNeed = 4, kMadvWipeOnFork = 18, kMadvPopulateWrite = 23;
constexpr int kMfdCloexec = 1, kMfdAllowSealing = 2, kMfdNoexecSeal = 8;
constexpr int kFcntlDupCloexec = 1030, kFcntlAddSeals = 1033, kFcntlOfdGetLock = 36;
constexpr int kSealSeal = 1, kSealShrink = 2, kSealGrow = 4;
constexpr int kLockWrite = 1, kLockNone = 2;
constexpr int kClockRealtime = 0, kClockMonotonic = 1;
constexpr int kMembarrierPrivate = 8, kMembarrierRegisterPrivate = 16;
constexpr int kSetName = 15, kGetName = 16;
constexpr int kSigSetMask = 2;
constexpr size_t kPage = 4096;

inline bool failed(long result) { return result < 0 && result > -4096; }

inline void *map(size_t bytes, int flags, int fd) {
  long at = call(kMmap, 0, (long)bytes, kProtRead | kProtWrite, flags, fd, 0);
  return failed(at) ? nullptr : (void *)at;
}

inline void *map_private(size_t bytes) {
  return map(bytes, kMapPrivate | kMapAnonymous | kMapNoReserve, -1);
}

inline void unmap(void *at, size_t bytes) { call(kMunmap, (long)at, (long)bytes); }
inline int close(int fd) { return (int)call(kClose, fd); }
inline int getpid() { return (int)call(kGetpid); }
inline int gettid() { return (int)call(kGettid); }
inline void yield() { call(kSchedYield); }

inline bool thread_is_alive(int pid, int tid) { return call(kTgkill, pid, tid, 0) != -ESRCH_; }

// `timeout_ns` < 0 waits for ever. Returns when woken, on a signal, or when the word differs.
inline long futex_wait(uint32_t *word, uint32_t expected, int64_t timeout_ns) {
  Timespec timeout = {timeout_ns / 1000000000, timeout_ns % 1000000000};
  return call(kFutex, (long)word, 0, (long)expected, timeout_ns < 0 ? 0 : (long)&timeout);
}

inline void futex_wake(uint32_t *word) { call(kFutex, (long)word, 1, 0x7fffffff); }

inline void sleep_ns(int64_t ns) {
  uint32_t word = 0;
  futex_wait(&word, 0, ns);
}

inline int64_t clock_ns(int clock) {
  Timespec now = {0, 0};
  call(kClockGettime, clock, (long)&now);
  return now.seconds * 1000000000 + now.nanoseconds;
}

inline int64_t monotonic_ns() { return clock_ns(kClockMonotonic); }

// Blocks every signal of the calling thread and returns the old mask, to be handed to `set_signals`.
inline uint64_t block_signals() {
  uint64_t all = ~0ull, old = 0;
  call(kRtSigprocmask, kSigSetMask, (long)&all, (long)&old, 8);
  return old;
}

inline void set_signals(uint64_t mask) {
  call(kRtSigprocmask, kSigSetMask, (long)&mask, 0, 8);
}

}  // namespace sys
}  // namespace gputap

#endif
