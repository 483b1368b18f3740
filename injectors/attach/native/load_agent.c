/* The handshake with the bootstrap thread, while the target runs: hands it the library, awaits the
 * answer. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "injection.h"
#include "process.h"
#include "report.h"

static const char *const directories[] = {"tmp", "dev/shm", "var/tmp"};
enum { DIRECTORIES = sizeof directories / sizeof *directories, POLL_US = 100 };

/* A copy of the library in the target's file system, for targets that cannot load it from a memfd.
 */
struct copy {
  int directory; /* descriptor, -1 if there is no copy */
  char name[40];
  unsigned next; /* index in `directories` */
};

static uint64_t boot_field(const struct injection *injection, size_t offset) {
  return injection->page + BOOT_PAGE + offset;
}

static void say(const struct injection *injection, uint32_t state) {
  write_memory(injection->pid, boot_field(injection, offsetof(struct gputap_boot, state)), &state,
               sizeof state);
}

/* The bootstrap's next state after `last`, and a copy of its page. */
static uint32_t await_change(const struct injection *injection, uint32_t last,
                             struct gputap_boot *boot) {
  for (;;) {
    if (!read_memory(injection->pid, boot_field(injection, 0), boot, sizeof *boot)) {
      refuse("target_gone", "process %d ended while the agent was being loaded", injection->pid);
    }
    if (boot->state != last) {
      return boot->state;
    }
    if (now_ns() > injection->deadline_ns) {
      refuse("load_timeout",
             "the agent's thread runs in process %d, but did not finish loading within %.1f s: "
             "another thread may hold the loader's lock, or the process is starved of CPU. It ends "
             "by itself",
             injection->pid, injection->timeout_ms / 1e3);
    }
    sleep_us(POLL_US);
  }
}

static bool write_library(const struct injection *injection, int fd) {
  size_t written = 0;
  while (written < injection->library_size) {
    const ssize_t n = write(fd, injection->library + written, injection->library_size - written);
    if (n <= 0) {
      return false;
    }
    written += (size_t)n;
  }
  return true;
}

static void offer(const struct injection *injection, const char *path) {
  char field[sizeof((struct gputap_boot *)0)->path];
  snprintf(field, sizeof field, "%s", path);
  write_memory(injection->pid, boot_field(injection, offsetof(struct gputap_boot, path)), field,
               sizeof field);
  say(injection, BOOT_FILE_READY);
}

/* Fills the thread's memfd. The path names thread and number, so that no library loaded earlier has
   the same: glibc would return that one. */
static bool offer_memfd(const struct injection *injection, const struct gputap_boot *boot) {
  char path[96];
  if (boot->memfd < 0) {
    return false;
  }
  snprintf(path, sizeof path, "/proc/%d/fd/%d", injection->pid, boot->memfd);
  const int fd = open(path, O_WRONLY | O_CLOEXEC);
  const bool filled = fd >= 0 && write_library(injection, fd);
  if (fd >= 0) {
    close(fd);
  }
  if (filled) {
    snprintf(path, sizeof path, "/proc/self/task/%d/fd/%d", boot->tid, boot->memfd);
    offer(injection, path);
  }
  return filled;
}

/* Opens a directory of the target's, part by part and never through a link: a target must not be
   able to lead a privileged gputap elsewhere. */
static int open_inside(pid_t pid, const char *directory) {
  char path[64], parts[64];
  snprintf(path, sizeof path, "/proc/%d/root", pid);
  snprintf(parts, sizeof parts, "%s", directory);
  int at = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
  char *rest = NULL;
  for (char *part = strtok_r(parts, "/", &rest); part && at >= 0;
       part = strtok_r(NULL, "/", &rest)) {
    const int next = openat(at, part, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    close(at);
    at = next;
  }
  return at;
}

static bool write_copy(const struct injection *injection, struct copy *copy) {
  unsigned long long random;
  if (getrandom(&random, sizeof random, 0) != sizeof random) {
    random = now_ns();
  }
  snprintf(copy->name, sizeof copy->name, ".gputap-agent-%016llx.so", random);
  const int fd = openat(copy->directory, copy->name,
                        O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0500);
  if (fd < 0) {
    return false;
  }
  const long long uid = status_number(injection->pid, injection->pid, "Uid", 10, -1);
  const bool readable = uid == (long long)geteuid() || fchown(fd, (uid_t)uid, (gid_t)-1) == 0;
  const bool written = readable && write_library(injection, fd);
  close(fd);
  return written;
}

static void remove_copy(struct copy *copy) {
  if (copy->directory >= 0) {
    unlinkat(copy->directory, copy->name, 0);
    close(copy->directory);
    copy->directory = -1;
  }
}

static bool offer_copy(const struct injection *injection, struct copy *copy) {
  remove_copy(copy);
  while (copy->next < DIRECTORIES) {
    const char *directory = directories[copy->next++];
    copy->directory = open_inside(injection->pid, directory);
    if (copy->directory >= 0 && write_copy(injection, copy)) {
      char path[128];
      snprintf(path, sizeof path, "/%s/%s", directory, copy->name);
      offer(injection, path);
      return true;
    }
    remove_copy(copy);
  }
  return false;
}

__attribute__((noreturn)) static void refuse_load(const struct injection *injection,
                                                  const struct gputap_boot *boot) {
  char reason[sizeof boot->error + 1] = {0};
  memcpy(reason, boot->error, sizeof boot->error);
  if (!*reason && boot->memfd < 0) {
    snprintf(reason, sizeof reason, "memfd_create: %s, and no directory for temporary files",
             strerror(-boot->memfd));
  }
  refuse("load_failed", "process %d could not load the agent: %s", injection->pid, reason);
}

static void finish(struct injection *injection, const struct gputap_boot *boot) {
  say(injection, BOOT_READ);
  if (boot->status != 0) {
    refuse("agent_failed", "the agent is loaded in process %d but did not start: %s",
           injection->pid, strerror(-boot->status));
  }
  injection->control_fd = boot->enter.control_fd;
}

void load_agent(struct injection *injection) {
  struct gputap_boot boot;
  struct copy copy = {.directory = -1};
  bool offered;
  uint32_t state = await_change(injection, BOOT_STARTED, &boot);
  while (state == BOOT_NEEDS_FILE || state == BOOT_LOAD_FAILED) {
    offered =
        (state == BOOT_NEEDS_FILE && offer_memfd(injection, &boot)) || offer_copy(injection, &copy);
    if (!offered) {
      say(injection, BOOT_GIVE_UP);
      remove_copy(&copy);
      refuse_load(injection, &boot);
    }
    state = await_change(injection, BOOT_FILE_READY, &boot);
  }
  remove_copy(&copy);
  finish(injection, &boot);
}
