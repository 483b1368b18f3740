/* The calls: they check their arguments and leave the rest to the group. */
#include "comm.h"
#include "error.h"

static nccl_result check_task(struct nccl_comm *comm, const struct task *task, const char *name) {
  const size_t size = reduce_type_size(task->reduction.type);
  if (size == 0) {
    return fail(NCCL_INVALID_ARGUMENT, "%s: type %d", name, task->reduction.type);
  }
  if (task->root < 0 || task->root >= comm->ranks) {
    return fail(NCCL_INVALID_ARGUMENT, "%s: rank %d of %d", name, task->root, comm->ranks);
  }
  if (comm->finalized || atomic_load(&comm->aborted)) {
    return fail(NCCL_INVALID_USAGE, "%s: the communicator was finalized", name);
  }
  return NCCL_SUCCESS;
}

static nccl_result add(nccl_comm comm, const char *name, const struct task *task) {
  nccl_result result = comm_check(comm, name);
  if (result == NCCL_SUCCESS) {
    result = check_task(comm, task, name);
  }
  if (result != NCCL_SUCCESS) {
    group_fail(result);
    return result;
  }
  if (task->count == 0 && !task_is_transfer(task)) {
    return NCCL_SUCCESS;
  }
  return group_add_task(comm, task);
}

/* With the operator that the caller's number stands for. */
static nccl_result add_reducing(nccl_comm comm, const char *name, struct task *task, nccl_op op) {
  nccl_result result = comm_check(comm, name);
  if (result == NCCL_SUCCESS) {
    result = op_find(comm, op, task->reduction.type, &task->reduction);
  }
  if (result != NCCL_SUCCESS) {
    group_fail(result);
    return result;
  }
  return add(comm, name, task);
}

nccl_result ncclAllReduce(const void *from, void *to, size_t count, nccl_type type, nccl_op op,
                          nccl_comm comm, nccl_stream stream) {
  struct task task = {ALL_REDUCE, from, to, count, 0, {.type = type}, stream};
  return add_reducing(comm, "ncclAllReduce", &task, op);
}

nccl_result ncclReduce(const void *from, void *to, size_t count, nccl_type type, nccl_op op,
                       int root, nccl_comm comm, nccl_stream stream) {
  struct task task = {REDUCE, from, to, count, root, {.type = type}, stream};
  return add_reducing(comm, "ncclReduce", &task, op);
}

nccl_result ncclReduceScatter(const void *from, void *to, size_t count, nccl_type type, nccl_op op,
                              nccl_comm comm, nccl_stream stream) {
  struct task task = {REDUCE_SCATTER, from, to, count, 0, {.type = type}, stream};
  return add_reducing(comm, "ncclReduceScatter", &task, op);
}

nccl_result ncclAllGather(const void *from, void *to, size_t count, nccl_type type, nccl_comm comm,
                          nccl_stream stream) {
  const struct task task = {ALL_GATHER, from, to, count, 0, {.type = type}, stream};
  return add(comm, "ncclAllGather", &task);
}

nccl_result ncclBroadcast(const void *from, void *to, size_t count, nccl_type type, int root,
                          nccl_comm comm, nccl_stream stream) {
  const struct task task = {BROADCAST, from, to, count, root, {.type = type}, stream};
  return add(comm, "ncclBroadcast", &task);
}

nccl_result ncclBcast(void *buffer, size_t count, nccl_type type, int root, nccl_comm comm,
                      nccl_stream stream) {
  return ncclBroadcast(buffer, buffer, count, type, root, comm, stream);
}

nccl_result ncclAlltoAll(const void *from, void *to, size_t count, nccl_type type, nccl_comm comm,
                         nccl_stream stream) {
  const struct task task = {ALL_TO_ALL, from, to, count, 0, {.type = type}, stream};
  return add(comm, "ncclAlltoAll", &task);
}

nccl_result ncclGather(const void *from, void *to, size_t count, nccl_type type, int root,
                       nccl_comm comm, nccl_stream stream) {
  const struct task task = {GATHER, from, to, count, root, {.type = type}, stream};
  return add(comm, "ncclGather", &task);
}

nccl_result ncclScatter(const void *from, void *to, size_t count, nccl_type type, int root,
                        nccl_comm comm, nccl_stream stream) {
  const struct task task = {SCATTER, from, to, count, root, {.type = type}, stream};
  return add(comm, "ncclScatter", &task);
}

nccl_result ncclSend(const void *from, size_t count, nccl_type type, int peer, nccl_comm comm,
                     nccl_stream stream) {
  const struct task task = {SEND, from, NULL, count, peer, {.type = type}, stream};
  return add(comm, "ncclSend", &task);
}

nccl_result ncclRecv(void *to, size_t count, nccl_type type, int peer, nccl_comm comm,
                     nccl_stream stream) {
  const struct task task = {RECEIVE, NULL, to, count, peer, {.type = type}, stream};
  return add(comm, "ncclRecv", &task);
}
