#include "segment.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "error.h"

enum { PAGE = 4096 };

static size_t mailboxes_offset(int ranks) {
  return (sizeof(struct segment) + ranks * sizeof(struct seat) + 127) & ~(size_t)127;
}

static size_t slots_offset(int ranks) {
  const size_t end = mailboxes_offset(ranks) + (size_t)ranks * ranks * sizeof(struct mailbox);
  return (end + PAGE - 1) & ~(size_t)(PAGE - 1);
}

static size_t mail_offset(int ranks) {
  return slots_offset(ranks) + (size_t)ranks * SLOTS * SLOT_BYTES;
}

/* Most of it is never touched, and takes no memory. */
static size_t segment_size(int ranks) {
  return mail_offset(ranks) + (size_t)ranks * ranks * MAIL_BYTES;
}

uint8_t *segment_slot(const struct segment *segment, int rank, uint64_t chunk) {
  uint8_t *slots = (uint8_t *)segment + slots_offset((int)segment->ranks);
  return slots + ((size_t)rank * SLOTS + chunk % SLOTS) * SLOT_BYTES;
}

struct mailbox *segment_mailbox(const struct segment *segment, int from, int to) {
  uint8_t *boxes = (uint8_t *)segment + mailboxes_offset((int)segment->ranks);
  return (struct mailbox *)boxes + (size_t)from * segment->ranks + to;
}

uint8_t *segment_mail(const struct segment *segment, int from, int to) {
  uint8_t *mail = (uint8_t *)segment + mail_offset((int)segment->ranks);
  return mail + ((size_t)from * segment->ranks + to) * MAIL_BYTES;
}

void segment_make_name(char *name, size_t size) {
  uint64_t unique;
  if (getrandom(&unique, sizeof unique, 0) != sizeof unique) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    unique = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
  }
  snprintf(name, size, "/simnccl.%u.%d.%016llx", geteuid(), getpid(), (unsigned long long)unique);
}

static struct segment *map(const char *name, int ranks) {
  const size_t size = segment_size(ranks);
  const int fd = shm_open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) {
    return NULL;
  }
  void *memory = MAP_FAILED;
  if (ftruncate(fd, (off_t)size) == 0) {
    memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  }
  const int error = errno;
  close(fd);
  errno = error;
  return memory == MAP_FAILED ? NULL : memory;
}

static nccl_result take_seat(struct segment *segment, int ranks, int rank) {
  uint32_t none = 0;
  if (!atomic_compare_exchange_strong(&segment->ranks, &none, (uint32_t)ranks) &&
      none != (uint32_t)ranks) {
    return fail(NCCL_INVALID_ARGUMENT, "rank %d comes with %d ranks, another with %u", rank, ranks,
                none);
  }
  none = 0;
  if (!atomic_compare_exchange_strong(&segment->seats[rank].pid, &none, (uint32_t)getpid())) {
    return fail(NCCL_INVALID_USAGE, "rank %d is there already, as pid %u", rank, none);
  }
  atomic_fetch_add(&segment->joined, 1);
  bell_ring(segment);
  return NCCL_SUCCESS;
}

nccl_result segment_join(const char *name, int ranks, int rank, const atomic_bool *aborted,
                         struct segment **joined) {
  struct segment *segment = map(name, ranks);
  if (!segment) {
    return fail(NCCL_SYSTEM_ERROR, "shared memory %s: %s", name, strerror(errno));
  }
  nccl_result result = take_seat(segment, ranks, rank);
  while (result == NCCL_SUCCESS) {
    const uint32_t heard = bell_listen(segment);
    if (atomic_load(&segment->joined) == (uint32_t)ranks) {
      break;
    }
    if (atomic_load(aborted)) {
      result = fail(NCCL_INTERNAL_ERROR, "aborted while waiting for the other ranks");
    } else {
      bell_wait(segment, heard);
    }
  }
  shm_unlink(name); /* everybody has it mapped, or nobody shall come any more */
  if (result != NCCL_SUCCESS) {
    munmap(segment, segment_size(ranks));
    return result;
  }
  *joined = segment;
  return NCCL_SUCCESS;
}

void segment_leave(struct segment *segment) { munmap(segment, segment_size((int)segment->ranks)); }

void arrival_post(struct arrival *arrivals, uint64_t number, uint64_t start_ns,
                  uint64_t signature) {
  struct arrival *arrival = &arrivals[number % 2];
  arrival->start_ns = start_ns;
  arrival->signature = signature;
  atomic_store(&arrival->count, number + 1);
}

const struct arrival *arrival_of(const struct arrival *arrivals, uint64_t number) {
  const struct arrival *arrival = &arrivals[number % 2];
  return atomic_load(&arrival->count) == number + 1 ? arrival : NULL;
}

void bell_ring(struct segment *segment) {
  atomic_fetch_add(&segment->bell, 1);
  if (atomic_load(&segment->listeners)) {
    syscall(SYS_futex, &segment->bell, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
  }
}

uint32_t bell_listen(struct segment *segment) { return atomic_load(&segment->bell); }

void bell_wait(struct segment *segment, uint32_t heard) {
  /* A rank that was killed rings no more, and its local flags are seen by looking again. */
  const struct timespec timeout = {0, 100 * 1000 * 1000};
  atomic_fetch_add(&segment->listeners, 1);
  syscall(SYS_futex, &segment->bell, FUTEX_WAIT, heard, &timeout, NULL, 0);
  atomic_fetch_sub(&segment->listeners, 1);
}
