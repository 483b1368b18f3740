#include "board.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "internal.h"

static struct board *board; /* NULL: there is none, and nothing is said */
static char path[256];

#define SET(field, value) __atomic_store_n(&(field), (value), __ATOMIC_RELAXED)
#define ADD(field, value) SET(field, (field) + (value)) /* one writer: the core's lock is held */

static uint64_t start_of_process(void) {
  char text[1024] = "";
  FILE *file = fopen("/proc/self/stat", "re");
  const size_t size = file ? fread(text, 1, sizeof text - 1, file) : 0;
  if (file) fclose(file);
  text[size] = '\0';
  const char *at = strrchr(text, ')'); /* a name may hold anything */
  for (int field = 2; at && field < 22; field++) at = strchr(at + 1, ' ');
  return at ? strtoull(at, NULL, 10) : 0;
}

/* Only the name: other threads may still write to what is mapped. */
static void take_down(void) {
  if (board) unlink(path);
}

static const char *board_folder(void) {
  const char *folder = getenv("SIMGPU_BOARD");
  return folder ? folder : BOARD_FOLDER;
}

/* Of processes that were killed. */
static void clear_away(void) {
  char prefix[64];
  const int length = snprintf(prefix, sizeof prefix, BOARD_PREFIX "%u.", geteuid());
  DIR *folder = opendir(board_folder());
  if (!folder) return;
  for (struct dirent *entry; (entry = readdir(folder));) {
    if (strncmp(entry->d_name, prefix, (size_t)length) != 0) continue;
    const int pid = atoi(entry->d_name + length);
    if (pid > 0 && kill(pid, 0) != 0 && errno == ESRCH) unlinkat(dirfd(folder), entry->d_name, 0);
  }
  closedir(folder);
}

static struct board *map_file(void) {
  snprintf(path, sizeof path, "%s/" BOARD_PREFIX "%u.%d", board_folder(), geteuid(), getpid());
  unlink(path); /* of an earlier process with this pid */
  const int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  void *memory = MAP_FAILED;
  if (fd < 0) return NULL;
  if (ftruncate(fd, sizeof(struct board)) == 0) {
    memory = mmap(NULL, sizeof(struct board), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  }
  close(fd);
  return memory == MAP_FAILED ? NULL : memory;
}

void board_open(void) {
  clear_away();
  struct board *made = map_file();
  if (!made) return;
  made->version = BOARD_VERSION;
  made->pid = (uint32_t)getpid();
  made->device_count = (uint32_t)simgpu_device_count();
  made->is_virtual = simgpu_clock_is_virtual();
  made->pid_start = start_of_process();
  for (uint32_t i = 0; i < made->device_count; i++) {
    made->devices[i].memory_total = environment_number("SIMGPU_MEMORY", 80ull << 30);
  }
  __atomic_store_n(&made->magic, BOARD_MAGIC, __ATOMIC_RELEASE); /* readers look at it first */
  board = made;
  atexit(take_down);
}

/* The parent's file is not the child's to write or to remove. */
void board_forget(void) { board = NULL; }

void board_memory(int device, uint64_t used) {
  if (!board) return;
  SET(board->devices[device].memory_used, used);
  SET(board->devices[device].has_context, 1);
}

/* ---- operations that run and have no end yet ------------------------------------------------- */

enum { MOST_OPEN = 64 }; /* more at once on a device are not seen to be busy */

static struct open_operation {
  uint64_t sequence, start_ns;
} open_operations[BOARD_DEVICES][MOST_OPEN];

static void publish_open(struct board_device *device, const struct open_operation *operations) {
  uint64_t since_ns = UINT64_MAX;
  for (uint64_t i = 0; i < device->open_count; i++) {
    if (operations[i].start_ns < since_ns) since_ns = operations[i].start_ns;
  }
  SET(device->open_since_ns, device->open_count ? since_ns : 0);
}

void board_open_started(const struct simgpu_operation *operation) {
  if (!board || operation->kind == SIMGPU_HOST) return;
  struct board_device *device = &board->devices[operation->device];
  struct open_operation *operations = open_operations[operation->device];
  if (device->open_count == MOST_OPEN) return;
  operations[device->open_count] =
      (struct open_operation){operation->sequence, operation->start_ns};
  ADD(device->open_count, 1);
  publish_open(device, operations);
}

static void close_open(struct board_device *device, const struct simgpu_operation *operation) {
  struct open_operation *operations = open_operations[operation->device];
  for (uint64_t i = 0; i < device->open_count; i++) {
    if (operations[i].sequence != operation->sequence) continue;
    operations[i] = operations[device->open_count - 1];
    ADD(device->open_count, -1);
    publish_open(device, operations);
    return;
  }
}

/* ---- operations that have their times ---------------------------------------------------------- */

static void account_span(struct board_device *device, const struct simgpu_operation *operation) {
  const uint64_t start = operation->start_ns, end = operation->end_ns, to = device->busy_until_ns;
  if (end <= to) return;
  ADD(device->busy_ns, end - (start > to ? start : to));
  SET(device->busy_until_ns, end);
}

static void account_copy(struct board_device *device, const struct simgpu_operation *operation) {
  if (operation->copy_kind == SIMGPU_COPY_HTOD) ADD(device->htod_bytes, operation->bytes);
  if (operation->copy_kind == SIMGPU_COPY_DTOH) ADD(device->dtoh_bytes, operation->bytes);
  if (operation->copy_kind == SIMGPU_COPY_PTOP) ADD(device->ptop_bytes, operation->bytes);
}

void board_operation(const struct simgpu_operation *operation) {
  const enum simgpu_operation_kind kind = operation->kind;
  if (!board || kind == SIMGPU_MARKER || kind == SIMGPU_FREE || kind == SIMGPU_HOST) return;
  struct board_device *device = &board->devices[operation->device];
  SET(device->has_context, 1);
  account_span(device, operation);
  if (device->open_count) close_open(device, operation);
  if (kind == SIMGPU_KERNEL) ADD(device->kernels, 1);
  if (kind == SIMGPU_MEMCPY) account_copy(device, operation);
}

void board_add_link_bytes(int device, uint64_t bytes) {
  if (!board) return;
  pthread_mutex_lock(&core_lock);
  ADD(board->devices[device].ptop_bytes, bytes);
  pthread_mutex_unlock(&core_lock);
}
