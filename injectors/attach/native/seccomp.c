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

/* `dispensable`: an error is handled, by glibc or by us. */
struct needed {
  long number;
  const char *name;
  bool dispensable;
  uint64_t args[6];
};

static const struct needed needed[] = {
    {SYS_mmap, "mmap", false, {0, 8192, PROT_READ | PROT_WRITE, 0x22, ~0ull, 0}},
    {SYS_mmap, "mmap of a library", false, {0, 8192, PROT_READ | PROT_EXEC, 0x802, 3, 0}},
    {SYS_mprotect, "mprotect", false, {0, 4096, PROT_READ | PROT_EXEC}},
    {SYS_munmap, "munmap", false, {0, 8192}},
    {SYS_getpid, "getpid", false, {0}},
    {SYS_gettid, "gettid", false, {0}},
    {SYS_tgkill, "tgkill", false, {1, 1, 23}},
    {SYS_rt_sigreturn, "rt_sigreturn", false, {0}},
    {SYS_rt_sigprocmask, "rt_sigprocmask", false, {2, 0, 0, 8}},
    {SYS_clone3, "clone3", true, {0, 88}},
    {SYS_clone, "clone", false, {THREAD_FLAGS}},
    {SYS_set_robust_list, "set_robust_list", true, {0, 24}},
    {334 /* rseq */, "rseq", true, {0, 32, 0, 0x53053053}},
    {SYS_madvise, "madvise", true, {0, 4096, MADV_DONTNEED}},
    {SYS_exit, "exit", false, {0}},
    {SYS_nanosleep, "nanosleep", true, {0}},
    {SYS_futex, "futex", false, {0}},
    {SYS_memfd_create, "memfd_create", true, {0, 0x11}},
    {SYS_fcntl, "fcntl", true, {3, 1030, 500}},
    {SYS_ftruncate, "ftruncate", false, {3, 4096}},
    {SYS_close, "close", true, {3}},
    {SYS_openat, "openat", false, {(uint64_t)-100, 0, 0x80000}},
    {SYS_read, "read", false, {3, 0, 832}},
    {SYS_pread64, "pread64", true, {3, 0, 784}},
    {SYS_newfstatat, "newfstatat", true, {3, 0, 0, 0x1000}},
    {SYS_fstat, "fstat", true, {3}},
    {SYS_membarrier, "membarrier", true, {8}},
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

static void judge_filter(struct seccomp_verdict *verdict, const struct sock_filter *program,
                         size_t length) {
  for (size_t i = 0; i < sizeof needed / sizeof *needed; i++) {
    const struct needed *call = &needed[i];
    const enum seccomp_fate fate =
        fate_of(seccomp_run(program, length, call->number, call->args));
    if (fate > verdict->worst && !(fate == FATE_ERROR && call->dispensable)) {
      verdict->worst = fate;
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
