/*
 * Collectives. Everybody's contribution goes through two slots in turn, in steps that all ranks
 * take together: write a chunk to the own slot, wait for everybody's, take what is wanted of them.
 */
#include <string.h>

#include "comm.h"
#include "error.h"
#include "model.h"

typedef bool (*condition)(struct nccl_comm *comm, uint64_t value);

/* False: aborted meanwhile. */
static bool wait_until(struct nccl_comm *comm, condition holds, uint64_t value) {
  for (;;) {
    const uint32_t heard = bell_listen(comm->segment);
    if (holds(comm, value)) {
      return true;
    }
    if (atomic_load(&comm->aborted)) {
      return false;
    }
    bell_wait(comm->segment, heard);
  }
}

static bool all_arrived(struct nccl_comm *comm, uint64_t number) {
  for (int rank = 0; rank < comm->ranks; rank++) {
    if (!arrival_of(comm->segment->seats[rank].arrivals, number)) {
      return false;
    }
  }
  return true;
}

static bool all_wrote(struct nccl_comm *comm, uint64_t chunks) {
  for (int rank = 0; rank < comm->ranks; rank++) {
    if (atomic_load(&comm->segment->seats[rank].written) < chunks) {
      return false;
    }
  }
  return true;
}

static bool all_read(struct nccl_comm *comm, uint64_t chunks) {
  for (int rank = 0; rank < comm->ranks; rank++) {
    if (atomic_load(&comm->segment->seats[rank].read) < chunks) {
      return false;
    }
  }
  return true;
}

/* ---- who gives, who takes -------------------------------------------------------------------- */

static size_t contribution(const struct nccl_comm *comm, const struct task *task) {
  const bool is_per_rank =
      task->what == REDUCE_SCATTER || task->what == ALL_TO_ALL || task->what == SCATTER;
  return task_bytes(task) * (is_per_rank ? comm->ranks : 1);
}

static bool gives(const struct nccl_comm *comm, const struct task *task) {
  const bool is_from_root = task->what == BROADCAST || task->what == SCATTER;
  return !is_from_root || task->root == comm->rank;
}

/* A chunk of everybody's contribution: bytes [offset, offset + size). */
struct chunk {
  size_t offset, size;
  const void *of[MOST_RANKS];
};

static void take_reduced(const struct nccl_comm *comm, const struct task *task,
                         const struct chunk *chunk, uint8_t *to) {
  reduce(&task->reduction, to, chunk->of, comm->ranks,
         chunk->size / reduce_type_size(task->reduction.type));
}

static void take_all(const struct nccl_comm *comm, const struct task *task,
                     const struct chunk *chunk) {
  for (int rank = 0; rank < comm->ranks; rank++) {
    memcpy((uint8_t *)task->to + rank * task_bytes(task) + chunk->offset, chunk->of[rank],
           chunk->size);
  }
}

/* Of contributions that hold something for each rank: the part of the chunk that is ours. */
static bool cut_own(const struct nccl_comm *comm, const struct task *task, struct chunk *chunk) {
  const size_t first = task_bytes(task) * comm->rank, end = first + task_bytes(task);
  const size_t chunk_end = chunk->offset + chunk->size;
  const size_t from = chunk->offset > first ? chunk->offset : first;
  const size_t to = chunk_end < end ? chunk_end : end;
  if (from >= to) {
    return false;
  }
  for (int rank = 0; rank < comm->ranks; rank++) {
    chunk->of[rank] = (const uint8_t *)chunk->of[rank] + (from - chunk->offset);
  }
  chunk->offset = from - first;
  chunk->size = to - from;
  return true;
}

