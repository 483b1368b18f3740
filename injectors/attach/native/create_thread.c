/* Chooses a thread, stops it at a safe point, and makes it call pthread_create. */
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "injection.h"
#include "process.h"
#include "report.h"
#include "safe_point.h"

enum {
  STOP_MS = 50,
  SLEEP_S = 30,
  TRIES_PER_ROUND = 8, /* stops, before the threads are looked at anew */
  ROUNDS_PER_MAP = 16, /* before the mappings are read anew */
  RANKS = 3,
};

/* Why threads were passed over, for the refusal that follows if none will do. */
struct search {
  unsigned verdicts[SAFE_POINT_KINDS];
  unsigned not_stopped, group_stops, uninterrupted, unsuitable, alive;
  bool refused, disturbed;
};

static pid_t tids[MAX_THREADS];

/* Threads that may be stopped, the most promising first: idle ones, so that training is not paused.
 */
static size_t rank_threads(struct injection *injection, struct search *search, pid_t *order) {
  size_t found = 0;
  const size_t count = list_threads(injection->pid, tids, MAX_THREADS);
  static signed char ranks[MAX_THREADS];
  search->alive = search->uninterrupted = search->unsuitable = 0;
  for (size_t i = 0; i < count; i++) {
    const struct thread_view view = view_thread(injection->pid, tids[i]);
    ranks[i] = (signed char)safe_point_rank(&injection->modules, &view);
    search->alive += view.activity != THREAD_GONE;
    search->uninterrupted += view.activity == THREAD_UNINTERRUPTED;
    search->unsuitable += ranks[i] < 0 && view.activity == THREAD_BLOCKED;
  }
  for (int rank = 0; rank < RANKS; rank++) {
    for (size_t i = 0; i < count; i++) {
      if (ranks[i] == rank) {
        order[found++] = tids[i];
      }
    }
  }
  return found;
}

/* A thread with other filters than those that were judged might be killed for what we do. */
static bool has_judged_filters(const struct injection *injection, pid_t tid) {
  return injection->trust_seccomp ||
         status_number(injection->pid, tid, "Seccomp_filters", 10, -1) == injection->filters;
}

/* Who gives up here gives up for good: what the stopped thread was made to do is known to nobody
 * else. */
static void judge_call(struct injection *injection, struct window *window,
                       enum window_result outcome) {
  if (outcome == WINDOW_STUCK) {
    refuse("call_stuck",
           "pthread_create did not return within %d s in thread %d, which goes on by itself when "
           "it does",
           CALL_MS / 1000, window->tid);
  }
  if (outcome == WINDOW_CRASHED) {
    window_close(window);
    refuse("call_failed",
           "pthread_create took signal %d (%s) in thread %d, which was put back to where it was",
           window->fault, strsignal(window->fault), window->tid);
  }
  if (outcome != WINDOW_OK || !window_close(window)) {
    refuse("target_gone", "process %d ended during the attach", injection->pid);
  }
}

/*
 * pthread_create(&scratch, NULL, sleep, 30): the start routine is libc's own sleep, so nothing has
 * to be mapped or written but on the thread's stack, and a thread that we lose ends by itself.
 */
static void call_pthread_create(struct injection *injection, struct window *window,
                                uint64_t since) {
  const uint64_t scratch = window->rescue.scratch;
  const uint64_t args[4] = {scratch, 0, injection->sleep, SLEEP_S};
  const enum window_result outcome = window_call(window, injection->pthread_create, args, CALL_MS);
  read_memory(injection->pid, scratch, &injection->thread, sizeof injection->thread);
  judge_call(injection, window, outcome);
  injection->pause_ns = now_ns() - since;
  injection->tid = window->tid;
}

