/* What /proc says about the target: identity, state, threads, credentials. Reading it touches
 * nothing. */
#ifndef GPUTAP_PROCESS_H
#define GPUTAP_PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Reads all of a small file into a NUL-terminated buffer. Length, or a negative errno. */
long read_file(const char *path, char *to, size_t size);

/* One field of a `status` file, e.g. "Seccomp". False if the file or the field is missing. */
bool status_field(pid_t pid, pid_t tid, const char *field, char *to, size_t size);
/* The same as a number in the given base; `missing` if there is no such field. */
long long status_number(pid_t pid, pid_t tid, const char *field, int base, long long missing);

/* Reads the target's memory. Needs the right to ptrace it, and stops nothing. */
bool read_memory(pid_t pid, uint64_t address, void *to, size_t size);
bool write_memory(pid_t pid, uint64_t address, const void *from, size_t size);

enum thread_activity {
  THREAD_RUNNING,       /* on a CPU, or ready to be */
  THREAD_BLOCKED,       /* in the system call `number` */
  THREAD_UNINTERRUPTED, /* state D: no stop would reach it */
  THREAD_GONE,
};

struct thread_view {
  pid_t tid;
  enum thread_activity activity;
  long number;
  uint64_t first_argument;
  uint64_t stack_pointer;
};

/* What a thread is doing right now, seen from outside. */
struct thread_view view_thread(pid_t pid, pid_t tid);

/* Fills `tids`; returns how many there are, at most `limit`. */
size_t list_threads(pid_t pid, pid_t *tids, size_t limit);

/* Why the operating system may have refused, in one sentence. */
void explain_refusal(pid_t pid, char *to, size_t size);

#endif
