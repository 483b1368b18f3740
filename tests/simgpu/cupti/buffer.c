/*
 * The client's buffers: asked for when a record needs room, given back when they are full or
 * flushed. Full ones are given back by a thread of ours, or by the one that flushes. No callback of
 * the client runs under our lock: it may call us, or wait for a thread that does.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tracer.h"

struct buffer {
  uint8_t *start;
  size_t size, used, most_records, records;
  struct name *names; /* of its records, with `names_freed` */
  uint64_t due_ns;    /* with `late_flush`: of CLOCK_MONOTONIC */
  struct buffer *next;
};

typedef void (*request_callback)(uint8_t **buffer, size_t *size, size_t *most_records);
typedef void (*complete_callback)(void *context, uint32_t stream, uint8_t *buffer, size_t size,
                                  size_t valid);

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static request_callback request;
static complete_callback complete;
static struct buffer *current, *spare, *full, **full_end = &full;
static size_t dropped;
static unsigned delivering; /* threads that are in the client's callback */
static uint32_t period_ms;
static bool has_worker;
static _Thread_local bool is_delivering;

static uint64_t monotonic_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* ---- delivery ----------------------------------------------------------------------------- */

static void retire_current(void) {
  if (!current) return;
  const double late = simgpu_fault("late_flush", 0);
  current->due_ns = late > 0 ? monotonic_ns() + (uint64_t)late : 0;
  current->next = NULL;
  *full_end = current;
  full_end = &current->next;
  current = NULL;
  pthread_cond_broadcast(&changed);
}

/* Lock held, given up meanwhile. */
static void deliver(bool even_late) {
  while (full && (even_late || full->due_ns <= monotonic_ns())) {
    struct buffer *buffer = full;
    full = buffer->next;
    if (!full) full_end = &full;
    delivering++;
    pthread_mutex_unlock(&lock);
    is_delivering = true;
    if (complete) complete(NULL, 0, buffer->start, buffer->size, buffer->used);
    is_delivering = false;
    names_free(buffer->names);
    free(buffer);
    pthread_mutex_lock(&lock);
    delivering--;
    pthread_cond_broadcast(&changed);
  }
}

static void wait_a_little(void) {
  struct timespec until;
  const uint64_t wait_ns = period_ms ? period_ms * 1000000ull : 20000000;
  clock_gettime(CLOCK_REALTIME, &until);
  until.tv_sec += (time_t)((until.tv_nsec + (long)wait_ns) / 1000000000);
  until.tv_nsec = (until.tv_nsec + (long)wait_ns) % 1000000000;
  pthread_cond_timedwait(&changed, &lock, &until);
}

static void *work(void *unused) {
  (void)unused;
  pthread_mutex_lock(&lock);
  for (;;) {
    deliver(false);
    if (full || period_ms) {
      wait_a_little();
    } else {
      pthread_cond_wait(&changed, &lock);
    }
    if (!period_ms) continue;
    pthread_mutex_unlock(&lock);
    pending_deliver(false);
    pthread_mutex_lock(&lock);
  }
  return NULL;
}

static void start_worker(void) {
  pthread_t thread;
  if (has_worker || pthread_create(&thread, NULL, work, NULL) != 0) return;
  pthread_detach(thread);
  has_worker = true;
}

/* ---- room --------------------------------------------------------------------------------- */

static bool has_room(size_t bytes) {
  return current && current->used + bytes <= current->size &&
         (!current->most_records || current->records < current->most_records);
}

/* What asking the client took: the first record of the buffer that it gave. */
static void note_request(uint64_t start_ns, uint64_t end_ns) {
  struct record record;
  if (!activity_is_on(CUPTI_ABI_KIND_OVERHEAD) || !has_room(8 * sizeof record.bytes)) return;
  record_begin(&record, CUPTI_ABI_KIND_OVERHEAD);
  PUT(&record, OVERHEAD_OVERHEAD_KIND, CUPTI_ABI_OVERHEAD_ACTIVITY_BUFFER_REQUEST);
  PUT(&record, OVERHEAD_OBJECT_KIND, 1); /* a process */
  PUT(&record, OVERHEAD_OBJECT_ID, getpid());
  PUT(&record, OVERHEAD_START, start_ns);
  PUT(&record, OVERHEAD_END, end_ns);
  memcpy(current->start, record.bytes, record.size);
  current->used = record.size;
  current->records = 1;
}

