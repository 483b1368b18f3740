#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

#include "../core/board.h"
#include "comm.h"
#include "model.h"

/* The first, when it may run. NULL when there is nothing left to do for ever. */
static struct execution *next_execution(struct nccl_comm *comm) {
  pthread_mutex_lock(&comm->lock);
  while (!(comm->first && comm->first->started) && (comm->first || !comm->closing)) {
    pthread_cond_wait(&comm->changed, &comm->lock);
  }
  struct execution *execution = comm->first;
  pthread_mutex_unlock(&comm->lock);
  return execution;
}

static void remove_first(struct nccl_comm *comm) {
  pthread_mutex_lock(&comm->lock);
  struct execution *first = comm->first;
  comm->first = first->next;
  if (!comm->first) {
    comm->end = &comm->first;
  }
  pthread_cond_broadcast(&comm->changed);
  pthread_mutex_unlock(&comm->lock);
  plan_unref(first->plan);
  free(first);
}

void plan_unref(struct plan *plan) {
  if (atomic_fetch_sub(&plan->references, 1) == 1) {
    free(plan);
  }
}

/* Collectives in their order, then what is sent and received, all at once: each rank does it so. */
static uint64_t run(struct nccl_comm *comm, const struct execution *execution) {
  const struct task *tasks = execution->plan->tasks;
  const int count = execution->plan->count;
  uint64_t begin_ns = execution->start_ns, total_ns = 0, own_ns;
  if (begin_ns < comm->idle_ns) {
    begin_ns = comm->idle_ns;
  }
  int i = 0;
  bool goes_on = true;
  for (; goes_on && i < count && !task_is_transfer(&tasks[i]); i++) {
    goes_on = exchange(comm, &tasks[i], &begin_ns, &own_ns);
    total_ns += own_ns;
  }
  if (goes_on && i < count) {
    goes_on = transfer(comm, tasks + i, count - i, &begin_ns, &own_ns);
    total_ns += own_ns;
  }
  return goes_on ? begin_ns + total_ns : simgpu_now_ns();
}

void engine_hold(struct nccl_comm *comm) {
  pthread_mutex_lock(&comm->lock);
  comm->holds++;
  pthread_mutex_unlock(&comm->lock);
}

void engine_release(struct nccl_comm *comm) {
  pthread_mutex_lock(&comm->lock);
  comm->holds--;
  pthread_cond_broadcast(&comm->changed);
  pthread_mutex_unlock(&comm->lock);
}

static void wait_for_holders(struct nccl_comm *comm) {
  pthread_mutex_lock(&comm->lock);
  while (comm->holds) {
    pthread_cond_wait(&comm->changed, &comm->lock);
  }
  pthread_mutex_unlock(&comm->lock);
}

static void count_bytes(const struct plan *plan) {
  uint64_t bytes = 0;
  for (int i = 0; i < plan->count; i++) {
    bytes += model_link_bytes(&plan->tasks[i], plan->comm->ranks);
  }
  board_add_link_bytes(plan->comm->device, bytes);
}

static void *engine_run(void *argument) {
  struct nccl_comm *comm = argument;
  struct execution *execution;
  pthread_setname_np(pthread_self(), "NCCL Progress");
  while ((execution = next_execution(comm))) {
    comm->idle_ns = run(comm, execution);
    count_bytes(execution->plan);
    simgpu_complete(execution->open, comm->idle_ns);
    remove_first(comm);
  }
  if (comm->abandoned) {
    wait_for_holders(comm);
    comm_free(comm);
  }
  return NULL;
}

int engine_start(struct nccl_comm *comm) {
  sigset_t all, before; /* the program's handlers run on its own threads */
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  const int error = pthread_create(&comm->engine, NULL, engine_run, comm);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  comm->has_engine = error == 0;
  return error;
}

/* On the launching thread: the place in the order of all ranks. */
static void *submit(void *user) {
  struct plan *plan = user;
  struct nccl_comm *comm = plan->comm;
  struct execution *execution = calloc(1, sizeof *execution);
  atomic_fetch_add(&plan->references, 1);
  plan->submitted = true;
  execution->plan = plan;
  pthread_mutex_lock(&comm->lock);
  *comm->end = execution;
  comm->end = &execution->next;
  pthread_mutex_unlock(&comm->lock);
  return execution;
}

static void start(struct simgpu_open *open, void *state, uint64_t start_ns) {
  struct execution *execution = state;
  struct nccl_comm *comm = execution->plan->comm;
  pthread_mutex_lock(&comm->lock);
  execution->open = open;
  execution->start_ns = start_ns;
  execution->started = true;
  pthread_cond_broadcast(&comm->changed);
  pthread_mutex_unlock(&comm->lock);
}

const struct simgpu_open_kernel engine_kernel = {submit, start};

void engine_drain(struct nccl_comm *comm) {
  pthread_mutex_lock(&comm->lock);
  while (comm->first) {
    pthread_cond_wait(&comm->changed, &comm->lock);
  }
  pthread_mutex_unlock(&comm->lock);
}

static void close_queue(struct nccl_comm *comm, bool abandon) {
  pthread_mutex_lock(&comm->lock);
  comm->closing = true;
  comm->abandoned = abandon;
  pthread_cond_broadcast(&comm->changed);
  pthread_mutex_unlock(&comm->lock);
}

void engine_stop(struct nccl_comm *comm) {
  if (comm->has_engine) {
    close_queue(comm, false);
    pthread_join(comm->engine, NULL);
  }
}

void engine_abandon(struct nccl_comm *comm) {
  if (!comm->has_engine) {
    return; /* still connecting, on a thread that looks at it to the end */
  }
  struct segment *segment = comm->segment;
  pthread_detach(comm->engine);
  bell_ring(segment); /* while the engine cannot have left it */
  close_queue(comm, true);
}