/* True if the stopped thread did it; it has been let go in either case. */
static bool use_thread(struct injection *injection, struct window *window, struct search *search,
                       uint64_t since) {
  arch_regs regs;
  if (!arch_get_regs(window->tid, &regs)) {
    window_let_go(window);
    return false;
  }
  const enum safe_point verdict =
      safe_point_check(&injection->modules, &injection->gadgets, window->tid, &regs);
  search->verdicts[verdict]++;
  if (verdict != SAFE || !window_open(window, &injection->gadgets, false)) {
    window_let_go(window);
    return false;
  }
  call_pthread_create(injection, window, since);
  return true;
}

/*
 * A realtime priority for the few hundred microseconds of a stop, where we may have one: on a
 * machine that is busy with the target itself, the stopped thread would else wait for our time
 * slice.
 */
static void hurry(bool on) {
  const struct sched_param priority = {.sched_priority = on ? 1 : 0};
  sched_setscheduler(0, on ? SCHED_FIFO | SCHED_RESET_ON_FORK : SCHED_OTHER, &priority);
}

static bool try_thread(struct injection *injection, struct search *search, pid_t tid) {
  static struct window window; /* 40 KiB */
  hurry(true);
  const uint64_t since = now_ns();
  const enum window_result outcome = window_stop(&window, injection->pid, tid, STOP_MS);
  bool done = false;
  if (outcome == WINDOW_OK) {
    injection->stops++;
    done = use_thread(injection, &window, search, since);
  }
  hurry(false);
  search->not_stopped += outcome == WINDOW_NOT_STOPPED;
  search->group_stops += outcome == WINDOW_GROUP_STOP;
  search->refused |= outcome == WINDOW_REFUSED;
  return done;
}

static bool try_round(struct injection *injection, struct search *search) {
  static pid_t order[MAX_THREADS];
  const size_t count = rank_threads(injection, search, order);
  for (size_t i = 0; i < count && i < TRIES_PER_ROUND; i++) {
    if (has_judged_filters(injection, order[i]) && try_thread(injection, search, order[i])) {
      return true;
    }
  }
  return false;
}

__attribute__((noreturn)) static void give_up(const struct injection *injection,
                                              const struct search *search) {
  char text[768];
  if (search->refused && injection->stops == 0) {
    explain_refusal(injection->pid, text, sizeof text);
    refuse("not_permitted", "the kernel does not let us trace process %d: %s", injection->pid,
           text);
  }
  size_t used = append(text, sizeof text, 0,
                       "no thread of process %d could be stopped at a safe point within %.1f s. "
                       "Last look: %u threads, %u in uninterruptible sleep (state D: disk, driver "
                       "or vfork), %u in system calls that must not be interrupted.",
                       injection->pid, injection->timeout_ms / 1e3, search->alive,
                       search->uninterrupted, search->unsuitable);
  for (int kind = SAFE + 1; kind < SAFE_POINT_KINDS; kind++) {
    if (search->verdicts[kind]) {
      used = append(text, sizeof text, used, " %u stops found one %s.", search->verdicts[kind],
                    safe_point_text((enum safe_point)kind));
    }
  }
  if (search->not_stopped) {
    used = append(text, sizeof text, used, " %u times a thread did not stop in time.",
                  search->not_stopped);
  }
  if (search->group_stops) {
    append(text, sizeof text, used, " The process is stopped by a signal.");
  }
  refuse(search->group_stops ? "stopped" : "no_safe_thread", "%s", text);
}

void create_thread(struct injection *injection) {
  struct search search = {0};
  unsigned seed = (unsigned)now_ns();
  for (unsigned round = 1; now_ns() < injection->deadline_ns; round++) {
    if (try_round(injection, &search)) {
      return;
    }
    if (search.alive == 0) {
      refuse("target_gone", "process %d ended during the attach", injection->pid);
    }
    if (round % ROUNDS_PER_MAP == 0 || search.verdicts[UNSAFE_CODE]) {
      search.verdicts[UNSAFE_CODE] = 0;
      modules_free(&injection->modules);
      modules_read(&injection->modules, injection->pid);
    }
    /* Random, so that we do not beat with the target's own rhythm. */
    sleep_us(200 + (unsigned)rand_r(&seed) % 300);
  }
  give_up(injection, &search);
}
