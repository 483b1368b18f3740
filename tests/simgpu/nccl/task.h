/* One call of a collective or of ncclSend, ncclRecv: what is to be done. */
#ifndef SIMGPU_NCCL_TASK_H
#define SIMGPU_NCCL_TASK_H
#include <stdint.h>

#include "reduce.h"

enum collective {
  ALL_REDUCE,
  REDUCE,
  REDUCE_SCATTER,
  ALL_GATHER,
  BROADCAST,
  ALL_TO_ALL,
  GATHER,
  SCATTER,
  SEND,
  RECEIVE,
};

struct task {
  enum collective what;
  const void *from;
  void *to;
  size_t count;               /* elements, as the caller counts them */
  int root;                   /* or the peer */
  struct reduction reduction; /* its type holds for all */
  nccl_stream stream;
};

/* `count` in bytes. */
static inline size_t task_bytes(const struct task *task) {
  return task->count * reduce_type_size(task->reduction.type);
}

static inline int task_is_transfer(const struct task *task) { return task->what >= SEND; }

#endif
