/* A communicator: one rank's end of it. */
#ifndef SIMGPU_NCCL_COMM_H
#define SIMGPU_NCCL_COMM_H
#include <pthread.h>

#include "../core/simgpu.h"
#include "segment.h"
#include "task.h"

enum { MOST_OPS = 64, NAME_BYTES = 64 };

/* What one kernel does: all calls of a group on one communicator. Collectives come first. */
struct plan {
  struct nccl_comm *comm;
  atomic_int references; /* its launcher's, and its executions' */
  bool submitted;
  int count;
  struct task tasks[];
};

/* One run of it: one for a launch, one for each launch of a graph that it was captured into. */
struct execution {
  struct plan *plan; /* counted */
  struct simgpu_open *open;
  uint64_t start_ns;
  bool started;
  struct execution *next;
};

struct peer {
  uint64_t sends, sends_done, receives, receives_done; /* since the beginning */
};

struct nccl_comm {
  uint64_t magic;
  int rank, ranks, device;
  bool blocking;
  char name[NAME_BYTES];
  struct segment *segment;
  _Atomic int state; /* an nccl_result: NCCL_IN_PROGRESS until all ranks are there; later, errors */
  atomic_bool aborted;

  pthread_t engine;
  pthread_mutex_t lock;
  pthread_cond_t changed;
  struct execution *first, **end; /* in the order of calls, which is the same on all ranks */
  bool has_engine, closing, abandoned;
  int holds;

  /* The engine's. */
  uint64_t collectives, chunks, idle_ns;
  struct peer peers[MOST_RANKS];

  /* The callers', who take turns. */
  uint64_t issued, splits;
  bool finalized;
  struct simgpu_event *last_launch;
  uint32_t last_stream_id;
  bool op_used[MOST_OPS];
  struct reduction ops[MOST_OPS];
};

/* comm_state.c */
struct nccl_comm *comm_new(const char *name, int ranks, int rank, bool blocking);
void comm_free(struct nccl_comm *comm);
/* NCCL_SUCCESS if it is one, and all ranks are there. */
nccl_result comm_check(nccl_comm comm, const char *where);

/* comm_init.c. Of a new communicator; of a group's at its end. */
nccl_result comm_connect(struct nccl_comm *comm);
nccl_result comm_connect_all(struct nccl_comm **comms, int count);

/* engine.c: a thread for each communicator that does what was launched, one after another. */
int engine_start(struct nccl_comm *comm);
/* How the simulated device runs a plan. */
extern const struct simgpu_open_kernel engine_kernel;
void plan_unref(struct plan *plan);
void engine_drain(struct nccl_comm *comm);
void engine_stop(struct nccl_comm *comm);
/* The thread runs on until everything queued has ended, then frees the communicator. */
void engine_abandon(struct nccl_comm *comm);
/* Meanwhile an abort by another thread does not free it. */
void engine_hold(struct nccl_comm *comm);
void engine_release(struct nccl_comm *comm);

/* exchange.c, transfer.c: move the data. *begin_ns is where it begins on this rank, and becomes
   where the last of all concerned has come; *duration_ns: from there to the end. False: aborted. */
bool exchange(struct nccl_comm *comm, const struct task *task, uint64_t *begin_ns,
              uint64_t *duration_ns);
bool transfer(struct nccl_comm *comm, const struct task *tasks, int count, uint64_t *begin_ns,
              uint64_t *duration_ns);

/* launch.c. Enqueues one kernel for all `tasks`. */
nccl_result launch(struct nccl_comm *comm, const struct task *tasks, int count);

/* group.c. At once, or at the end of the thread's group. */
nccl_result group_add_task(struct nccl_comm *comm, const struct task *task);
nccl_result group_add_comm(struct nccl_comm *comm);
/* A call of the thread was refused: its group, if it is in one, does nothing. */
void group_fail(nccl_result result);

/* operators.c. What `op` of this communicator does to values of `type`. */
nccl_result op_find(const struct nccl_comm *comm, nccl_op op, nccl_type type,
                    struct reduction *reduction);

#endif
