#include <cpuid.h>
#include <signal.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>

#include "arch.h"

enum {
  RED_ZONE = 128,
  SLIDE = 256, /* words; more than raise() needs of stack */
  USER_CS = 0x33,
  DIRECTION_FLAG = 0x400,
  /* <asm/sigcontext.h>, <asm/ucontext.h> */
  MAGIC1 = 0x46505853,
  MAGIC2 = 0x46505845,
  UC_FP_XSTATE = 1,
  UC_SIGCONTEXT_SS = 2,
  UC_STRICT_RESTORE_SS = 4,
  SW_RESERVED = 464, /* within the FXSAVE image */
  XSAVE_HEADER = 512,
  TILE_DATA = 18, /* the one component that a process has to ask for */
  /* in-kernel errno values that a stop makes visible */
  RESTART_SYS = 512,
  RESTART_BLOCK = 516,
};

/* struct rt_sigframe of the kernel, without siginfo: rt_sigreturn does not read it. */
struct signal_frame {
  uint64_t restorer;
  uint64_t uc_flags, uc_link;
  uint64_t stack_pointer;
  uint32_t stack_flags, stack_pad;
  uint64_t stack_size;
  uint64_t r8, r9, r10, r11, r12, r13, r14, r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip;
  uint64_t eflags;
  uint16_t cs, gs, fs, ss;
  uint64_t err, trapno, oldmask, cr2;
  uint64_t fpstate;
  uint64_t reserved[8];
  uint64_t mask;
};
_Static_assert(offsetof(struct signal_frame, cs) == 8 * 24, "layout of the kernel's frame");
_Static_assert(offsetof(struct signal_frame, mask) == 8 * 38, "layout of the kernel's frame");

struct software_bytes {
  uint32_t magic1, extended_size;
  uint64_t features;
  uint32_t xstate_size, padding[7];
};

bool arch_get_regs(pid_t tid, arch_regs *regs) { return ptrace(PTRACE_GETREGS, tid, 0, regs) == 0; }

bool arch_set_regs(pid_t tid, const arch_regs *regs) {
  return ptrace(PTRACE_SETREGS, tid, 0, regs) == 0;
}

bool arch_save(pid_t tid, struct arch_state *state) {
  struct iovec vector = {state->vector, sizeof state->vector};
  if (!arch_get_regs(tid, &state->regs) ||
      ptrace(PTRACE_GETSIGMASK, tid, sizeof state->signal_mask, &state->signal_mask) != 0 ||
      ptrace(PTRACE_GETREGSET, tid, NT_X86_XSTATE, &vector) != 0) {
    return false;
  }
  state->vector_size = vector.iov_len;
  return true;
}

bool arch_restore(pid_t tid, const struct arch_state *state) {
  struct iovec vector = {(void *)state->vector, state->vector_size};
  /* Registers last: until then a thread that we lose falls into its rescue frame. */
  return ptrace(PTRACE_SETREGSET, tid, NT_X86_XSTATE, &vector) == 0 &&
         ptrace(PTRACE_SETSIGMASK, tid, sizeof state->signal_mask, &state->signal_mask) == 0 &&
         arch_set_regs(tid, &state->regs);
}

uint64_t arch_pc(const arch_regs *regs) { return regs->rip; }
uint64_t arch_sp(const arch_regs *regs) { return regs->rsp; }
uint64_t arch_thread_pointer(const arch_regs *regs) { return regs->fs_base; }

long arch_syscall_number(const arch_regs *regs, uint64_t *first_argument) {
  *first_argument = regs->rdi;
  return (long)regs->orig_rax;
}

long arch_syscall_result(const arch_regs *regs) { return (long)regs->rax; }

