/* Sends the new thread, which sleeps in libc, into the bootstrap. Nothing else in the target is
 * paused. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "injection.h"
#include "process.h"
#include "report.h"

enum { STOP_MS = 2000, POLL_US = 100, STACK_USED = 4 << 20, FIRST_FD = 600, FD_RANGE = 300 };

static bool is_asleep(const struct thread_view *view) {
  return view->activity == THREAD_BLOCKED &&
         (view->number == SYS_nanosleep || view->number == SYS_clock_nanosleep);
}

/* The sleeping thread whose stack pointer is nearest below its descriptor, `thread`. */
static pid_t find_asleep(const struct injection *injection) {
  static pid_t tids[MAX_THREADS];
  const size_t count = list_threads(injection->pid, tids, MAX_THREADS);
  uint64_t nearest = STACK_USED;
  pid_t found = 0;
  for (size_t i = count; i-- > 0;) {
    const struct thread_view view = view_thread(injection->pid, tids[i]);
    const uint64_t distance = injection->thread - view.stack_pointer;
    if (is_asleep(&view) && distance < nearest) {
      nearest = distance;
      found = tids[i];
    }
  }
  return found;
}

/* Stops the new thread. Its thread pointer proves that it is the one. */
static void catch_thread(const struct injection *injection, struct window *window) {
  const uint64_t deadline = now_ns() + CALL_MS * 1000000ull;
  while (injection->thread && now_ns() < deadline) {
    const pid_t tid = find_asleep(injection);
    if (tid && window_stop(window, injection->pid, tid, STOP_MS) == WINDOW_OK) {
      arch_regs regs;
      uint64_t argument;
      if (arch_get_regs(tid, &regs) && arch_thread_pointer(&regs) == injection->thread &&
          arch_syscall_number(&regs, &argument) >= 0) {
        return;
      }
      window_let_go(window);
    }
    sleep_us(POLL_US);
  }
  refuse("thread_failed",
         "pthread_create made no thread in process %d: its limit on threads or memory, or a filter",
         injection->pid);
}

/* Lets the thread end and leaves nothing: it wakes from its sleep, and its start routine returns.
 */
__attribute__((noreturn)) static void end_thread(const struct injection *injection,
                                                 struct window *window, enum window_result outcome,
                                                 const char *what, long result) {
  if (outcome == WINDOW_OK) {
    long ignored;
    const uint64_t page[6] = {injection->page, BOOT_SIZE};
    const uint64_t thread[4] = {injection->thread};
    if (injection->page) {
      window_syscall(window, SYS_munmap, page, CALL_MS, &ignored);
    }
    window_call(window, injection->pthread_detach, thread, CALL_MS);
  }
  if (outcome != WINDOW_STUCK && outcome != WINDOW_GONE) {
    window_close(window);
  }
  refuse("call_failed", "%s failed in a new thread of process %d: %s", what, injection->pid,
         outcome == WINDOW_OK ? strerror((int)labs(result)) : window_text(outcome));
}

static long remote(const struct injection *injection, struct window *window, const char *what,
                   long number, const uint64_t args[6]) {
  long result = 0;
  const enum window_result outcome = window_syscall(window, number, args, CALL_MS, &result);
  if (outcome != WINDOW_OK || (result < 0 && result > -4096)) {
    end_thread(injection, window, outcome, what, result);
  }
  return result;
}

static struct gputap_boot make_boot(const struct injection *injection) {
  return (struct gputap_boot){
      .page = (void *)injection->page,
      .page_size = BOOT_SIZE,
      .munmap = (int (*)(void *, size_t))injection->munmap,
      .pthread_detach = (int (*)(uint64_t))injection->pthread_detach,
      .dlerror = (char *(*)(void))injection->dlerror,
      .resident_enter = (int (*)(struct gputap_enter *))injection->resident_enter,
      .thread = injection->thread,
      .state = BOOT_STARTED,
      /* Longer than we live: who waits in vain for that long waits for a dead injector. */
      .patience = injection->timeout_ms + 5000,
      .lowest_fd = FIRST_FD + (int)(now_ns() / 1000 % FD_RANGE),
      .memfd_name = "gputap-agent",
      .enter_name = "gputap_agent_enter",
      .enter =
          {
              .size = sizeof(struct gputap_enter),
              .dlsym = (void *(*)(void *, const char *))injection->dlsym,
              .dlopen = (void *(*)(const char *, int))injection->dlopen,
              .pthread_create = (int (*)(void *, const void *, void *(*)(void *),
                                         void *))injection->pthread_create,
              .ring_count = injection->ring_count,
              .ring_capacity = injection->ring_capacity,
              .control_fd = -ENODATA,
          },
  };
}

/* Two pages: code, made executable once it is no longer writable, and data. */
static void place_boot(struct injection *injection, struct window *window) {
  const size_t code_size = (size_t)(__stop_gputap_boot - __start_gputap_boot);
  const uint64_t wanted[6] = {0,     BOOT_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                              ~0ull, 0};
  injection->page = (uint64_t)remote(injection, window, "mmap", SYS_mmap, wanted);
  const struct gputap_boot boot = make_boot(injection);
  if (!write_memory(injection->pid, injection->page, __start_gputap_boot, code_size) ||
      !write_memory(injection->pid, injection->page + BOOT_PAGE, &boot, sizeof boot)) {
    end_thread(injection, window, WINDOW_OK, "writing the bootstrap", EFAULT);
  }
  const uint64_t sealed[6] = {injection->page, BOOT_PAGE, PROT_READ | PROT_EXEC};
  remote(injection, window, "making memory executable (mprotect)", SYS_mprotect, sealed);
}

void start_boot(struct injection *injection) {
  static struct window window; /* 40 KiB */
  catch_thread(injection, &window);
  if (!window_open(&window, &injection->gadgets, true)) {
    window_let_go(&window);
    refuse("call_failed", "the stack of a new thread of process %d cannot be written",
           injection->pid);
  }
  place_boot(injection, &window);
  const uint64_t entry = injection->page + (uint64_t)(gputap_boot_entry - __start_gputap_boot);
  if (!window_send(&window, entry, injection->page + BOOT_PAGE)) {
    refuse("target_gone", "process %d ended during the attach", injection->pid);
  }
}
