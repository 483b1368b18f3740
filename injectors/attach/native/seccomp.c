#include "seccomp.h"

#include <errno.h>
#include <linux/seccomp.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>

#include "arch.h"

#ifndef PTRACE_SECCOMP_GET_FILTER
#define PTRACE_SECCOMP_GET_FILTER 0x420c
#endif
#ifndef SYS_clone3
#define SYS_clone3 435
#endif

enum { MAX_LENGTH = 4096, MAX_FILTERS = 64, THREAD_FLAGS = 0x3d0f00 };

/* What happens if a call answers with an error. */
enum need {
  NEEDED,
  DISPENSABLE,    /* the error is handled, by glibc or by us */
  UNLESS_MISSING, /* glibc does without it if the error is ENOSYS, and gives up on any other */
};

struct needed {
  long number;
  const char *name;
  enum need need;
  uint64_t args[6];
};

static const struct needed needed[] = {
    {SYS_mmap, "mmap", NEEDED, {0, 8192, PROT_READ | PROT_WRITE, 0x22, ~0ull, 0}},
    {SYS_mmap, "mmap of a library", NEEDED, {0, 8192, PROT_READ | PROT_EXEC, 0x802, 3, 0}},
    {SYS_mprotect, "mprotect", NEEDED, {0, 4096, PROT_READ | PROT_EXEC}},
    {SYS_munmap, "munmap", NEEDED, {0, 8192}},
    {SYS_getpid, "getpid", NEEDED, {0}},
    {SYS_gettid, "gettid", NEEDED, {0}},
    {SYS_tgkill, "tgkill", NEEDED, {1, 1, 23}},
    {SYS_rt_sigreturn, "rt_sigreturn", NEEDED, {0}},
    {SYS_rt_sigprocmask, "rt_sigprocmask", NEEDED, {2, 0, 0, 8}},
    {SYS_clone3, "clone3", UNLESS_MISSING, {0, 88}},
    {SYS_clone, "clone", NEEDED, {THREAD_FLAGS}},
    {SYS_set_robust_list, "set_robust_list", DISPENSABLE, {0, 24}},
    {334 /* rseq */, "rseq", DISPENSABLE, {0, 32, 0, 0x53053053}},
    {SYS_madvise, "madvise", DISPENSABLE, {0, 4096, MADV_DONTNEED}},
    {SYS_exit, "exit", NEEDED, {0}},
    {SYS_nanosleep, "nanosleep", DISPENSABLE, {0}},
    {SYS_futex, "futex", NEEDED, {0}},
    {SYS_memfd_create, "memfd_create", DISPENSABLE, {0, 0x11}},
    {SYS_fcntl, "fcntl", DISPENSABLE, {3, 1030, 500}},
    {SYS_ftruncate, "ftruncate", NEEDED, {3, 4096}},
    {SYS_close, "close", DISPENSABLE, {3}},
    {SYS_openat, "openat", NEEDED, {(uint64_t)-100, 0, 0x80000}},
    {SYS_read, "read", NEEDED, {3, 0, 832}},
    {SYS_pread64, "pread64", DISPENSABLE, {3, 0, 784}},
    {SYS_newfstatat, "newfstatat", DISPENSABLE, {3, 0, 0, 0x1000}},
    {SYS_fstat, "fstat", DISPENSABLE, {3}},
    {SYS_membarrier, "membarrier", DISPENSABLE, {8}},
    {SYS_process_vm_readv, "process_vm_readv", DISPENSABLE, {0}},
    {SYS_clock_gettime, "clock_gettime", DISPENSABLE, {1}},
    {SYS_sched_yield, "sched_yield", DISPENSABLE, {0}},
    {SYS_prctl, "prctl", DISPENSABLE, {15}},
};

static uint32_t load(const unsigned char *data, uint32_t offset) {
  uint32_t word = 0;
  if (offset <= sizeof(struct seccomp_data) - 4) {
    memcpy(&word, data + offset, 4);
  }
  return word;
}

static uint32_t calculate(uint16_t code, uint32_t a, uint32_t operand) {
  switch (BPF_OP(code)) {
  case BPF_ADD:
    return a + operand;
  case BPF_SUB:
    return a - operand;
  case BPF_MUL:
    return a * operand;
  case BPF_DIV:
    return operand ? a / operand : 0;
  case BPF_OR:
    return a | operand;
  case BPF_AND:
    return a & operand;
  case BPF_XOR:
    return a ^ operand;
  case BPF_LSH:
    return operand < 32 ? a << operand : 0;
  case BPF_RSH:
    return operand < 32 ? a >> operand : 0;
  case BPF_NEG:
    return -a;
  default:
    return a;
  }
}

static bool jumps(uint16_t code, uint32_t a, uint32_t operand) {
  switch (BPF_OP(code)) {
  case BPF_JEQ:
    return a == operand;
  case BPF_JGT:
    return a > operand;
  case BPF_JGE:
    return a >= operand;
  default: /* BPF_JSET */
    return (a & operand) != 0;
  }
}

