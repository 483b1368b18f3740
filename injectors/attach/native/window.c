#include "window.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <time.h>

#include "process.h"
#include "report.h"

enum { SYSCALL_STOP = SIGTRAP | 0x80, MAX_STRAGGLERS = 32 };

/* Threads that were asked to stop and did not yet: they are let go the moment they do. */
static pid_t stragglers[MAX_STRAGGLERS];
static int straggler_count;

void window_prepare(void) {
  sigset_t all;
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, NULL);
  signal(SIGCHLD, SIG_DFL); /* inherited as ignored, it would never tell us of a stop */
}

static void let_go(pid_t tid, int status) {
  const bool is_event = status >> 16 != 0;
  ptrace(PTRACE_DETACH, tid, 0, is_event ? 0 : WSTOPSIG(status));
}

static void release_stragglers(void) {
  for (int i = straggler_count - 1; i >= 0; i--) {
    int status;
    const pid_t got = waitpid(stragglers[i], &status, __WALL | WNOHANG);
    if (got == 0) {
      continue;
    }
    if (got > 0 && WIFSTOPPED(status)) {
      let_go(stragglers[i], status);
    }
    stragglers[i] = stragglers[--straggler_count];
  }
}

/* Waits for `tid` to stop or end. SIGCHLD is blocked, so it is waited for and never lost. */
static bool wait_for(pid_t tid, int *status, unsigned timeout_ms) {
  const uint64_t deadline = now_ns() + (uint64_t)timeout_ms * 1000000u;
  sigset_t child;
  sigemptyset(&child);
  sigaddset(&child, SIGCHLD);
  for (;;) {
    const pid_t got = waitpid(tid, status, __WALL | WNOHANG);
    if (got == tid) {
      return true;
    }
    const uint64_t now = now_ns();
    if (got < 0 || now >= deadline) {
      return false;
    }
    const uint64_t left = deadline - now;
    const struct timespec timeout = {(time_t)(left / 1000000000u), (long)(left % 1000000000u)};
    sigtimedwait(&child, NULL, &timeout);
    release_stragglers();
  }
}

enum window_result window_stop(struct window *window, pid_t pid, pid_t tid, unsigned timeout_ms) {
  int status;
  window->pid = pid;
  window->tid = tid;
  release_stragglers();
  if (straggler_count == MAX_STRAGGLERS) {
    return WINDOW_NOT_STOPPED;
  }
  if (ptrace(PTRACE_SEIZE, tid, 0, PTRACE_O_TRACESYSGOOD) != 0) {
    return errno == ESRCH ? WINDOW_GONE : WINDOW_REFUSED;
  }
  ptrace(PTRACE_INTERRUPT, tid, 0, 0);
  if (!wait_for(tid, &status, timeout_ms)) {
    stragglers[straggler_count++] = tid;
    return WINDOW_NOT_STOPPED;
  }
  if (!WIFSTOPPED(status)) {
    return WINDOW_GONE;
  }
  if (status >> 16 != PTRACE_EVENT_STOP || WSTOPSIG(status) != SIGTRAP) {
    let_go(tid, status);
    return status >> 16 == PTRACE_EVENT_STOP ? WINDOW_GROUP_STOP : WINDOW_HAD_SIGNAL;
  }
  return WINDOW_OK;
}

void window_let_go(struct window *window) { ptrace(PTRACE_DETACH, window->tid, 0, 0); }

/*
 * Asynchronous signals stay pending in the kernel while the thread works for us, siginfo and all,
 * and the new thread inherits the mask. Faults must stay deliverable: a blocked one would have its
 * handler reset by the kernel. SIGURG is how the thread tells us that it has returned.
 */
static uint64_t window_mask(void) {
  const int open[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGSYS, SIGURG};
  uint64_t mask = ~0ull;
  for (size_t i = 0; i < sizeof open / sizeof *open; i++) {
    mask &= ~(1ull << (open[i] - 1));
  }
  return mask;
}

bool window_open(struct window *window, const struct arch_gadgets *gadgets, bool finish) {
  window->gadgets = gadgets;
  struct arch_rescue *rescue = &window->rescue;
  if (!arch_save(window->tid, &window->saved)) {
    return false;
  }
  const arch_regs found = window->saved.regs;
  if (finish) {
    arch_finish_syscall(&window->saved);
  }
  if (!arch_make_rescue(&window->saved, gadgets, rescue) ||
      !write_memory(window->pid, rescue->call_sp, rescue->bytes, rescue->size)) {
    return false;
  }
  /* Registers before mask: from here on a thread that loses us restores both by itself. */
  const arch_regs idle = arch_idle_regs(&window->saved, gadgets, rescue);
  const uint64_t mask = window_mask();
  if (!arch_set_regs(window->tid, &idle)) {
    return false;
  }
  if (ptrace(PTRACE_SETSIGMASK, window->tid, sizeof mask, &mask) != 0) {
    arch_set_regs(window->tid, &found);
    return false;
  }
  return true;
}

