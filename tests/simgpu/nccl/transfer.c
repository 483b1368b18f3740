/*
 * What is sent and received in one group: all of it goes on at the same time, in bytes through the
 * mailboxes, whatever the order of the calls. Of several to the same peer the first comes first.
 */
#include <string.h>

#include "comm.h"
#include "error.h"
#include "model.h"

struct passage {
  const struct task *task;
  struct nccl_comm *comm;
  struct mailbox *box;
  uint8_t *mail;
  struct arrival *own, *others;
  uint64_t number, *turn; /* it is its turn when *turn == number */
  uint64_t start_ns, met_ns;
  size_t done;
  bool is_send, posted, met, finished;
};

static struct passage make_passage(struct nccl_comm *comm, const struct task *task,
                                   uint64_t start_ns) {
  struct peer *peer = &comm->peers[task->root];
  const bool is_send = task->what == SEND;
  const int from = is_send ? comm->rank : task->root, to = is_send ? task->root : comm->rank;
  struct mailbox *box = segment_mailbox(comm->segment, from, to);
  return (struct passage){
      .task = task,
      .comm = comm,
      .box = box,
      .mail = segment_mail(comm->segment, from, to),
      .own = is_send ? box->sender : box->receiver,
      .others = is_send ? box->receiver : box->sender,
      .number = is_send ? peer->sends++ : peer->receives++,
      .turn = is_send ? &peer->sends_done : &peer->receives_done,
      .start_ns = start_ns,
      .is_send = is_send,
  };
}

static void finish(struct passage *passage) {
  passage->finished = true;
  ++*passage->turn;
}

/* Both sides know of each other, and both skip what does not fit. */
static bool meet(struct passage *passage) {
  const struct arrival *other = arrival_of(passage->others, passage->number);
  if (!other) {
    return false;
  }
  const uint64_t bytes = task_bytes(passage->task);
  passage->met = true;
  passage->met_ns = other->start_ns > passage->start_ns ? other->start_ns : passage->start_ns;
  if (other->signature != bytes) {
    fail(NCCL_INVALID_USAGE, "rank %d and peer %d: %llu bytes are not %llu", passage->comm->rank,
         passage->task->root, (unsigned long long)bytes, (unsigned long long)other->signature);
    atomic_store(&passage->comm->state, NCCL_INVALID_USAGE);
    finish(passage);
  }
  return true;
}

/* Up to the end of the ring; the rest in the next turn. */
static size_t piece(size_t wanted, size_t available, uint64_t position) {
  const size_t to_end = MAIL_BYTES - position % MAIL_BYTES;
  size_t size = wanted < available ? wanted : available;
  return size < to_end ? size : to_end;
}

static bool move(struct passage *passage) {
  struct mailbox *box = passage->box;
  const uint64_t written = atomic_load(&box->written), read = atomic_load(&box->read);
  const size_t left = task_bytes(passage->task) - passage->done;
  size_t size;
  if (passage->is_send) {
    size = piece(left, MAIL_BYTES - (written - read), written);
    memcpy(passage->mail + written % MAIL_BYTES, (const char *)passage->task->from + passage->done,
           size);
    atomic_store(&box->written, written + size);
  } else {
    size = piece(left, written - read, read);
    memcpy((char *)passage->task->to + passage->done, passage->mail + read % MAIL_BYTES, size);
    atomic_store(&box->read, read + size);
  }
  passage->done += size;
  if (size == left) {
    finish(passage);
  }
  return size > 0 || size == left;
}

static bool progress(struct passage *passage) {
  if (passage->finished || *passage->turn != passage->number) {
    return false;
  }
  if (!passage->posted) {
    passage->posted = true;
    arrival_post(passage->own, passage->number, passage->start_ns, task_bytes(passage->task));
    return true;
  }
  return passage->met ? move(passage) : meet(passage);
}

/* False: aborted. */
static bool run(struct nccl_comm *comm, struct passage *passages, int count) {
  for (int left = count; left;) {
    const uint32_t heard = bell_listen(comm->segment);
    bool moved = false;
    left = 0;
    for (int i = 0; i < count; i++) {
      moved |= progress(&passages[i]);
      left += !passages[i].finished;
    }
    if (moved) {
      bell_ring(comm->segment);
    } else if (atomic_load(&comm->aborted)) {
      return false;
    } else if (left) {
      bell_wait(comm->segment, heard);
    }
  }
  return true;
}

bool transfer(struct nccl_comm *comm, const struct task *tasks, int count, uint64_t *begin_ns,
              uint64_t *duration_ns) {
  struct passage passages[count];
  size_t sent = 0, received = 0;
  for (int i = 0; i < count; i++) {
    passages[i] = make_passage(comm, &tasks[i], *begin_ns);
    *(passages[i].is_send ? &sent : &received) += task_bytes(&tasks[i]);
  }
  *duration_ns = model_transfer_ns(sent > received ? sent : received);
  if (!run(comm, passages, count)) {
    return false;
  }
  for (int i = 0; i < count; i++) {
    *begin_ns = passages[i].met_ns > *begin_ns ? passages[i].met_ns : *begin_ns;
  }
  return true;
}
