/*
 * The truth log: a line of CSV for every operation, in a mapped file: what is written there
 * outlives SIGKILL. Tests read it with tests/simgpu/truth.py.
 */
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "internal.h"

enum {
  GROWTH = 4 << 20,
  LONGEST_LINE = 8192,
};

static const char HEADER[] =
    "kind,device,context,stream,start_ns,end_ns,bytes,copy_kind,source_kind,destination_kind,"
    "correlation_id,graph_id,graph_node_id,tid,name\n";
static const char *const KINDS[] = {"kernel", "memcpy", "memset", "host",
                                    "free",   "marker", "graph"};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static atomic_int file = -1;
static char *mapped; /* the window of the file that is written to */
static size_t window_start, length, file_size;

static bool move_window(void) {
  const size_t start = length & ~(size_t)4095;
  if (mapped) munmap(mapped, GROWTH);
  mapped = NULL;
  file_size = start + GROWTH;
  if (ftruncate(file, (off_t)file_size) != 0) return false;
  void *now = mmap(NULL, GROWTH, PROT_READ | PROT_WRITE, MAP_SHARED, file, (off_t)start);
  if (now == MAP_FAILED) return false;
  window_start = start;
  mapped = now;
  return true;
}

static void append(const char *text, size_t size) {
  pthread_mutex_lock(&lock);
  if (file >= 0 && (mapped || move_window())) {
    if (length + size <= window_start + GROWTH || move_window()) {
      char *line = mapped + (length - window_start);
      memcpy(line, text, size - 1);
      atomic_thread_fence(memory_order_release); /* readers take what ends with a newline */
      line[size - 1] = text[size - 1];
      length += size;
    }
  }
  pthread_mutex_unlock(&lock);
}

/* After a kill the file ends with zeros instead. Threads that outlive `main` must not write behind
   the new end: that would be a SIGBUS. A forked child has no log, and its lock may be held. */
static void cut(void) {
  if (file < 0) return;
  pthread_mutex_lock(&lock);
  if (file >= 0 && ftruncate(file, (off_t)length) != 0) perror("simgpu: SIMGPU_LOG");
  file = -1;
  pthread_mutex_unlock(&lock);
}

/* "%p" in the path is the process id: several ranks may log. */
static void fill_in_pid(const char *pattern, char *path, size_t size) {
  const char *mark = strstr(pattern, "%p");
  if (mark) {
    snprintf(path, size, "%.*s%d%s", (int)(mark - pattern), pattern, (int)getpid(), mark + 2);
  } else {
    snprintf(path, size, "%s", pattern);
  }
}

void truth_log_open(void) {
  const char *pattern = getenv("SIMGPU_LOG");
  char path[4096];
  if (!pattern || !*pattern) return;
  fill_in_pid(pattern, path, sizeof path);
  file = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (file < 0) {
    perror(path);
    return;
  }
  append(HEADER, sizeof HEADER - 1);
  atexit(cut);
}

void truth_log_forget(void) { file = -1; }

void truth_log_write(const struct simgpu_operation *operation) {
  char line[LONGEST_LINE];
  if (file < 0) return;
  const int size = snprintf(
      line, sizeof line, "%s,%u,%u,%u,%lu,%lu,%lu,%u,%u,%u,%u,%u,%lu,%u,%s\n",
      KINDS[operation->kind], operation->device, operation->context, operation->stream,
      simgpu_record_ns(operation->start_ns), simgpu_record_ns(operation->end_ns),
      operation->bytes, operation->copy_kind, operation->source_kind, operation->destination_kind,
      operation->correlation_id, operation->graph_id, operation->graph_node_id, operation->tid,
      operation->name ? operation->name : "");
  if (size > 0 && (size_t)size < sizeof line) append(line, (size_t)size);
}
