/*
 * The window: the fraction of a millisecond in which one thread of the target works for us.
 *
 *   window_stop -> safe_point_check -> window_open -> window_call -> window_close
 *
 * Whatever becomes of us in between, the thread finds its own way back: window_open puts a signal
 * frame on its stack, and everything it does for us returns into rt_sigreturn on that frame. So
 * SIGKILL to the injector at any instant leaves the target running; so does giving up on a call
 * that does not return. No function here allocates memory.
 */
#ifndef GPUTAP_WINDOW_H
#define GPUTAP_WINDOW_H

#include "arch.h"

enum window_result {
  WINDOW_OK,
  WINDOW_NOT_STOPPED, /* in time; the request is withdrawn when we end */
  WINDOW_HAD_SIGNAL,  /* stopped for something else, and let go with it */
  WINDOW_GROUP_STOP,  /* the target is stopped by SIGSTOP or the like */
  WINDOW_REFUSED,     /* ptrace said no, see errno */
  WINDOW_GONE,        /* the thread ended */
  WINDOW_CRASHED,     /* the thread took a fault while working for us */
  WINDOW_STUCK,       /* a call did not return in time */
};

struct window {
  pid_t pid, tid;
  const struct arch_gadgets *gadgets;
  int fault; /* signal, with WINDOW_CRASHED */
  struct arch_state saved;
  struct arch_rescue rescue;
};

/* Once per run: blocks our signals, so that no Ctrl-C lands in a window. */
void window_prepare(void);

enum window_result window_stop(struct window *window, pid_t pid, pid_t tid, unsigned timeout_ms);
/* Lets a stopped thread go as it is. */
void window_let_go(struct window *window);

/* Saves the thread's state and makes it ours. False if that is impossible; the thread is unchanged.
   With `finish`, the system call that it was stopped in will have succeeded when it comes back. */
bool window_open(struct window *window, const struct arch_gadgets *gadgets, bool finish);
enum window_result window_syscall(struct window *window, long number, const uint64_t args[6],
                                  unsigned timeout_ms, long *result);
/* Calls function(args), up to its return. What it returns is lost; it may write to rescue.scratch.
 */
enum window_result window_call(struct window *window, uint64_t function, const uint64_t args[4],
                               unsigned timeout_ms);
/* Gives the thread its state back and lets it go. */
bool window_close(struct window *window);
/* Lets the thread go into function(argument) and, when that returns, back to where it was. */
bool window_send(struct window *window, uint64_t function, uint64_t argument);

const char *window_text(enum window_result result);

#endif
