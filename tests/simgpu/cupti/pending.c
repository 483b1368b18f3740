/* Records of operations that have not ended yet: a heap by end, and the open ones in a list. */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "tracer.h"

struct waiting {
  uint64_t sequence, end_ns;
  struct record record;
  struct waiting *next; /* of the open ones */
  bool delivered;
};

static const uint64_t LONGEST_WAIT_NS = 5000000000;

/* Two counts of operations on their way, used in turn: new ones go into the other while somebody
   waits for those of the first. */
static atomic_uint turn, travelling[2];

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct waiting **heap, *open;
static size_t count, room;

static void swap(size_t a, size_t b) {
  struct waiting *one = heap[a];
  heap[a] = heap[b];
  heap[b] = one;
}

static void sift_up(size_t at) {
  while (at && heap[at]->end_ns < heap[(at - 1) / 2]->end_ns) {
    swap(at, (at - 1) / 2);
    at = (at - 1) / 2;
  }
}

static void sift_down(size_t at) {
  for (;;) {
    size_t least = at;
    for (size_t child = 2 * at + 1; child <= 2 * at + 2 && child < count; child++) {
      if (heap[child]->end_ns < heap[least]->end_ns) least = child;
    }
    if (least == at) return;
    swap(at, least);
    at = least;
  }
}

static struct waiting *pop(uint64_t until_ns) {
  struct waiting *first = NULL;
  pthread_mutex_lock(&lock);
  if (count && heap[0]->end_ns <= until_ns) {
    first = heap[0];
    heap[0] = heap[--count];
    sift_down(0);
  }
  pthread_mutex_unlock(&lock);
  return first;
}

static struct waiting *make(uint64_t sequence, uint64_t end_ns, const struct record *record) {
  struct waiting *waiting = calloc(1, sizeof *waiting);
  waiting->sequence = sequence;
  waiting->end_ns = end_ns;
  waiting->record = *record;
  return waiting;
}

void pending_add(uint64_t sequence, uint64_t end_ns, const struct record *record) {
  struct waiting *waiting = make(sequence, end_ns, record);
  pthread_mutex_lock(&lock);
  if (count == room) {
    room = room * 2 + 64;
    heap = realloc(heap, room * sizeof *heap);
  }
  heap[count] = waiting;
  sift_up(count++);
  pthread_mutex_unlock(&lock);
}

void pending_drain(uint64_t now_ns) {
  for (struct waiting *waiting; (waiting = pop(now_ns));) {
    buffer_put(&waiting->record);
    free(waiting);
  }
}

static void put_unfinished(struct record *record) {
  memset(record->bytes + record->end_at, 0, sizeof(uint64_t));
  buffer_put(record);
}

/* What has not ended is delivered with end 0, and never again. */
static void force_out(void) {
  pending_drain(simgpu_now_ns());
  for (struct waiting *waiting; (waiting = pop(UINT64_MAX));) {
    put_unfinished(&waiting->record);
    free(waiting);
  }
  pthread_mutex_lock(&lock);
  for (struct waiting *it = open; it; it = it->next) {
    if (it->delivered) continue;
    it->delivered = true;
    struct record record = it->record;
    pthread_mutex_unlock(&lock);
    put_unfinished(&record);
    pthread_mutex_lock(&lock);
    it = open; /* the list may have changed; what is delivered is skipped */
    if (!it) break;
  }
  pthread_mutex_unlock(&lock);
}

void pending_open(uint64_t sequence, const struct record *record) {
  struct waiting *waiting = make(sequence, UINT64_MAX, record);
  pthread_mutex_lock(&lock);
  waiting->next = open;
  open = waiting;
  pthread_mutex_unlock(&lock);
}

bool pending_close(uint64_t sequence) {
  bool delivered = false;
  pthread_mutex_lock(&lock);
  for (struct waiting **at = &open; *at; at = &(*at)->next) {
    if ((*at)->sequence != sequence) continue;
    struct waiting *found = *at;
    *at = found->next;
    delivered = found->delivered;
    free(found);
    break;
  }
  pthread_mutex_unlock(&lock);
  return !delivered;
}

unsigned pending_depart(void) {
  const unsigned ticket = turn & 1;
  travelling[ticket]++;
  return ticket;
}

void pending_arrive(unsigned ticket) { travelling[ticket]--; }

static void turn_over(void *unused) {
  (void)unused;
  turn++;
}

/* Not for ever: a node of a graph may be a host function that waits for whoever flushes. */
static void wait_for_arrivals(void) {
  static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;
  pthread_mutex_lock(&one_at_a_time);
  const unsigned before = turn & 1;
  simgpu_between_operations(turn_over, NULL); /* no ticket of `before` is given out from here on */
  const uint64_t until_ns = simgpu_now_ns() + LONGEST_WAIT_NS;
  while (travelling[before] && simgpu_now_ns() < until_ns) sched_yield();
  pthread_mutex_unlock(&one_at_a_time);
}

static void take_ticket(void *ticket) { *(unsigned *)ticket = pending_depart(); }

void pending_deliver(bool force) {
  unsigned ticket;
  simgpu_between_operations(take_ticket, &ticket);
  if (force) {
    force_out();
  } else {
    pending_drain(simgpu_now_ns());
  }
  pending_arrive(ticket);
}

/* Whoever takes records out of the heap has a ticket. So first those who bring some are waited for,
   and, when all are out, those who carry some. */
void pending_flush(bool force) {
  wait_for_arrivals();
  pending_deliver(force);
  wait_for_arrivals();
}
