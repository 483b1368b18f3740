/* Host functions: a stream waits while a thread of ours runs them, as the driver's does. */
#include <stdlib.h>

#include "graph_internal.h"

struct host_call {
  void (*function)(void *);
  void *user;
  struct simgpu_open *open;
  uint64_t start_ns;
  struct host_call *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t added = PTHREAD_COND_INITIALIZER;
static struct host_call *first, **end = &first;
static bool has_thread;

static void run(struct host_call *call) {
  simgpu_sleep_until(call->start_ns);
  call->function(call->user);
  simgpu_complete(call->open, simgpu_now_ns());
  free(call);
}

static void *work(void *unused) {
  (void)unused;
  for (;;) {
    pthread_mutex_lock(&lock);
    while (!first) pthread_cond_wait(&added, &lock);
    struct host_call *call = first;
    first = call->next;
    if (!first) end = &first;
    pthread_mutex_unlock(&lock);
    run(call);
  }
  return NULL;
}

static void start_thread(void) {
  pthread_t thread;
  if (has_thread || pthread_create(&thread, NULL, work, NULL) != 0) return;
  pthread_detach(thread);
  has_thread = true;
}

static void started(struct simgpu_open *open, void *state, uint64_t start_ns) {
  struct host_call *call = state;
  call->open = open;
  call->start_ns = start_ns;
  if (simgpu_clock_is_virtual()) { /* no other thread's timing may enter a golden trace */
    run(call);
    return;
  }
  pthread_mutex_lock(&lock);
  start_thread();
  *end = call;
  end = &call->next;
  pthread_cond_signal(&added);
  pthread_mutex_unlock(&lock);
}

SIMGPU_EXPORT int simgpu_enqueue_host(struct simgpu_stream *stream, void (*function)(void *),
                                      void *user) {
  if (!function) return SIMGPU_INVALID_VALUE;
  struct simgpu_operation operation = {.kind = SIMGPU_HOST};
  struct host_call *call = calloc(1, sizeof *call);
  call->function = function;
  call->user = user;
  operation.payload = call;
  if (graph_is_capturing(stream)) return simgpu_enqueue(stream, &operation); /* the graph's now */
  operation.payload = NULL;
  const int result = simgpu_enqueue_open(stream, &operation, started, call, NULL);
  if (result != SIMGPU_OK) free(call);
  return result;
}

void host_call_run(void *payload) {
  const struct host_call *call = payload;
  call->function(call->user);
}
