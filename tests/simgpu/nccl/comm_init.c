#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "comm.h"
#include "error.h"

static const char name_prefix[] = "/simnccl.";

nccl_result ncclGetVersion(int *version) {
  if (!version) {
    return fail(NCCL_INVALID_ARGUMENT, "ncclGetVersion: version is NULL");
  }
  *version = NCCL_VERSION;
  return NCCL_SUCCESS;
}

nccl_result ncclGetUniqueId(nccl_unique_id *id) {
  if (!id) {
    return fail(NCCL_INVALID_ARGUMENT, "ncclGetUniqueId: out is NULL");
  }
  memset(id, 0, sizeof *id);
  segment_make_name(id->internal, sizeof id->internal);
  return NCCL_SUCCESS;
}

nccl_result comm_connect(struct nccl_comm *comm) {
  nccl_result result =
      segment_join(comm->name, comm->ranks, comm->rank, &comm->aborted, &comm->segment);
  if (result == NCCL_SUCCESS && engine_start(comm) != 0) {
    result = fail(NCCL_SYSTEM_ERROR, "no thread for the communicator");
  }
  atomic_store(&comm->state, (int)result);
  return result;
}

static void *connect_thread(void *comm) { return (void *)(intptr_t)comm_connect(comm); }

/* Those of one process wait for each other: each on a thread of its own. */
nccl_result comm_connect_all(struct nccl_comm **comms, int count) {
  pthread_t threads[MOST_RANKS];
  nccl_result result = NCCL_SUCCESS;
  if (count == 1 && comms[0]->blocking) {
    return comm_connect(comms[0]);
  }
  for (int i = 0; i < count; i++) {
    if (pthread_create(&threads[i], NULL, connect_thread, comms[i]) != 0) {
      abort(); /* a test bed: nothing sensible is left to do */
    }
  }
  for (int i = 0; i < count; i++) {
    if (!comms[i]->blocking) {
      pthread_detach(threads[i]);
      result = NCCL_IN_PROGRESS;
      continue;
    }
    void *own;
    pthread_join(threads[i], &own);
    if (own) {
      result = (nccl_result)(intptr_t)own;
    }
  }
  return result;
}

static nccl_result check_config(const nccl_config *config) {
  if (config && config->magic != (unsigned)NCCL_CONFIG_MAGIC) {
    return fail(NCCL_INVALID_ARGUMENT, "the configuration was not initialised");
  }
  if (config && config->blocking != 0 && config->blocking != 1 &&
      config->blocking != NCCL_UNDEFINED) {
    return fail(NCCL_INVALID_ARGUMENT, "blocking is %d", config->blocking);
  }
  return NCCL_SUCCESS;
}

static nccl_result check_place(int ranks, const nccl_unique_id *id, int rank) {
  if (ranks < 1 || rank < 0 || rank >= ranks) {
    return fail(NCCL_INVALID_ARGUMENT, "rank %d of %d", rank, ranks);
  }
  if (ranks > MOST_RANKS) {
    return fail(NCCL_INVALID_ARGUMENT, "%d ranks: the simulation has %d at most", ranks,
                MOST_RANKS);
  }
  if (strncmp(id->internal, name_prefix, sizeof name_prefix - 1) != 0 ||
      strnlen(id->internal, NAME_BYTES) == NAME_BYTES) {
    return fail(NCCL_INVALID_ARGUMENT, "the id is none of ncclGetUniqueId");
  }
  return NCCL_SUCCESS;
}

nccl_result ncclCommInitRankConfig(nccl_comm *comm, int ranks, nccl_unique_id id, int rank,
                                   nccl_config *config) {
  if (!comm) {
    return fail(NCCL_INVALID_ARGUMENT, "ncclCommInitRank: comm is NULL");
  }
  nccl_result result = check_config(config);
  if (result == NCCL_SUCCESS) {
    result = check_place(ranks, &id, rank);
  }
  if (result != NCCL_SUCCESS) {
    return result;
  }
  if (simgpu_initialize() != SIMGPU_OK) {
    return fail(NCCL_UNHANDLED_CUDA_ERROR, "CUDA cannot be used in this process");
  }
  *comm = comm_new(id.internal, ranks, rank, !config || config->blocking != 0);
  return group_add_comm(*comm);
}

nccl_result ncclCommInitRank(nccl_comm *comm, int ranks, nccl_unique_id id, int rank) {
  return ncclCommInitRankConfig(comm, ranks, id, rank, NULL);
}

static nccl_result check_devices(int count, const int *devices) {
  bool used[MOST_RANKS] = {false};
  const int there = simgpu_device_count();
  for (int i = 0; i < count; i++) {
    const int device = devices ? devices[i] : i;
    if (device < 0 || device >= there) {
      return fail(NCCL_INVALID_ARGUMENT, "ncclCommInitAll: device %d of %d", device, there);
    }
    if (used[device]) {
      return fail(NCCL_INVALID_USAGE, "ncclCommInitAll: device %d twice", device);
    }
    used[device] = true;
  }
  return NCCL_SUCCESS;
}

nccl_result ncclCommInitAll(nccl_comm *comms, int count, const int *devices) {
  if (!comms || count < 0 || count > MOST_RANKS) {
    return fail(NCCL_INVALID_ARGUMENT, "ncclCommInitAll: %d devices", count);
  }
  if (simgpu_initialize() != SIMGPU_OK) {
    return fail(NCCL_UNHANDLED_CUDA_ERROR, "CUDA cannot be used in this process");
  }
  nccl_result result = check_devices(count, devices);
  if (result != NCCL_SUCCESS) {
    return result;
  }
  const int before = simgpu_device_current();
  nccl_unique_id id;
  ncclGetUniqueId(&id);
  ncclGroupStart();
  for (int i = 0; i < count; i++) {
    simgpu_device_set_current(devices ? devices[i] : i);
    const nccl_result own = ncclCommInitRank(&comms[i], count, id, i);
    result = own != NCCL_SUCCESS ? own : result;
  }
  const nccl_result ended = ncclGroupEnd();
  simgpu_device_set_current(before);
  return result != NCCL_SUCCESS ? result : ended;
}