bool arch_find_gadgets(const unsigned char *text, size_t size, uint64_t at,
                       struct arch_gadgets *gadgets) {
  static const unsigned char syscall_return[] = {0x0f, 0x05, 0xc3};
  static const unsigned char sigreturn[] = {0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05};
  static const unsigned char pop_argument[] = {0x5f, 0xc3};
  const unsigned char *found = memmem(text, size, syscall_return, sizeof syscall_return);
  if (found && !gadgets->syscall_return) {
    gadgets->syscall_return = at + (uint64_t)(found - text);
  }
  found = memmem(text, size, sigreturn, sizeof sigreturn);
  if (found && !gadgets->sigreturn) {
    gadgets->sigreturn = at + (uint64_t)(found - text);
  }
  found = memmem(text, size, pop_argument, sizeof pop_argument);
  if (found && !gadgets->pop_argument) {
    gadgets->pop_argument = at + (uint64_t)(found - text);
    gadgets->just_return = gadgets->pop_argument + 1;
  }
  return gadgets->syscall_return && gadgets->sigreturn && gadgets->pop_argument;
}

bool arch_is_signal_frame(const uint64_t *words, const struct arch_gadgets *gadgets) {
  const struct signal_frame *frame = (const struct signal_frame *)(const void *)words;
  _Static_assert(ARCH_FRAME_WORDS * 8 == offsetof(struct signal_frame, cs), "words that are read");
  return frame->restorer == gadgets->sigreturn && frame->uc_flags < 8 && frame->uc_link == 0;
}

/* Bytes of the vector state that the kernel takes back from a signal frame of this thread. */
static uint32_t frame_vector_size(const struct arch_state *state) {
  uint64_t in_use;
  unsigned size, offset, ecx, edx;
  memcpy(&in_use, state->vector + XSAVE_HEADER, sizeof in_use);
  if (!(in_use >> TILE_DATA & 1) && __get_cpuid_count(0xd, TILE_DATA, &size, &offset, &ecx, &edx) &&
      size && offset < state->vector_size) {
    return offset;
  }
  return (uint32_t)state->vector_size;
}

static void make_vector(const struct arch_state *state, unsigned char *to, uint32_t size) {
  const uint32_t magic2 = MAGIC2;
  struct software_bytes software = {
      .magic1 = MAGIC1, .extended_size = size + 4, .xstate_size = size};
  /* ptrace keeps the set of enabled components where the frame has its magic. */
  memcpy(&software.features, state->vector + SW_RESERVED, sizeof software.features);
  if (size < state->vector_size) {
    software.features &= ~(1ull << TILE_DATA);
  }
  memcpy(to, state->vector, size);
  memcpy(to + SW_RESERVED, &software, sizeof software);
  memcpy(to + size, &magic2, sizeof magic2);
}

/* Registers as the kernel would leave them on the way back from the stop. */
static arch_regs resumed(const struct arch_state *state) {
  arch_regs regs = state->regs;
  const long result = (long)regs.rax;
  if ((long)regs.orig_rax >= 0 && result <= -RESTART_SYS && result >= -RESTART_BLOCK) {
    /* Begun anew with its whole timeout. A call that an earlier stop had turned into
       restart_syscall cannot be: it answers EINTR. */
    regs.rax = regs.orig_rax;
    regs.rip -= 2; /* the system call instruction again */
  }
  return regs;
}

static void make_context(struct signal_frame *frame, const arch_regs *regs) {
  frame->r8 = regs->r8, frame->r9 = regs->r9, frame->r10 = regs->r10, frame->r11 = regs->r11;
  frame->r12 = regs->r12, frame->r13 = regs->r13, frame->r14 = regs->r14, frame->r15 = regs->r15;
  frame->rdi = regs->rdi, frame->rsi = regs->rsi, frame->rbp = regs->rbp, frame->rbx = regs->rbx;
  frame->rdx = regs->rdx, frame->rax = regs->rax, frame->rcx = regs->rcx, frame->rsp = regs->rsp;
  frame->rip = regs->rip, frame->eflags = regs->eflags;
  frame->cs = (uint16_t)regs->cs, frame->ss = (uint16_t)regs->ss;
}

