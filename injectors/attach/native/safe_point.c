#include "safe_point.h"

#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
  STACK_NEEDED = 48 * 1024,    /* pthread_create's few KiB, our frame, and doubt */
  STACK_SEARCHED = 512 * 1024, /* for signal frames */
  FRAMES_NEAR = 4096,          /* for return addresses into an allocator */
  ARENA_ALIGNMENT = 64 << 20,  /* HEAP_MAX_SIZE of glibc: the lock lies in an arena's first page */
};

#ifndef PTRACE_GET_RSEQ_CONFIGURATION
#define PTRACE_GET_RSEQ_CONFIGURATION 0x420f
#endif

/* The kernel's, from <linux/ptrace.h>, which cannot be included beside <sys/ptrace.h>. */
struct rseq_configuration {
  uint64_t area;
  uint32_t size, signature, flags, pad;
};

/* A lock that pthread_create might want too, held by someone while this thread waits for it. */
static bool is_runtime_lock(const struct modules *modules, uint64_t address) {
  const struct module *module = modules_at(modules, address);
  const bool in_arena_header = (address & (ARENA_ALIGNMENT - 1)) < 4096;
  return in_arena_header ||
         (module && module->kind != MODULE_OTHER && module->kind != MODULE_AGENT);
}

/* A read from a socket or inotify may answer EINTR to a stop; from pipes and terminals it begins
 * anew. */
static bool is_restartable_file(pid_t pid, uint64_t fd) {
  char path[64], target[64];
  snprintf(path, sizeof path, "/proc/%d/fd/%d", pid, (int)fd);
  const ssize_t n = readlink(path, target, sizeof target - 1);
  if (n <= 0) {
    return false;
  }
  target[n] = '\0';
  return strncmp(target, "pipe:", 5) == 0 || strstr(target, "eventfd") ||
         strncmp(target, "/dev/", 5) == 0;
}

/*
 * Blocking calls that the kernel restarts unseen, with the remaining timeout, and that neither
 * malloc nor the loader make. Not epoll_wait, recv*, accept, rt_sigtimedwait: they may answer EINTR
 * to a stop.
 */
static enum safe_point check_syscall(const struct modules *modules, long number, uint64_t first) {
  switch (number) {
  case SYS_poll:
  case SYS_ppoll:
  case SYS_select:
  case SYS_pselect6:
  case SYS_pause:
  case SYS_nanosleep:
  case SYS_clock_nanosleep:
  case SYS_wait4:
  case SYS_waitid:
  case SYS_restart_syscall: /* one of these, or a futex with a timeout, after an earlier stop */
    return SAFE;
  case SYS_read:
    return is_restartable_file(modules->pid, first) ? SAFE : UNSAFE_SYSCALL;
  case SYS_futex:
    return is_runtime_lock(modules, first) ? UNSAFE_LOCK : SAFE;
  default:
    return UNSAFE_SYSCALL;
  }
}

static enum safe_point check_code(const struct modules *modules, uint64_t pc, bool in_syscall) {
  const struct mapping *mapping = modules_mapping(modules, pc);
  if (!mapping || mapping->access[2] != 'x') {
    return UNSAFE_CODE;
  }
  const enum module_kind kind =
      mapping->module >= 0 ? modules->modules[mapping->module].kind : MODULE_OTHER;
  if (kind == MODULE_ALLOCATOR) {
    return UNSAFE_ALLOCATOR;
  }
  if (kind == MODULE_LOADER || mapping->is_vdso || kind == MODULE_AGENT) {
    return UNSAFE_RUNTIME;
  }
  return kind == MODULE_RUNTIME && !in_syscall ? UNSAFE_RUNTIME : SAFE;
}

/*
 * The thread must be on the stack that it was given: the main thread on the process's, any other in
 * the mapping that also holds its descriptor. Coroutine and alternate signal stacks may be tiny,
 * and what they interrupt is unknown.
 */
static enum safe_point check_stack(const struct modules *modules, pid_t tid, uint64_t sp,
                                   uint64_t descriptor) {
  const struct mapping *stack = modules_mapping(modules, sp);
  if (!stack || stack->access[1] != 'w') {
    return UNSAFE_STACK;
  }
  if (tid == modules->pid) { /* grows by itself, but not when we write below it */
    return stack->is_stack && sp - stack->start >= ARCH_VECTOR_MAX ? SAFE : UNSAFE_STACK;
  }
  const bool own = descriptor > sp && descriptor < stack->end;
  return own && sp - stack->start >= STACK_NEEDED ? SAFE : UNSAFE_STACK;
}

