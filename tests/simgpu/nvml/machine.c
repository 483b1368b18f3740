#include "machine.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const uint64_t SHORTEST_WINDOW_NS = 50 * 1000 * 1000;

/* ---- boards ---------------------------------------------------------------------------------- */

static const char *board_folder(void) {
  const char *folder = getenv("SIMGPU_BOARD");
  return folder ? folder : BOARD_FOLDER;
}

/* 0: there is no such process. */
static uint64_t start_of(unsigned pid) {
  char path[64], text[1024] = "";
  snprintf(path, sizeof path, "/proc/%u/stat", pid);
  FILE *file = fopen(path, "re");
  if (!file) {
    return 0;
  }
  const size_t size = fread(text, 1, sizeof text - 1, file);
  fclose(file);
  text[size] = '\0';
  const char *at = strrchr(text, ')');
  for (int field = 2; at && field < 22; field++) {
    at = strchr(at + 1, ' ');
  }
  return at ? strtoull(at, NULL, 10) : 0;
}

static int read_board(int folder, const char *name, struct board *board) {
  if (strncmp(name, BOARD_PREFIX, sizeof BOARD_PREFIX - 1) != 0) {
    return 0;
  }
  const int fd = openat(folder, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0) {
    return 0;
  }
  const ssize_t size = read(fd, board, sizeof *board);
  close(fd);
  if (size != sizeof *board || board->magic != BOARD_MAGIC || board->version != BOARD_VERSION) {
    return 0;
  }
  if (start_of(board->pid) != board->pid_start) { /* killed: nobody else will clear it away */
    unlinkat(folder, name, 0);
    return 0;
  }
  return 1;
}

static int by_pid(const void *a, const void *b) {
  const struct process *first = a, *second = b;
  return first->pid < second->pid ? -1 : first->pid > second->pid;
}

int machine_processes(int device, struct process *processes, int most) {
  int count = 0;
  DIR *folder = opendir(board_folder());
  if (!folder) {
    return 0;
  }
  for (struct dirent *entry; count < most && (entry = readdir(folder));) {
    struct board board;
    if (read_board(dirfd(folder), entry->d_name, &board) && board.devices[device].has_context) {
      processes[count++] =
          (struct process){board.pid, board.devices[device], (int)board.is_virtual};
    }
  }
  closedir(folder);
  qsort(processes, (size_t)count, sizeof *processes, by_pid);
  return count;
}

/* The clock of boards: CLOCK_REALTIME, whatever this process simulates. */
static uint64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* ---- totals ---------------------------------------------------------------------------------- */

/* What has been seen of each process; what is gone stays counted. */
struct seen {
  unsigned pid;
  uint64_t busy_ns, htod_bytes, dtoh_bytes, ptop_bytes;
  int still_there;
};

static struct device_view {
  struct totals totals;
  struct seen seen[MOST_PROCESSES];
  int seen_count;
  struct totals window_start, window_end;
} views[BOARD_DEVICES];

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* Up to `now`: what is queued lies in the future, what is open has been busy since it began. */
static uint64_t busy_until(const struct process *process, uint64_t now) {
  const struct board_device *device = &process->device;
  uint64_t busy_ns = device->busy_ns;
  if (process->is_virtual) {
    return busy_ns;
  }
  if (device->busy_until_ns > now) {
    const uint64_t ahead_ns = device->busy_until_ns - now;
    return busy_ns > ahead_ns ? busy_ns - ahead_ns : 0;
  }
  const uint64_t since_ns =
      device->open_since_ns > device->busy_until_ns ? device->open_since_ns : device->busy_until_ns;
  return device->open_since_ns && now > since_ns ? busy_ns + (now - since_ns) : busy_ns;
}

static struct seen *find_seen(struct device_view *view, unsigned pid) {
  for (int i = 0; i < view->seen_count; i++) {
    if (view->seen[i].pid == pid) {
      return &view->seen[i];
    }
  }
  if (view->seen_count == MOST_PROCESSES) {
    return NULL;
  }
  struct seen *fresh = &view->seen[view->seen_count++];
  *fresh = (struct seen){.pid = pid};
  return fresh;
}

static void add_growth(uint64_t *total, uint64_t *seen, uint64_t now) {
  if (now > *seen) {
    *total += now - *seen;
    *seen = now;
  }
}

static void add_process(struct device_view *view, const struct process *process) {
  struct seen *seen = find_seen(view, process->pid);
  struct totals *totals = &view->totals;
  totals->memory_used += process->device.memory_used;
  if (!seen) {
    return;
  }
  seen->still_there = 1;
  add_growth(&totals->busy_ns, &seen->busy_ns, busy_until(process, totals->time_ns));
  add_growth(&totals->htod_bytes, &seen->htod_bytes, process->device.htod_bytes);
  add_growth(&totals->dtoh_bytes, &seen->dtoh_bytes, process->device.dtoh_bytes);
  add_growth(&totals->ptop_bytes, &seen->ptop_bytes, process->device.ptop_bytes);
}

static void forget_the_dead(struct device_view *view) {
  for (int i = view->seen_count - 1; i >= 0; i--) {
    if (!view->seen[i].still_there) {
      view->seen[i] = view->seen[--view->seen_count];
    }
    view->seen[i].still_there = 0;
  }
}

static void look(int device) {
  static struct process processes[MOST_PROCESSES];
  struct device_view *view = &views[device];
  const int count = machine_processes(device, processes, MOST_PROCESSES);
  view->totals.time_ns = now_ns();
  view->totals.memory_used = 0;
  for (int i = 0; i < count; i++) {
    add_process(view, &processes[i]);
  }
  forget_the_dead(view);
}

void machine_totals(int device, struct totals *totals) {
  pthread_mutex_lock(&lock);
  look(device);
  *totals = views[device].totals;
  pthread_mutex_unlock(&lock);
}

/* Nothing can be said of no time: the first question waits for a first window. */
static void wait_for_window(const struct device_view *view) {
  const uint64_t passed_ns = now_ns() - view->window_end.time_ns;
  if (view->window_start.time_ns == view->window_end.time_ns && passed_ns < SHORTEST_WINDOW_NS) {
    const struct timespec rest = {0, (long)(SHORTEST_WINDOW_NS - passed_ns)};
    nanosleep(&rest, NULL);
  }
}

void machine_rates(int device, struct rates *rates) {
  struct device_view *view = &views[device];
  pthread_mutex_lock(&lock);
  wait_for_window(view);
  look(device);
  if (view->totals.time_ns - view->window_end.time_ns >= SHORTEST_WINDOW_NS) {
    view->window_start = view->window_end;
    view->window_end = view->totals;
  }
  const struct totals *from = &view->window_start, *to = &view->window_end;
  const double ns = (double)(to->time_ns - from->time_ns);
  *rates = (struct rates){0};
  if (ns > 0) {
    const double busy = (double)(to->busy_ns - from->busy_ns) / ns;
    rates->busy = busy < 1 ? busy : 1;
    rates->htod_bytes_per_s = (double)(to->htod_bytes - from->htod_bytes) * 1e9 / ns;
    rates->dtoh_bytes_per_s = (double)(to->dtoh_bytes - from->dtoh_bytes) * 1e9 / ns;
  }
  pthread_mutex_unlock(&lock);
}

void machine_start(int devices) {
  pthread_mutex_lock(&lock);
  memset(views, 0, sizeof views);
  for (int device = 0; device < devices; device++) {
    look(device);
    views[device].window_start = views[device].window_end = views[device].totals;
  }
  pthread_mutex_unlock(&lock);
}
