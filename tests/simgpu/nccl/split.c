/* ncclCommSplit: the ranks tell each other where they go, through the parent's segment. */
#include <stdio.h>

#include "comm.h"
#include "error.h"

struct place {
  int color, key;
};

static uint64_t pack(struct place place) {
  return (uint64_t)(uint32_t)place.color << 32 | (uint32_t)place.key;
}

static struct place unpack(uint64_t packed) {
  return (struct place){(int)(packed >> 32), (int)(uint32_t)packed};
}

/* Everybody's place, once all have come to the parent's split of this number. False: aborted. */
static bool meet_places(struct nccl_comm *parent, struct place own, struct place *places) {
  struct segment *segment = parent->segment;
  const uint64_t number = parent->splits++;
  arrival_post(segment->seats[parent->rank].splits, number, 0, pack(own));
  bell_ring(segment);
  for (int rank = 0; rank < parent->ranks;) {
    const uint32_t heard = bell_listen(segment);
    const struct arrival *arrival = arrival_of(segment->seats[rank].splits, number);
    if (arrival) {
      places[rank++] = unpack(arrival->signature);
    } else if (atomic_load(&parent->aborted)) {
      return false;
    } else {
      bell_wait(segment, heard);
    }
  }
  return true;
}

static bool meet(struct nccl_comm *parent, struct place own, struct place *places) {
  engine_hold(parent);
  const bool met = meet_places(parent, own, places);
  engine_release(parent);
  return met;
}

/* The same on all ranks of one color, and never the same again. */
static void make_name(const struct nccl_comm *parent, int color, char *name, size_t size) {
  uint64_t hash = 14695981039346656037u;
  for (const char *c = parent->name; *c; c++) {
    hash = (hash ^ (uint8_t)*c) * 1099511628211u;
  }
  snprintf(name, size, "/simnccl.%016llx.%llu.%d", (unsigned long long)hash,
           (unsigned long long)parent->splits, color);
}

nccl_result ncclCommSplit(nccl_comm parent, int color, int key, nccl_comm *made,
                          nccl_config *config) {
  const nccl_result result = comm_check(parent, "ncclCommSplit");
  if (result != NCCL_SUCCESS) {
    return result;
  }
  if (!made || (color < 0 && color != NCCL_SPLIT_NOCOLOR)) {
    return fail(NCCL_INVALID_ARGUMENT, "ncclCommSplit: color %d", color);
  }
  struct place places[MOST_RANKS];
  *made = NULL;
  if (!meet(parent, (struct place){color, key}, places)) {
    return fail(NCCL_INTERNAL_ERROR, "ncclCommSplit: aborted while waiting for the other ranks");
  }
  if (color == NCCL_SPLIT_NOCOLOR) {
    return NCCL_SUCCESS;
  }
  int ranks = 0, rank = 0;
  for (int other = 0; other < parent->ranks; other++) {
    if (places[other].color != color) {
      continue;
    }
    ranks++;
    rank += places[other].key < key || (places[other].key == key && other < parent->rank);
  }
  char name[NAME_BYTES];
  make_name(parent, color, name, sizeof name);
  const bool blocking =
      config && config->blocking != NCCL_UNDEFINED ? config->blocking != 0 : parent->blocking;
  *made = comm_new(name, ranks, rank, blocking);
  (*made)->device = parent->device;
  return comm_connect_all(made, 1);
}
