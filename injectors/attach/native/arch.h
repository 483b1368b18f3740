/* What depends on the processor. One arch_<machine>.c and one boot_<machine>.S per architecture. */
#ifndef GPUTAP_ARCH_H
#define GPUTAP_ARCH_H

#include <elf.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/user.h>

#if defined(__x86_64__)
#define ARCH_ELF_MACHINE EM_X86_64
#define ARCH_NAME "x86-64"
#define ARCH_LOADER "ld-linux-x86-64.so.2"
#define ARCH_AUDIT 0xc000003eu /* AUDIT_ARCH_X86_64 */
#define ARCH_VECTOR_MAX 16384  /* XSAVE area; 11,008 bytes with AMX */
typedef struct user_regs_struct arch_regs;
#else
#error "gputap-inject is not ported to this architecture yet"
#endif

/* Everything of a thread that we change, and how it was. */
struct arch_state {
  arch_regs regs;
  uint64_t signal_mask;
  size_t vector_size;
  unsigned char vector[ARCH_VECTOR_MAX] __attribute__((aligned(64)));
};

/* Existing instructions in the target's libc. Its text is never modified. */
struct arch_gadgets {
  uint64_t syscall_return; /* a system call instruction followed by a return */
  uint64_t sigreturn;      /* libc's signal restorer: calls rt_sigreturn */
  uint64_t pop_argument;   /* takes the first argument from the stack, then returns */
  uint64_t just_return;    /* a return and nothing else */
  uint64_t raise;          /* libc's raise() */
};

/*
 * What gets written below the thread's stack pointer while it works for us, from low to high:
 * a slide of returns that ends in raise(SIGURG), a signal frame, the vector state, a word of
 * scratch.
 *
 * A function called at `call_sp` returns into the slide, so the thread stops with SIGURG at a stack
 * pointer above `call_sp`, where the function itself can never be. SIGURG and not a breakpoint,
 * because it is ignored by default: if we have died meanwhile, nothing stops the thread, and it
 * goes on into rt_sigreturn. A system call made at `frame_sp` returns straight into rt_sigreturn.
 */
struct arch_rescue {
  uint64_t call_sp, frame_sp, scratch;
  size_t size;
  unsigned char bytes[ARCH_VECTOR_MAX + 4096]; /* from call_sp on */
};

bool arch_get_regs(pid_t tid, arch_regs *regs);
bool arch_set_regs(pid_t tid, const arch_regs *regs);
bool arch_save(pid_t tid, struct arch_state *state);
bool arch_restore(pid_t tid, const struct arch_state *state);

uint64_t arch_pc(const arch_regs *regs);
uint64_t arch_sp(const arch_regs *regs);
uint64_t arch_thread_pointer(const arch_regs *regs);
/* System call that the thread was stopped in, -1 if none, and its first argument. */
long arch_syscall_number(const arch_regs *regs, uint64_t *first_argument);
/* Result of the system call or function that was made to run. */
long arch_syscall_result(const arch_regs *regs);

bool arch_find_gadgets(const unsigned char *text, size_t size, uint64_t at,
                       struct arch_gadgets *gadgets);

/* True if `words` (ARCH_FRAME_WORDS of them, from the stack) begin a signal frame of the kernel. */
enum { ARCH_FRAME_WORDS = 24 };
bool arch_is_signal_frame(const uint64_t *words, const struct arch_gadgets *gadgets);

/*
 * Builds the way back to `state`, which the thread takes by itself if it loses us. A blocking
 * system call that it was stopped in is then begun anew.
 */
bool arch_make_rescue(const struct arch_state *state, const struct arch_gadgets *gadgets,
                      struct arch_rescue *rescue);

/* Makes the interrupted system call look successful, and blocks all signals. */
void arch_finish_syscall(struct arch_state *state);

/* Registers for one system call, or for a call of function(a, b, c, d) with the given stack
 * pointer. */
arch_regs arch_syscall_regs(const struct arch_state *state, const struct arch_gadgets *gadgets,
                            const struct arch_rescue *rescue, long number, const uint64_t args[6]);
arch_regs arch_call_regs(const struct arch_state *state, uint64_t sp, uint64_t function,
                         const uint64_t args[4]);
/* Registers with which the thread does nothing but restore itself. */
arch_regs arch_idle_regs(const struct arch_state *state, const struct arch_gadgets *gadgets,
                         const struct arch_rescue *rescue);

#endif