static void make_slide(const struct arch_gadgets *gadgets, uint64_t slide[SLIDE]) {
  for (int i = 0; i < SLIDE - 3; i++) {
    slide[i] = gadgets->just_return;
  }
  slide[SLIDE - 3] = gadgets->pop_argument;
  slide[SLIDE - 2] = SIGURG;
  slide[SLIDE - 1] = gadgets->raise; /* which returns to the restorer, the frame's first word */
}

bool arch_make_rescue(const struct arch_state *state, const struct arch_gadgets *gadgets,
                      struct arch_rescue *rescue) {
  const uint32_t vector_size = frame_vector_size(state);
  const uint64_t top = (state->regs.rsp - RED_ZONE - 16) & ~7ull;
  const uint64_t vector_at = (top - vector_size - sizeof(uint32_t)) & ~63ull;
  /* At a function's first instruction the stack pointer is 8 below a multiple of 16: so here, too.
   */
  const uint64_t frame_at = ((vector_at - sizeof(struct signal_frame)) & ~15ull) - 8;
  const uint64_t slide_at = frame_at - SLIDE * sizeof(uint64_t);
  const arch_regs regs = resumed(state);
  struct signal_frame frame = {
      .restorer = gadgets->sigreturn,
      .uc_flags = UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS,
      .stack_flags = 0x7fffffff, /* invalid on purpose: the kernel then leaves sigaltstack alone */
      .fpstate = vector_at,
      .mask = state->signal_mask,
  };
  rescue->call_sp = slide_at;
  rescue->frame_sp = frame_at;
  rescue->scratch = top;
  rescue->size = top + sizeof(uint64_t) - slide_at;
  if (rescue->size > sizeof rescue->bytes) {
    return false;
  }
  make_context(&frame, &regs);
  memset(rescue->bytes, 0, rescue->size);
  make_slide(gadgets, (uint64_t *)(void *)rescue->bytes);
  memcpy(rescue->bytes + (frame_at - slide_at), &frame, sizeof frame);
  make_vector(state, rescue->bytes + (vector_at - slide_at), vector_size);
  return true;
}

void arch_finish_syscall(struct arch_state *state) {
  state->regs.rax = 0;
  state->regs.orig_rax = (uint64_t)-1;
  state->signal_mask = ~0ull;
}

static arch_regs working_regs(const struct arch_state *state, uint64_t sp, uint64_t pc) {
  arch_regs regs = state->regs;
  regs.rip = pc;
  regs.rsp = sp;
  regs.orig_rax = (uint64_t)-1; /* or the kernel would restart the interrupted system call */
  regs.eflags &= ~(uint64_t)DIRECTION_FLAG;
  return regs;
}

arch_regs arch_syscall_regs(const struct arch_state *state, const struct arch_gadgets *gadgets,
                            const struct arch_rescue *rescue, long number, const uint64_t args[6]) {
  arch_regs regs = working_regs(state, rescue->frame_sp, gadgets->syscall_return);
  regs.rax = (uint64_t)number;
  regs.rdi = args[0], regs.rsi = args[1], regs.rdx = args[2];
  regs.r10 = args[3], regs.r8 = args[4], regs.r9 = args[5];
  return regs;
}

arch_regs arch_call_regs(const struct arch_state *state, uint64_t sp, uint64_t function,
                         const uint64_t args[4]) {
  arch_regs regs = working_regs(state, sp, function);
  regs.rax = 0;
  regs.rdi = args[0], regs.rsi = args[1], regs.rdx = args[2], regs.rcx = args[3];
  return regs;
}

arch_regs arch_idle_regs(const struct arch_state *state, const struct arch_gadgets *gadgets,
                         const struct arch_rescue *rescue) {
  /* As if a system call at frame_sp had just returned. */
  return working_regs(state, rescue->frame_sp + 8, gadgets->sigreturn);
}
