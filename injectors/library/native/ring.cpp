#include "ring.h"

namespace gputap {

namespace {

constexpr uint32_t kPatienceEvents = 1024;

}  // namespace

void ring_claim(ThreadState *thread, Live *live, uint32_t torch_tid) {
  gputap_control_header *header = live->header;
  thread->ring = nullptr;
  thread->ring_patience = kPatienceEvents;
  for (uint32_t i = 0; i < header->ring_count; i++) {
    gputap_ring_header *ring = ring_at(header, i);
    if (load(&ring->state) != GPUTAP_RING_STATE_FREE) continue;
    // The tid first would race with other claimers; the reader looks only at IN_USE rings with
    // records, and those come after the tid.
    if (!change(&ring->state, (uint32_t)GPUTAP_RING_STATE_FREE, (uint32_t)GPUTAP_RING_STATE_IN_USE))
      continue;
    ring->tid = thread->tid;
    ring->torch_tid = torch_tid;
    sys::call(sys::kPrctl, sys::kGetName, (long)ring->comm);
    add(&ring->generation, 1);
    thread->records =
        (gputap_event_record *)((uint8_t *)ring + header->ring_data_offset);
    thread->mask = header->ring_capacity - 1;
    // Head and tail go on from the ring's last user: the reader keeps its place.
    thread->head = load(&ring->head);
    thread->cached_tail = load_acquire(&ring->tail);
    thread->ring = ring;
    return;
  }
}

}  // namespace gputap
