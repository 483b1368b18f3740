/* Chooses a thread, stops it at a safe point, and makes it call pthread_create on the bootstrap. */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "injection.h"
#include "process.h"
#include "report.h"
#include "safe_point.h"

enum {
  MAX_THREADS = 4096,
  STOP_MS = 50,
  CALL_MS = 3000,
  TRIES_PER_ROUND = 8,   /* stops, before the threads are looked at anew */
  ROUNDS_PER_MAP = 16,   /* before the mappings are read anew */
  BEST_RANKS = 3,
};

/* Why threads were passed over, for the refusal that follows if none will do. */
struct search {
  unsigned verdicts[SAFE_POINT_KINDS];
  unsigned not_stopped, group_stops, uninterrupted, unsuitable, threads;
  bool refused, disturbed;
};

static pid_t tids[MAX_THREADS];

/* Threads that may be stopped, the most promising first: idle ones, so that training is not paused. */
static size_t rank_threads(struct injection *injection, struct search *search, pid_t *order) {
  size_t found = 0;
  const size_t count = list_threads(injection->pid, tids, MAX_THREADS);
  static signed char ranks[MAX_THREADS];
  search->threads = (unsigned)count;
  search->uninterrupted = search->unsuitable = 0;
  for (size_t i = 0; i < count; i++) {
    const struct thread_view view = view_thread(injection->pid, tids[i]);
    ranks[i] = (signed char)safe_point_rank(&injection->modules, &view);
    search->uninterrupted += view.activity == THREAD_UNINTERRUPTED;
    search->unsuitable += ranks[i] < 0 && view.activity == THREAD_BLOCKED;
  }
  for (int rank = 0; rank < BEST_RANKS; rank++) {
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

static bool remote_failed(struct injection *injection, struct window *window,
                          enum window_result outcome, const char *what, long result) {
  if (outcome == WINDOW_STUCK) {
    /* Nobody may touch the thread now; it restores itself when the call returns. */
    refuse("call_stuck", "%s did not return within %d s in thread %d; the thread goes on by itself when it does",
           what, CALL_MS / 1000, window->tid);
  }
  if (outcome == WINDOW_GONE) {
    refuse("target_gone", "process %d ended during the attach", injection->pid);
  }
  window_close(window);
  if (outcome == WINDOW_CRASHED) {
    refuse("call_failed", "%s took signal %d (%s) in thread %d; the thread was put back to where it was",
           what, window->fault, strsignal(window->fault), window->tid);
  }
  refuse("call_failed", "%s failed in the target: %s", what, strerror((int)labs(result)));
}

static void remote_syscall(struct injection *injection, struct window *window, const char *what,
                           long number, const uint64_t args[6], long *result) {
  const enum window_result outcome = window_syscall(window, number, args, CALL_MS, result);
  if (outcome != WINDOW_OK || (*result < 0 && *result > -4096)) {
    remote_failed(injection, window, outcome, what, *result);
  }
}

static void unmap(struct window *window, uint64_t page) {
  long result;
  window_syscall(window, SYS_munmap, (uint64_t[6]){page, BOOT_SIZE}, CALL_MS, &result);
}

static uint64_t in_page(uint64_t page, const unsigned char *code) {
  return page + (uint64_t)(code - __start_gputap_boot);
}

static struct gputap_boot make_boot(const struct injection *injection, uint64_t page) {
  struct gputap_boot boot = {
      .page = (void *)page,
      .page_size = BOOT_SIZE,
      .munmap = (int (*)(void *, size_t))injection->munmap,
      .pthread_detach = (int (*)(uint64_t))injection->pthread_detach,
      .dlerror = (char *(*)(void))injection->dlerror,
      .resident_enter = (int (*)(struct gputap_enter *))injection->resident_enter,
      .state = BOOT_HELD,
      /* Longer than we live ourselves: who waits in vain for that long waits for a dead injector. */
      .patience = (uint32_t)((injection->timeout_ms + 5000ull) * 1000000 / BOOT_TURN_NS),
      .lowest_fd = 600 + (int)(now_ns() / 1000 % 300),
      .memfd_name = "gputap-agent",
      .enter_name = "gputap_agent_enter",
      .enter = {.size = sizeof boot.enter,
                .dlsym = (void *(*)(void *, const char *))injection->dlsym,
                .dlopen = (void *(*)(const char *, int))injection->dlopen,
                .pthread_create = (int (*)(void *, const void *, void *(*)(void *),
                                           void *))injection->pthread_create,
                .ring_count = injection->ring_count,
                .ring_capacity = injection->ring_capacity,
                .control_fd = -ENODATA},
  };
  return boot;
}

/* Two pages: code, made executable once it is no longer writable, and data. */
static void place_boot(struct injection *injection, struct window *window) {
  const size_t code_size = (size_t)(__stop_gputap_boot - __start_gputap_boot);
  const uint64_t wanted[6] = {0, BOOT_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, ~0ull, 0};
  long result;
  remote_syscall(injection, window, "mmap", SYS_mmap, wanted, &result);
  injection->page = (uint64_t)result;
  const struct gputap_boot boot = make_boot(injection, injection->page);
  if (!write_memory(injection->pid, injection->page, __start_gputap_boot, code_size) ||
      !write_memory(injection->pid, injection->page + BOOT_PAGE, &boot, sizeof boot)) {
    unmap(window, injection->page);
    remote_failed(injection, window, WINDOW_OK, "writing the bootstrap", EFAULT);
  }
  const uint64_t sealed[6] = {injection->page, BOOT_PAGE, PROT_READ | PROT_EXEC};
  const enum window_result outcome = window_syscall(window, SYS_mprotect, sealed, CALL_MS, &result);
  if (outcome != WINDOW_OK || result != 0) {
    if (outcome == WINDOW_OK) {
      unmap(window, injection->page);
    }
    remote_failed(injection, window, outcome, "making the bootstrap executable (mprotect)", result);
  }
}

static void start_boot(struct injection *injection, struct window *window) {
  const uint64_t data = injection->page + BOOT_PAGE;
  const uint64_t args[4] = {data + offsetof(struct gputap_boot, thread), 0,
                            in_page(injection->page, gputap_boot_entry), data};
  long result = 0;
  const enum window_result outcome =
      window_call(window, injection->pthread_create, args,
                  in_page(injection->page, gputap_boot_return), CALL_MS, &result);
  if (outcome == WINDOW_OK && result == 0) {
    return;
  }
  if (outcome == WINDOW_OK || outcome == WINDOW_CRASHED) {
    unmap(window, injection->page);
  }
  remote_failed(injection, window, outcome, "pthread_create", result);
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
  if (verdict != SAFE || !window_open(window, &injection->gadgets)) {
    window_let_go(window);
    return false;
  }
  place_boot(injection, window);
  start_boot(injection, window);
  const bool closed = window_close(window);
  injection->pause_ns = now_ns() - since;
  injection->tid = window->tid;
  if (!closed) {
    refuse("target_gone", "process %d ended during the attach", injection->pid);
  }
  return true;
}

/*
 * A realtime priority for the few hundred microseconds of a stop, where we may have one: on a machine
 * that is busy with the target itself, the stopped thread would else wait for our time slice.
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
  if (search->threads == 0) {
    refuse("target_gone", "process %d ended during the attach", injection->pid);
  }
  if (search->refused && injection->stops == 0) {
    explain_refusal(injection->pid, text, sizeof text);
    refuse("not_permitted", "the kernel does not let us trace process %d: %s", injection->pid,
           text);
  }
  size_t used = append(text, sizeof text, 0, "no thread of process %d could be stopped at a safe point within %.1f s. Last look: %u threads, %u in uninterruptible sleep (state D: disk, driver or vfork), %u in system calls that must not be interrupted.",
                       injection->pid, injection->timeout_ms / 1e3, search->threads,
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
