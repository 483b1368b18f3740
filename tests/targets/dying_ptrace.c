/* Linked into a copy of gputap-inject built with -Dptrace=dying_ptrace: kills it around its N-th
   ptrace call, so that a test can end the injector at every single step of the window. */
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static void die_at(int step) {
  const char *when = getenv("DIE_AT_STEP");
  if (when && atoi(when) == step) {
    kill(getpid(), SIGKILL);
  }
}

long dying_ptrace(int request, ...) {
  static int steps;
  va_list args;
  va_start(args, request);
  const pid_t tid = va_arg(args, pid_t);
  void *const address = va_arg(args, void *);
  void *const data = va_arg(args, void *);
  va_end(args);
  die_at(steps++);
  const long result = syscall(SYS_ptrace, (long)request, (long)tid, address, data);
  const int error = errno;
  die_at(steps++);
  errno = error;
  return result;
}
