/* Whether a target's seccomp filters let our system calls through. A filter that kills would kill
 * the job. */
#ifndef GPUTAP_SECCOMP_H
#define GPUTAP_SECCOMP_H

#include <linux/filter.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum seccomp_fate { FATE_ALLOWED, FATE_ERROR, FATE_UNCERTAIN, FATE_KILLED };

/* What one filter answers to a system call: a SECCOMP_RET_* word. */
uint32_t seccomp_run(const struct sock_filter *program, size_t length, long number,
                     const uint64_t args[6]);

struct seccomp_verdict {
  bool readable;
  int error; /* errno, if not readable */
  int filters;
  enum seccomp_fate worst;
  const char *call; /* that suffers it, if it cannot be done without */
};

/* Reads the filters of a stopped, traced thread and judges every system call that the injection
 * makes. */
struct seccomp_verdict seccomp_judge(pid_t tid);

#endif
