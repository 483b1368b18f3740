/* What can be known before anything is touched: is there such a process, may we, is it of a kind
 * that works. */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "injection.h"
#include "process.h"
#include "report.h"
#include "seccomp.h"

enum { STOP_MS = 200, PASSING_MS = 2000, POLL_US = 1000 };

static void check_exists(pid_t pid) {
  char state[64];
  const long long group = status_number(pid, pid, "Tgid", 10, -1);
  if (group < 0) {
    char path[64], text[64];
    snprintf(path, sizeof path, "/proc/%d/status", pid);
    if (read_file(path, text, sizeof text) > 0) {
      /* /proc/TID is there for every thread, but only a process has itself among its tasks. */
      refuse("thread", "%d is a thread, not a process", pid);
    }
    refuse("no_process", "there is no process %d", pid);
  }
  if (group != pid) {
    refuse("thread", "%d is a thread of process %lld", pid, group);
  }
  status_field(pid, pid, "State", state, sizeof state);
  if (state[0] == 'Z' || state[0] == 'X') {
    refuse("zombie", "process %d has ended; only its exit code is left", pid);
  }
  if (state[0] == 'T') {
    refuse("stopped", "process %d is stopped by a signal", pid);
  }
  if (status_number(pid, pid, "VmSize", 10, -1) < 0) {
    refuse("kernel_thread", "%d is a thread of the kernel", pid);
  }
}

/* An injector is through within milliseconds; one outlives a gputap that was killed. */
static void check_tracer(pid_t pid) {
  const uint64_t deadline = now_ns() + PASSING_MS * 1000000ull;
  long long tracer;
  while ((tracer = status_number(pid, pid, "TracerPid", 10, 0)) > 0) {
    char name[64];
    if (!status_field((pid_t)tracer, (pid_t)tracer, "Name", name, sizeof name)) {
      snprintf(name, sizeof name, "?");
    }
    if (strcmp(name, "gputap-inject") != 0 || now_ns() > deadline) {
      refuse("traced", "process %d is being traced by %s (pid %lld)", pid, name, tracer);
    }
    sleep_us(POLL_US);
  }
}

static void refuse_permission(pid_t pid) {
  char why[512];
  explain_refusal(pid, why, sizeof why);
  refuse("not_permitted", "the kernel does not let us trace process %d: %s", pid, why);
}

/* Opening `mem` asks the kernel the question that PTRACE_SEIZE would ask, and does nothing else. */
static void check_permission(pid_t pid) {
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/mem", pid);
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd >= 0) {
    close(fd);
  } else if (errno == EACCES || errno == EPERM) {
    refuse_permission(pid);
  } else if (errno == ENOENT || errno == ESRCH) {
    refuse("no_process", "process %d has ended", pid);
  }
}

static bool has_segment(int fd, const Elf64_Ehdr *header, uint32_t type) {
  for (unsigned i = 0; i < header->e_phnum; i++) {
    Elf64_Phdr segment;
    const off_t at = (off_t)(header->e_phoff + i * sizeof segment);
    if (pread(fd, &segment, sizeof segment, at) == sizeof segment && segment.p_type == type) {
      return true;
    }
  }
  return false;
}

static void check_executable(struct injection *injection) {
  const pid_t pid = injection->pid;
  char path[64];
  Elf64_Ehdr header;
  snprintf(path, sizeof path, "/proc/%d/exe", pid);
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    return; /* memory will tell */
  }
  if (read(fd, &header, sizeof header) == sizeof header) {
    if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_machine != ARCH_ELF_MACHINE) {
      refuse("architecture",
             "process %d runs a %d-bit executable for ELF machine %d; this is the " ARCH_NAME
             " injector",
             pid, header.e_ident[EI_CLASS] == ELFCLASS64 ? 64 : 32, header.e_machine);
    }
    injection->has_interpreter = has_segment(fd, &header, PT_INTERP);
  }
  close(fd);
}

static void check_shadow_stack(pid_t pid) {
  char features[128];
  if (status_field(pid, pid, "x86_Thread_features", features, sizeof features) &&
      strstr(features, "shstk")) {
    refuse("shadow_stack",
           "process %d runs with a shadow stack, which forbids the return that a remote call needs",
           pid);
  }
}

/* One gputap-inject per target at a time: two at once would load the agent twice. The name is held
   as long as we live, by a socket in the abstract namespace. */
static void take_turn(const struct injection *injection) {
  struct sockaddr_un name = {.sun_family = AF_UNIX};
  const int n =
      snprintf(name.sun_path + 1, sizeof name.sun_path - 1, "gputap-inject-%d", injection->pid);
  const socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
  const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  while (fd >= 0 && bind(fd, (const struct sockaddr *)&name, size) != 0 && errno == EADDRINUSE) {
    if (now_ns() > injection->deadline_ns) {
      refuse("busy", "another gputap-inject is at work on process %d", injection->pid);
    }
    sleep_us(2000);
  }
}

void preflight(struct injection *injection) {
  const pid_t pid = injection->pid;
  check_exists(pid);
  check_permission(pid);
  take_turn(injection);
  check_tracer(pid);
  check_executable(injection);
  check_shadow_stack(pid);
}

static const char *fate_text(enum seccomp_fate fate) {
  return fate == FATE_KILLED  ? "kill it for"
         : fate == FATE_ERROR ? "forbid it"
                              : "ask a supervisor about";
}

static void act_on(const struct injection *injection, const struct seccomp_verdict *verdict) {
  if (!verdict->readable) {
    refuse("seccomp_unknown",
           "process %d runs under a seccomp filter that could not be read (%s), and a filter may "
           "kill the process for a system call of ours",
           injection->pid, strerror(verdict->error));
  }
  if (verdict->worst != FATE_ALLOWED) {
    refuse(verdict->worst == FATE_ERROR ? "seccomp_denied" : "seccomp_kill",
           "the seccomp filter of process %d would %s %s, which the injection needs",
           injection->pid, fate_text(verdict->worst), verdict->call);
  }
}

void check_seccomp(struct injection *injection) {
  static struct window window;
  const pid_t pid = injection->pid;
  const long long mode = status_number(pid, pid, "Seccomp", 10, 0);
  injection->filters = status_number(pid, pid, "Seccomp_filters", 10, -1);
  if (mode == 0 || injection->trust_seccomp) {
    return;
  }
  if (mode == 1) {
    refuse("seccomp_kill", "process %d runs in seccomp strict mode", pid);
  }
  enum window_result result;
  do { /* a thread may happen to have a signal to handle */
    result = window_stop(&window, pid, pid, STOP_MS);
  } while (result == WINDOW_HAD_SIGNAL && now_ns() < injection->deadline_ns);
  if (result == WINDOW_REFUSED) {
    refuse_permission(pid);
  }
  if (result != WINDOW_OK) {
    refuse("seccomp_unknown",
           "the seccomp filter of process %d could not be read: its main thread could not be "
           "stopped (%s)",
           pid, window_text(result));
  }
  const struct seccomp_verdict verdict = seccomp_judge(pid);
  window_let_go(&window);
  act_on(injection, &verdict);
}
