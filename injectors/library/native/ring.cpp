#include "ring.h"

namespace gputap {

namespace {

constexpr uint32_t kPatienceEvents = 1024;
constexpr uint64_t kRecordsAhead = 16384;

void free_if_read(gputap_ring_header *ring) {
  if (load_acquire(&ring->state) == GPUTAP_RING_STATE_THREAD_ENDED &&
      load(&ring->head) == load_acquire(&ring->tail))
    store_release(&ring->state, GPUTAP_RING_STATE_FREE);
}

// `pad2` of the header is nobody else's: it keeps how far the pages are made. Nothing to do once the
// ring has been gone round, nor where nothing is written.
void make_pages(const gputap_control_header *header, gputap_ring_header *ring) {
  uint64_t made, head = load(&ring->head), capacity = header->ring_capacity;
  __builtin_memcpy(&made, ring->pad2, sizeof made);
  if (made >= capacity || head == 0 || head + kRecordsAhead / 2 < made) return;
  uint64_t until = head + kRecordsAhead < capacity ? head + kRecordsAhead : capacity;
  uint8_t *records = (uint8_t *)ring + header->ring_data_offset;
  uint64_t from_byte = made * sizeof(gputap_event_record) & ~(uint64_t)(sys::kPage - 1);
  uint64_t bytes = until * sizeof(gputap_event_record) - from_byte;
  sys::call(sys::kMadvise, (long)(records + from_byte), (long)bytes, sys::kMadvPopulateWrite);
  __builtin_memcpy(ring->pad2, &until, sizeof until);
}

}  // namespace

void rings_look_after(Live *live) {
  gputap_control_header *header = live->header;
  for (uint32_t i = 0; i < header->ring_count; i++) {
    gputap_ring_header *ring = ring_at(header, i);
    // Slots are claimed from the first on: an untouched one ends the used part.
    if (!load(&ring->generation)) break;
    free_if_read(ring);
    make_pages(header, ring);
  }
}

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