static bool in_allocator(const struct modules *modules, uint64_t address) {
  const struct mapping *mapping = modules_mapping(modules, address);
  return mapping && mapping->access[2] == 'x' && mapping->module >= 0 &&
         modules->modules[mapping->module].kind == MODULE_ALLOCATOR;
}

/* Looks for signal frames in the whole stack, and for callers in another malloc near its top. */
static enum safe_point check_frames(const struct modules *modules,
                                    const struct arch_gadgets *gadgets, uint64_t sp,
                                    bool in_syscall) {
  static uint64_t words[STACK_SEARCHED / sizeof(uint64_t)];
  const struct mapping *stack = modules_mapping(modules, sp);
  const uint64_t start = sp & ~7ull;
  const size_t available = stack->end - start;
  const size_t size = available < sizeof words ? available : sizeof words;
  if (!read_memory(modules->pid, start, words, size)) {
    return UNSAFE_STACK;
  }
  const size_t count = size / sizeof *words;
  for (size_t i = 0; i + ARCH_FRAME_WORDS <= count; i++) {
    if (words[i] == gadgets->sigreturn && arch_is_signal_frame(words + i, gadgets)) {
      return UNSAFE_HANDLER;
    }
  }
  /* Waiting for an allocator's lock, which may lie anywhere. */
  const bool look_near = in_syscall && modules->has_foreign_allocator;
  for (size_t i = 0; look_near && i < count && i < FRAMES_NEAR / sizeof *words; i++) {
    if (in_allocator(modules, words[i])) {
      return UNSAFE_LOCK;
    }
  }
  return SAFE;
}

/* A thread moved out of a restartable sequence and back would run on as if it had not been
 * disturbed. */
static bool in_rseq(pid_t pid, pid_t tid, uint64_t pc) {
  struct rseq_configuration configuration;
  uint64_t sequence;
  struct {
    uint32_t version, flags;
    uint64_t start, length, abort;
  } critical;
  if (ptrace(PTRACE_GET_RSEQ_CONFIGURATION, tid, sizeof configuration, &configuration) <= 0 ||
      !configuration.area ||
      !read_memory(pid, configuration.area + 8, &sequence, sizeof sequence) || !sequence ||
      !read_memory(pid, sequence, &critical, sizeof critical)) {
    return false;
  }
  return pc - critical.start < critical.length;
}

enum safe_point safe_point_check(const struct modules *modules, const struct arch_gadgets *gadgets,
                                 pid_t tid, const arch_regs *regs) {
  uint64_t first;
  const long number = arch_syscall_number(regs, &first);
  const uint64_t sp = arch_sp(regs);
  enum safe_point verdict = check_code(modules, arch_pc(regs), number >= 0);
  if (verdict == SAFE && number >= 0) {
    verdict = check_syscall(modules, number, first);
  }
  if (verdict == SAFE) {
    verdict = check_stack(modules, tid, sp, arch_thread_pointer(regs));
  }
  if (verdict == SAFE && in_rseq(modules->pid, tid, arch_pc(regs))) {
    verdict = UNSAFE_RSEQ;
  }
  return verdict == SAFE ? check_frames(modules, gadgets, sp, number >= 0) : verdict;
}

int safe_point_rank(const struct modules *modules, const struct thread_view *view) {
  switch (view->activity) {
  case THREAD_BLOCKED:
    if (check_syscall(modules, view->number, view->first_argument) != SAFE) {
      return -1;
    }
    return view->number == SYS_futex ? 1 : 0;
  case THREAD_RUNNING:
    return 2;
  default:
    return -1;
  }
}

const char *safe_point_text(enum safe_point kind) {
  static const char *const texts[] = {
      [SAFE] = "at a safe point",
      [UNSAFE_RUNTIME] = "inside libc or the loader",
      [UNSAFE_ALLOCATOR] = "inside another malloc",
      [UNSAFE_SYSCALL] = "in a system call that must not be interrupted",
      [UNSAFE_LOCK] = "waiting for a lock of malloc or the loader",
      [UNSAFE_CODE] = "in code mapped a moment ago",
      [UNSAFE_STACK] = "on a foreign or nearly full stack",
      [UNSAFE_HANDLER] = "in a signal handler",
      [UNSAFE_RSEQ] = "in a restartable sequence",
  };
  return texts[kind];
}