static void take(const struct nccl_comm *comm, const struct task *task, struct chunk *chunk) {
  uint8_t *to = task->to;
  const bool is_root = task->root == comm->rank;
  switch (task->what) {
  case ALL_REDUCE:
    take_reduced(comm, task, chunk, to + chunk->offset);
    break;
  case REDUCE:
    if (is_root) {
      take_reduced(comm, task, chunk, to + chunk->offset);
    }
    break;
  case REDUCE_SCATTER:
    if (cut_own(comm, task, chunk)) {
      take_reduced(comm, task, chunk, to + chunk->offset);
    }
    break;
  case ALL_GATHER:
    take_all(comm, task, chunk);
    break;
  case GATHER:
    if (is_root) {
      take_all(comm, task, chunk);
    }
    break;
  case BROADCAST:
    memcpy(to + chunk->offset, chunk->of[task->root], chunk->size);
    break;
  case ALL_TO_ALL:
    if (cut_own(comm, task, chunk)) {
      take_all(comm, task, chunk);
    }
    break;
  case SCATTER:
    if (cut_own(comm, task, chunk)) {
      memcpy(to + chunk->offset, chunk->of[task->root], chunk->size);
    }
    break;
  default:
    break;
  }
}

/* ---- steps ----------------------------------------------------------------------------------- */

static bool pass_chunk(struct nccl_comm *comm, const struct task *task, size_t offset,
                       size_t size) {
  struct segment *segment = comm->segment;
  struct seat *seat = &segment->seats[comm->rank];
  const uint64_t number = comm->chunks++;
  struct chunk chunk = {.offset = offset, .size = size};
  /* The slot was last used for chunk number - 2. */
  if (number >= SLOTS && !wait_until(comm, all_read, number - SLOTS + 1)) {
    return false;
  }
  if (gives(comm, task)) {
    memcpy(segment_slot(segment, comm->rank, number), (const uint8_t *)task->from + offset, size);
  }
  atomic_store(&seat->written, number + 1);
  bell_ring(segment);
  if (!wait_until(comm, all_wrote, number + 1)) {
    return false;
  }
  for (int rank = 0; rank < comm->ranks; rank++) {
    chunk.of[rank] = segment_slot(segment, rank, number);
  }
  take(comm, task, &chunk);
  atomic_store(&seat->read, number + 1);
  bell_ring(segment);
  return true;
}

static uint64_t sign(const struct task *task) {
  return (uint64_t)task->what << 56 ^ (uint64_t)task->reduction.type << 48 ^
         (uint64_t)task->reduction.op << 44 ^ (uint64_t)task->root << 36 ^ task->count;
}

/* Ranks that call different things hang with NCCL, or worse. Here they are told. */
static bool agree(struct nccl_comm *comm, uint64_t number, uint64_t own) {
  for (int rank = 0; rank < comm->ranks; rank++) {
    const uint64_t other = comm->segment->seats[rank].arrivals[number % 2].signature;
    if (other != own) {
      fail(NCCL_INVALID_USAGE, "collective %llu: ranks %d and %d call different ones (%llx, %llx)",
           (unsigned long long)number, comm->rank, rank, (unsigned long long)own,
           (unsigned long long)other);
      atomic_store(&comm->state, NCCL_INVALID_USAGE);
      return false;
    }
  }
  return true;
}

bool exchange(struct nccl_comm *comm, const struct task *task, uint64_t *begin_ns,
              uint64_t *duration_ns) {
  const uint64_t number = comm->collectives++, signature = sign(task);
  *duration_ns = model_collective_ns(task, comm->ranks);
  arrival_post(comm->segment->seats[comm->rank].arrivals, number, *begin_ns, signature);
  bell_ring(comm->segment);
  if (!wait_until(comm, all_arrived, number)) {
    return false;
  }
  for (int rank = 0; rank < comm->ranks; rank++) {
    const uint64_t start_ns = comm->segment->seats[rank].arrivals[number % 2].start_ns;
    *begin_ns = start_ns > *begin_ns ? start_ns : *begin_ns;
  }
  /* If two differ, each rank differs from one of them: nobody waits for a chunk. */
  const size_t bytes = agree(comm, number, signature) ? contribution(comm, task) : 0;
  bool goes_on = true;
  for (size_t offset = 0; goes_on && offset < bytes; offset += SLOT_BYTES) {
    const size_t left = bytes - offset;
    goes_on = pass_chunk(comm, task, offset, left < SLOT_BYTES ? left : SLOT_BYTES);
  }
  return goes_on;
}
