/*
 * The memory that the ranks of a communicator share: who is there, and what passes between them.
 *
 * A new file is all zero, and that is a valid segment in which nobody sits yet: so there is no
 * creator to wait for. Each word has one writer, but for the counters of arrival and the bell.
 */
#ifndef SIMGPU_SEGMENT_H
#define SIMGPU_SEGMENT_H
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "abi.h"

enum {
  MOST_RANKS = 64,
  SLOT_BYTES = 512 << 10,
  SLOTS = 2, /* one is written while others still read the other */
  MAIL_BYTES = 256 << 10,
};

/* That a rank has come to a collective (or a transfer): odd numbers and even ones take turns, since
   a rank can be one ahead of those who still look at where it was. */
struct arrival {
  _Atomic uint64_t count; /* number + 1 */
  uint64_t start_ns;
  uint64_t signature;
};

struct seat {
  _Atomic uint32_t pid;
  struct arrival arrivals[2], splits[2];
  _Atomic uint64_t written, read; /* chunks of its slots; chunks of everybody's */
} __attribute__((aligned(128)));

/* From one rank to another: a ring of bytes. */
struct mailbox {
  struct arrival sender[2], receiver[2];
  _Atomic uint64_t written, read; /* bytes */
} __attribute__((aligned(128)));

struct segment {
  _Atomic uint32_t bell, listeners; /* a futex: rung at any change */
  _Atomic uint32_t ranks, joined;
  struct seat seats[];
  /* struct mailbox [ranks][ranks], the slots, the bytes of the mailboxes */
};

/* A fresh name for a communicator that does not exist yet. */
void segment_make_name(char *name, size_t size);

/*
 * Takes seat `rank` of `ranks` in the segment `name`, making it if need be, and waits for all
 * others. Gives up, with NCCL_INTERNAL_ERROR, when *aborted is set.
 */
nccl_result segment_join(const char *name, int ranks, int rank, const atomic_bool *aborted,
                         struct segment **segment);
void segment_leave(struct segment *segment);

uint8_t *segment_slot(const struct segment *segment, int rank, uint64_t chunk);
struct mailbox *segment_mailbox(const struct segment *segment, int from, int to);
uint8_t *segment_mail(const struct segment *segment, int from, int to);

void arrival_post(struct arrival *arrivals, uint64_t number, uint64_t start_ns, uint64_t signature);
/* NULL: not there yet. */
const struct arrival *arrival_of(const struct arrival *arrivals, uint64_t number);

/* Somebody may wait for what was changed. */
void bell_ring(struct segment *segment);
/* Listen first, look at what is waited for, then wait for a ring since. */
uint32_t bell_listen(struct segment *segment);
void bell_wait(struct segment *segment, uint32_t heard);

#endif
