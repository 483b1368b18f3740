/* Groups: a thread's calls between ncclGroupStart and ncclGroupEnd take effect together. */
#include <stdlib.h>
#include <string.h>

#include "comm.h"
#include "error.h"

struct member {
  struct nccl_comm *comm;
  struct task task;
};

struct group {
  int depth;
  struct member *members;
  int count, room;
  struct nccl_comm *comms[MOST_RANKS]; /* to be connected */
  int comm_count;
  nccl_result failed; /* a call in it was refused: nothing of it is done */
};

static _Thread_local struct group group;

nccl_result ncclGroupStart(void) {
  group.depth++;
  return NCCL_SUCCESS;
}

static struct nccl_comm *pick_comm(void) {
  for (int i = 0; i < group.count; i++) {
    if (group.members[i].comm) {
      return group.members[i].comm;
    }
  }
  return NULL;
}

/* One kernel for each communicator, in the order of first use. */
static nccl_result launch_all(void) {
  nccl_result result = NCCL_SUCCESS;
  struct task *tasks = calloc((size_t)group.count + 1, sizeof *tasks);
  struct nccl_comm *comm;
  while ((comm = pick_comm())) {
    int count = 0;
    for (int i = 0; i < group.count; i++) {
      if (group.members[i].comm == comm) {
        tasks[count++] = group.members[i].task;
        group.members[i].comm = NULL;
      }
    }
    const nccl_result own = launch(comm, tasks, count);
    result = own != NCCL_SUCCESS ? own : result;
  }
  free(tasks);
  return result;
}

static nccl_result end_group(void) {
  nccl_result result = group.failed;
  if (result == NCCL_SUCCESS && group.comm_count) {
    result = comm_connect_all(group.comms, group.comm_count);
  }
  if (result == NCCL_SUCCESS) {
    result = launch_all();
  }
  free(group.members);
  memset(&group, 0, sizeof group);
  return result;
}

nccl_result ncclGroupEnd(void) {
  if (group.depth == 0) {
    return fail(NCCL_INVALID_USAGE, "ncclGroupEnd: not in a group call");
  }
  return --group.depth ? NCCL_SUCCESS : end_group();
}

nccl_result group_add_comm(struct nccl_comm *comm) {
  if (group.depth == 0) {
    return comm_connect_all(&comm, 1);
  }
  if (group.comm_count == MOST_RANKS) {
    group.failed = NCCL_INVALID_USAGE;
    return fail(NCCL_INVALID_USAGE, "more than %d communicators in a group", MOST_RANKS);
  }
  group.comms[group.comm_count++] = comm;
  return NCCL_SUCCESS;
}

nccl_result group_add_task(struct nccl_comm *comm, const struct task *task) {
  if (group.depth == 0) {
    return launch(comm, task, 1);
  }
  if (group.count == group.room) {
    group.room = group.room * 2 + 8;
    group.members = realloc(group.members, (size_t)group.room * sizeof *group.members);
  }
  group.members[group.count++] = (struct member){comm, *task};
  return NCCL_SUCCESS;
}

void group_fail(nccl_result result) {
  if (group.depth) {
    group.failed = result;
  }
}