/* Lock held, given up meanwhile. False if the client has none. */
static bool obtain(void) {
  const request_callback ask = request;
  if (!ask) return false;
  struct buffer *buffer = calloc(1, sizeof *buffer);
  pthread_mutex_unlock(&lock);
  const uint64_t start_ns = activity_now_ns();
  ask(&buffer->start, &buffer->size, &buffer->most_records);
  const uint64_t end_ns = activity_now_ns();
  pthread_mutex_lock(&lock);
  if (!buffer->start || !buffer->size) {
    free(buffer);
    return current; /* another thread may have been luckier */
  }
  if (current) {
    buffer->next = spare;
    spare = buffer;
  } else {
    current = buffer;
    note_request(start_ns, end_ns);
  }
  return true;
}

/* Other threads fill a buffer while we ask for one, so look again. */
static bool make_room(size_t bytes) {
  while (!has_room(bytes)) {
    const bool too_small = current && current->used == 0;
    retire_current();
    if (too_small) return false; /* for even one record: given back empty */
    if (spare) {
      current = spare;
      spare = spare->next;
    } else if (!obtain()) {
      return false;
    }
  }
  return true;
}

static bool is_to_be_dropped(void) {
  static atomic_ulong records;
  const double share = simgpu_fault("drop", 0);
  return share > 0 && ++records % (unsigned long)(1 / share) == 0;
}

void buffer_put(const struct record *record) {
  struct record own = *record;
  pthread_mutex_lock(&lock);
  if (!request) { /* finalized while the record was on its way: nobody lost it */
    pthread_mutex_unlock(&lock);
    return;
  }
  if (is_to_be_dropped() || !make_room(own.size)) {
    dropped++;
  } else {
    names_move(&own, &current->names);
    memcpy(current->start + current->used, own.bytes, own.size);
    current->used += own.size;
    current->records++;
  }
  pthread_mutex_unlock(&lock);
}

bool buffer_has_client(void) { return request; }

void buffer_flush(void) {
  const bool late = simgpu_fault("late_flush", 0) > 0;
  pthread_mutex_lock(&lock);
  retire_current();
  if (!late) {
    deliver(true);
    /* Nothing may be under way any more when a flush returns. */
    while (delivering && !is_delivering) pthread_cond_wait(&changed, &lock);
  }
  pthread_mutex_unlock(&lock);
}

void buffer_reset(void) {
  pthread_mutex_lock(&lock);
  while (spare) { /* given back as they came */
    retire_current();
    current = spare;
    spare = spare->next;
  }
  retire_current();
  deliver(true);
  request = NULL;
  complete = NULL;
  period_ms = 0;
  dropped = 0;
  pthread_mutex_unlock(&lock);
}

void buffer_take_full_ones_every(uint32_t milliseconds) {
  pthread_mutex_lock(&lock);
  period_ms = milliseconds;
  pthread_cond_broadcast(&changed);
  pthread_mutex_unlock(&lock);
}

SIMGPU_EXPORT int cuptiActivityRegisterCallbacks(request_callback on_request,
                                                 complete_callback on_complete) {
  if (!on_request || !on_complete) return CUPTI_ABI_RESULT_INVALID_PARAMETER;
  pthread_mutex_lock(&lock);
  request = on_request;
  complete = on_complete;
  start_worker();
  pthread_mutex_unlock(&lock);
  return CUPTI_ABI_RESULT_SUCCESS;
}

SIMGPU_EXPORT int cuptiActivityGetNumDroppedRecords(void *context, uint32_t stream,
                                                    size_t *count) {
  (void)context, (void)stream;
  if (!count) return CUPTI_ABI_RESULT_INVALID_PARAMETER;
  pthread_mutex_lock(&lock);
  *count = dropped;
  dropped = 0;
  pthread_mutex_unlock(&lock);
  return CUPTI_ABI_RESULT_SUCCESS;
}
