#include "process.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "report.h"

enum { CAP_PTRACE_BIT = 19 };

long read_file(const char *path, char *to, size_t size) {
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    return -errno;
  }
  size_t used = 0;
  long n = 0;
  while (used + 1 < size && (n = read(fd, to + used, size - 1 - used)) > 0) {
    used += (size_t)n;
  }
  const int error = errno;
  close(fd);
  to[used] = '\0';
  return n < 0 ? -error : (long)used;
}

bool status_field(pid_t pid, pid_t tid, const char *field, char *to, size_t size) {
  char path[64], text[32768], key[40];
  snprintf(path, sizeof path, "/proc/%d/task/%d/status", pid, tid);
  if (read_file(path, text, sizeof text) <= 0) {
    return false;
  }
  snprintf(key, sizeof key, "\n%s:", field);
  const char *at = strstr(text, key);
  if (!at) {
    return false;
  }
  at += strlen(key);
  at += strspn(at, " \t");
  const size_t length = strcspn(at, "\n");
  snprintf(to, size, "%.*s", (int)length, at);
  return true;
}

long long status_number(pid_t pid, pid_t tid, const char *field, int base, long long missing) {
  char value[128];
  return status_field(pid, tid, field, value, sizeof value) ? strtoll(value, NULL, base) : missing;
}

bool read_memory(pid_t pid, uint64_t address, void *to, size_t size) {
  const struct iovec here = {to, size};
  const struct iovec there = {(void *)address, size};
  return process_vm_readv(pid, &here, 1, &there, 1, 0) == (ssize_t)size;
}

bool write_memory(pid_t pid, uint64_t address, const void *from, size_t size) {
  const struct iovec here = {(void *)from, size};
  const struct iovec there = {(void *)address, size};
  return process_vm_writev(pid, &here, 1, &there, 1, 0) == (ssize_t)size;
}

static char state_letter(pid_t pid, pid_t tid) {
  char path[64], text[512];
  snprintf(path, sizeof path, "/proc/%d/task/%d/stat", pid, tid);
  if (read_file(path, text, sizeof text) <= 0) {
    return 'X';
  }
  const char *after_name = strrchr(text, ')'); /* the name may hold blanks and brackets */
  return after_name && after_name[1] ? after_name[2] : 'X';
}

struct thread_view view_thread(pid_t pid, pid_t tid) {
  struct thread_view view = {.tid = tid, .activity = THREAD_GONE, .number = -1};
  char path[64], text[256];
  const char state = state_letter(pid, tid);
  if (state == 'D') {
    view.activity = THREAD_UNINTERRUPTED;
    return view;
  }
  snprintf(path, sizeof path, "/proc/%d/task/%d/syscall", pid, tid);
  if (state == 'X' || state == 'Z' || read_file(path, text, sizeof text) <= 0) {
    return view;
  }
  unsigned long long first = 0, sp = 0;
  const int fields = sscanf(text, "%ld %llx %*x %*x %*x %*x %*x %llx", &view.number, &first, &sp);
  view.activity = fields >= 2 && view.number >= 0 ? THREAD_BLOCKED : THREAD_RUNNING;
  view.first_argument = first;
  view.stack_pointer = sp;
  return view;
}

size_t list_threads(pid_t pid, pid_t *tids, size_t limit) {
  char path[64];
  size_t count = 0;
  snprintf(path, sizeof path, "/proc/%d/task", pid);
  DIR *tasks = opendir(path);
  if (!tasks) {
    return 0;
  }
  const struct dirent *entry;
  while (count < limit && (entry = readdir(tasks))) {
    if (isdigit((unsigned char)entry->d_name[0])) {
      tids[count++] = atoi(entry->d_name);
    }
  }
  closedir(tasks);
  return count;
}

static bool same_namespace(pid_t pid, const char *kind, bool *known) {
  char path[64], ours[64], theirs[64];
  snprintf(path, sizeof path, "/proc/self/ns/%s", kind);
  const ssize_t a = readlink(path, ours, sizeof ours);
  snprintf(path, sizeof path, "/proc/%d/ns/%s", pid, kind);
  const ssize_t b = readlink(path, theirs, sizeof theirs);
  *known = a > 0 && b > 0;
  return a == b && memcmp(ours, theirs, (size_t)(a > 0 ? a : 0)) == 0;
}

void explain_refusal(pid_t pid, char *to, size_t size) {
  const long long uid = status_number(pid, pid, "Uid", 10, -1);
  const long long effective = status_number(getpid(), getpid(), "CapEff", 16, 0);
  const bool may_trace = effective >> CAP_PTRACE_BIT & 1;
  char yama[16];
  bool known;
  size_t used =
      append(to, size, 0, "it belongs to uid %lld, gputap runs as uid %d %s CAP_SYS_PTRACE", uid,
             (int)geteuid(), may_trace ? "with" : "without");
  if (read_file("/proc/sys/kernel/yama/ptrace_scope", yama, sizeof yama) > 0) {
    used = append(to, size, used, "; Yama's ptrace_scope is %d", atoi(yama));
  }
  if (!same_namespace(pid, "user", &known) && known) {
    used = append(to, size, used, "; it lives in another user namespace");
  }
  if (uid == (long long)geteuid() && !may_trace) {
    append(to, size, used, "; being of the same user, it may be marked as not dumpable");
  }
}