/* The registers of classic BPF. Only what the kernel admits in a seccomp filter is known here. */
struct machine {
  uint32_t a, x, memory[BPF_MEMWORDS];
  const unsigned char *data;
};

static void step(struct machine *m, const struct sock_filter *op) {
  const uint32_t operand = BPF_SRC(op->code) == BPF_X ? m->x : op->k;
  const uint32_t slot = op->k % BPF_MEMWORDS;
  switch (BPF_CLASS(op->code)) {
  case BPF_LD:
  case BPF_LDX: {
    uint32_t value = op->k; /* BPF_IMM */
    if (BPF_MODE(op->code) == BPF_ABS) {
      value = load(m->data, op->k);
    } else if (BPF_MODE(op->code) == BPF_MEM) {
      value = m->memory[slot];
    } else if (BPF_MODE(op->code) == BPF_LEN) {
      value = sizeof(struct seccomp_data);
    }
    *(BPF_CLASS(op->code) == BPF_LD ? &m->a : &m->x) = value;
    break;
  }
  case BPF_ST:
    m->memory[slot] = m->a;
    break;
  case BPF_STX:
    m->memory[slot] = m->x;
    break;
  case BPF_ALU:
    m->a = calculate(op->code, m->a, operand);
    break;
  case BPF_MISC:
    if (BPF_MISCOP(op->code) == BPF_TAX) {
      m->x = m->a;
    } else {
      m->a = m->x;
    }
    break;
  default:
    break;
  }
}

uint32_t seccomp_run(const struct sock_filter *program, size_t length, long number,
                     const uint64_t args[6]) {
  struct seccomp_data data = {.nr = (int)number, .arch = ARCH_AUDIT};
  for (int i = 0; i < 6; i++) {
    data.args[i] = args[i];
  }
  struct machine m = {.data = (const unsigned char *)&data};
  for (size_t pc = 0; pc < length; pc++) { /* jumps go forward only: this ends */
    const struct sock_filter *op = &program[pc];
    if (BPF_CLASS(op->code) == BPF_RET) {
      return BPF_RVAL(op->code) == BPF_A ? m.a : op->k;
    }
    if (BPF_CLASS(op->code) != BPF_JMP) {
      step(&m, op);
    } else if (BPF_OP(op->code) == BPF_JA) {
      pc += op->k;
    } else {
      const uint32_t operand = BPF_SRC(op->code) == BPF_X ? m.x : op->k;
      pc += jumps(op->code, m.a, operand) ? op->jt : op->jf;
    }
  }
  return SECCOMP_RET_KILL_PROCESS; /* not a program that the kernel would have taken */
}

static enum seccomp_fate fate_of(uint32_t answer) {
  switch (answer & SECCOMP_RET_ACTION_FULL) {
  case SECCOMP_RET_ALLOW:
  case SECCOMP_RET_LOG:
    return FATE_ALLOWED;
  case SECCOMP_RET_ERRNO:
  case SECCOMP_RET_TRACE: /* without a tracer that asked for it: ENOSYS */
    return FATE_ERROR;
  case SECCOMP_RET_USER_NOTIF:
    return FATE_UNCERTAIN;
  default: /* KILL_*, TRAP (SIGSYS), and what we do not know */
    return FATE_KILLED;
  }
}

static bool is_handled(const struct needed *call, uint32_t answer) {
  const bool missing = (answer & SECCOMP_RET_DATA) == ENOSYS ||
                       (answer & SECCOMP_RET_ACTION_FULL) == SECCOMP_RET_TRACE;
  return fate_of(answer) == FATE_ERROR &&
         (call->need == DISPENSABLE || (call->need == UNLESS_MISSING && missing));
}

static void judge_filter(struct seccomp_verdict *verdict, const struct sock_filter *program,
                         size_t length) {
  for (size_t i = 0; i < sizeof needed / sizeof *needed; i++) {
    const struct needed *call = &needed[i];
    const uint32_t answer = seccomp_run(program, length, call->number, call->args);
    if (fate_of(answer) > verdict->worst && !is_handled(call, answer)) {
      verdict->worst = fate_of(answer);
      verdict->call = call->name;
    }
  }
}

struct seccomp_verdict seccomp_judge(pid_t tid) {
  static struct sock_filter program[MAX_LENGTH];
  struct seccomp_verdict verdict = {.worst = FATE_ALLOWED};
  for (long index = 0; index < MAX_FILTERS; index++) {
    const long length = ptrace(PTRACE_SECCOMP_GET_FILTER, tid, index, program);
    if (length < 0) {
      verdict.error = errno;
      verdict.readable = errno == ENOENT && index > 0; /* past the last one */
      return verdict;
    }
    verdict.filters++;
    judge_filter(&verdict, program, (size_t)length);
  }
  verdict.error = E2BIG;
  return verdict;
}
