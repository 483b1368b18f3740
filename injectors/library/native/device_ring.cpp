#include "device_ring.h"

#include "sys.h"

namespace gputap {

namespace {

constexpr uint64_t kAlign = 64; /* a chunk's header fits between any two chunks and the end */
constexpr uint32_t kSkip = 2;

gputap_device_chunk *chunk_at(gputap_device_ring *ring, uint64_t position, uint64_t mask) {
  return (gputap_device_chunk *)((uint8_t *)ring + sys::kPage + (position & mask));
}

}  // namespace

gputap_device_chunk *device_ring_claim(Live *live, uint32_t data_bytes, uint32_t records) {
  gputap_control_header *header = live->header;
  gputap_device_ring *ring = (gputap_device_ring *)((uint8_t *)header + header->device_ring_offset);
  uint64_t capacity = live->device_capacity, mask = capacity - 1;
  uint64_t bytes = sizeof(gputap_device_chunk) + data_bytes + records * sizeof(uint32_t);
  bytes = (bytes + kAlign - 1) & ~(kAlign - 1);
  uint64_t head = load(&ring->head), skipped;
  do {
    uint64_t to_the_end = capacity - (head & mask);
    skipped = bytes > to_the_end ? to_the_end : 0;
    if (head + skipped + bytes - load_acquire(&ring->tail) > capacity) {
      add(&ring->dropped, (uint64_t)records);
      count_drop(live, GPUTAP_DROP_CAUSE_DEVICE_RING_FULL, records);
      return nullptr;
    }
  } while (!__atomic_compare_exchange_n(&ring->head, &head, head + skipped + bytes, true,
                                        __ATOMIC_ACQ_REL, __ATOMIC_RELAXED));
  // The reader has zeroed what it read: a chunk is not ready before its writer says so.
  if (skipped) {
    gputap_device_chunk *rest = chunk_at(ring, head, mask);
    rest->bytes = (uint32_t)skipped;
    store_release(&rest->ready, kSkip);
  }
  gputap_device_chunk *chunk = chunk_at(ring, head + skipped, mask);
  chunk->bytes = (uint32_t)bytes;
  chunk->data_bytes = data_bytes;
  chunk->records = records;
  return chunk;
}

}  // namespace gputap