static bool is_fault(int signal_number) {
  return signal_number == SIGSEGV || signal_number == SIGBUS || signal_number == SIGILL ||
         signal_number == SIGFPE || signal_number == SIGSYS || signal_number == SIGTRAP;
}

/* Runs the thread to its next stop with signal `expected`. */
static enum window_result run_to(struct window *window, enum __ptrace_request how, int expected,
                                 unsigned timeout_ms) {
  for (;;) {
    int status;
    if (ptrace(how, window->tid, 0, 0) != 0) {
      return WINDOW_GONE;
    }
    if (!wait_for(window->tid, &status, timeout_ms)) {
      return WINDOW_STUCK;
    }
    if (!WIFSTOPPED(status)) {
      return WINDOW_GONE;
    }
    if (status >> 16 != 0) { /* a group stop: it takes effect when we are done */
      continue;
    }
    if (WSTOPSIG(status) == expected) {
      return WINDOW_OK;
    }
    if (is_fault(WSTOPSIG(status))) {
      window->fault = WSTOPSIG(status);
      return WINDOW_CRASHED;
    }
  }
}

enum window_result window_syscall(struct window *window, long number, const uint64_t args[6],
                                  unsigned timeout_ms, long *result) {
  arch_regs regs =
      arch_syscall_regs(&window->saved, window->gadgets, &window->rescue, number, args);
  if (!arch_set_regs(window->tid, &regs)) {
    return WINDOW_GONE;
  }
  /* Stops at entry and exit, not a single step: its SIGTRAP would be delivered if we died in it. */
  enum window_result outcome = run_to(window, PTRACE_SYSCALL, SYSCALL_STOP, timeout_ms);
  if (outcome == WINDOW_OK) {
    outcome = run_to(window, PTRACE_SYSCALL, SYSCALL_STOP, timeout_ms);
  }
  if (outcome == WINDOW_OK && !arch_get_regs(window->tid, &regs)) {
    return WINDOW_GONE;
  }
  *result = arch_syscall_result(&regs);
  return outcome;
}

enum window_result window_call(struct window *window, uint64_t function, const uint64_t args[4],
                               unsigned timeout_ms) {
  arch_regs regs = arch_call_regs(&window->saved, window->rescue.call_sp, function, args);
  if (!arch_set_regs(window->tid, &regs)) {
    return WINDOW_GONE;
  }
  do { /* Somebody else's SIGURG may come first; it is swallowed, as it is by default. */
    const enum window_result outcome = run_to(window, PTRACE_CONT, SIGURG, timeout_ms);
    if (outcome != WINDOW_OK) {
      return outcome;
    }
    if (!arch_get_regs(window->tid, &regs)) {
      return WINDOW_GONE;
    }
  } while (arch_sp(&regs) <= window->rescue.call_sp);
  return WINDOW_OK;
}

bool window_close(struct window *window) {
  return arch_restore(window->tid, &window->saved) && ptrace(PTRACE_DETACH, window->tid, 0, 0) == 0;
}

bool window_send(struct window *window, uint64_t function, uint64_t argument) {
  const uint64_t args[4] = {argument};
  const arch_regs regs = arch_call_regs(&window->saved, window->rescue.frame_sp, function, args);
  return arch_set_regs(window->tid, &regs) && ptrace(PTRACE_DETACH, window->tid, 0, 0) == 0;
}

const char *window_text(enum window_result result) {
  static const char *const texts[] = {
      [WINDOW_OK] = "done",
      [WINDOW_NOT_STOPPED] = "it did not stop in time",
      [WINDOW_HAD_SIGNAL] = "it had a signal to handle",
      [WINDOW_GROUP_STOP] = "it is stopped by a signal",
      [WINDOW_REFUSED] = "ptrace was refused",
      [WINDOW_GONE] = "the thread ended",
      [WINDOW_CRASHED] = "the thread took a fault",
      [WINDOW_STUCK] = "the call did not return in time",
  };
  return texts[result];
}
