/* Whether a stopped thread is provably outside malloc and the loader, so that it may call
 * pthread_create. */
#ifndef GPUTAP_SAFE_POINT_H
#define GPUTAP_SAFE_POINT_H

#include "arch.h"
#include "modules.h"
#include "process.h"

enum safe_point {
  SAFE,
  UNSAFE_RUNTIME,   /* in libc, the loader or the vdso, and not in a system call that we know */
  UNSAFE_ALLOCATOR, /* in another malloc */
  UNSAFE_SYSCALL,   /* in a system call that a stop disturbs, or that malloc or the loader use */
  UNSAFE_LOCK,      /* waiting for a lock of libc, the loader or an allocator */
  UNSAFE_CODE,      /* at an address that was not mapped when we looked */
  UNSAFE_STACK,     /* not on its own stack, or too little of it left */
  UNSAFE_HANDLER,   /* in a signal handler: below it may be anything */
  UNSAFE_RSEQ,      /* in a restartable sequence */
  SAFE_POINT_KINDS,
};

enum safe_point safe_point_check(const struct modules *modules, const struct arch_gadgets *gadgets,
                                 pid_t tid, const arch_regs *regs);

/* How promising a thread is, before it is stopped: 0 best, -1 not to be stopped at all. */
int safe_point_rank(const struct modules *modules, const struct thread_view *view);

const char *safe_point_text(enum safe_point kind);

#endif
