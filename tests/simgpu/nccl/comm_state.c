#include <stdlib.h>
#include <string.h>

#include "comm.h"
#include "error.h"

static const uint64_t comm_magic = 0x6c63636e6d6973;

struct nccl_comm *comm_new(const char *name, int ranks, int rank, bool blocking) {
  struct nccl_comm *comm = calloc(1, sizeof *comm);
  comm->magic = comm_magic;
  comm->rank = rank;
  comm->ranks = ranks;
  comm->device = simgpu_device_current();
  comm->blocking = blocking;
  strncpy(comm->name, name, sizeof comm->name - 1);
  comm->state = NCCL_IN_PROGRESS;
  pthread_mutex_init(&comm->lock, NULL);
  pthread_cond_init(&comm->changed, NULL);
  comm->end = &comm->first;
  return comm;
}

void comm_free(struct nccl_comm *comm) {
  comm->magic = 0;
  if (comm->segment) {
    segment_leave(comm->segment);
  }
  if (comm->last_launch) {
    simgpu_event_destroy(comm->last_launch);
  }
  pthread_cond_destroy(&comm->changed);
  pthread_mutex_destroy(&comm->lock);
  free(comm);
}

static nccl_result check_object(nccl_comm comm, const char *where) {
  if (!comm || comm->magic != comm_magic) {
    return fail(NCCL_INVALID_ARGUMENT, "%s: %s communicator", where, comm ? "corrupted" : "NULL");
  }
  return NCCL_SUCCESS;
}

nccl_result comm_check(nccl_comm comm, const char *where) {
  const nccl_result result = check_object(comm, where);
  if (result == NCCL_SUCCESS && comm->state == NCCL_IN_PROGRESS) {
    return fail(NCCL_INVALID_ARGUMENT, "%s: the communicator's initialisation has not ended",
                where);
  }
  return result;
}

nccl_result ncclCommGetAsyncError(nccl_comm comm, nccl_result *error) {
  const nccl_result result = check_object(comm, "ncclCommGetAsyncError");
  if (result == NCCL_SUCCESS && !error) {
    return fail(NCCL_INVALID_ARGUMENT, "ncclCommGetAsyncError: asyncError is NULL");
  }
  if (result == NCCL_SUCCESS) {
    *error = (nccl_result)comm->state;
  }
  return result;
}

static nccl_result give(nccl_comm comm, const char *where, int *wanted, size_t offset) {
  const nccl_result result = comm_check(comm, where);
  if (result == NCCL_SUCCESS && !wanted) {
    return fail(NCCL_INVALID_ARGUMENT, "%s: the result's pointer is NULL", where);
  }
  if (result == NCCL_SUCCESS) {
    memcpy(wanted, (const char *)comm + offset, sizeof *wanted);
  }
  return result;
}

nccl_result ncclCommCount(nccl_comm comm, int *count) {
  return give(comm, "ncclCommCount", count, offsetof(struct nccl_comm, ranks));
}

nccl_result ncclCommUserRank(nccl_comm comm, int *rank) {
  return give(comm, "ncclCommUserRank", rank, offsetof(struct nccl_comm, rank));
}

nccl_result ncclCommCuDevice(nccl_comm comm, int *device) {
  return give(comm, "ncclCommCuDevice", device, offsetof(struct nccl_comm, device));
}

nccl_result ncclCommFinalize(nccl_comm comm) {
  if (!comm) {
    return NCCL_SUCCESS;
  }
  const nccl_result result = comm_check(comm, "ncclCommFinalize");
  if (result != NCCL_SUCCESS) {
    return result;
  }
  if (comm->finalized) {
    return fail(NCCL_INVALID_ARGUMENT, "ncclCommFinalize: it was finalized before");
  }
  engine_drain(comm);
  comm->finalized = true;
  return NCCL_SUCCESS;
}

nccl_result ncclCommDestroy(nccl_comm comm) {
  if (!comm) {
    return NCCL_SUCCESS;
  }
  const nccl_result result = comm_check(comm, "ncclCommDestroy");
  if (result == NCCL_SUCCESS) {
    engine_stop(comm);
    comm_free(comm);
  }
  return result;
}

/* Kernels that run end now; such as still wait in their streams end when they would begin. */
nccl_result ncclCommAbort(nccl_comm comm) {
  if (!comm) {
    return NCCL_SUCCESS;
  }
  const nccl_result result = check_object(comm, "ncclCommAbort");
  if (result == NCCL_SUCCESS) {
    atomic_store(&comm->aborted, true);
    engine_abandon(comm);
  }
  return result;
}
