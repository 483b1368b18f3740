// Single producer, single consumer rings in the shared memory. Full means: drop and count.
#ifndef GPUTAP_RING_H
#define GPUTAP_RING_H

#include "threads.h"

namespace gputap {

// Claims a ring for the thread. Does nothing if none is free.
void ring_claim(ThreadState *thread, Live *live, uint32_t torch_tid);

// Control thread: frees the rings of ended threads that have been read, and has the kernel make the
// pages that will be written next, so that the job's threads do not fault them in.
void rings_look_after(Live *live);

inline bool ring_is_full(ThreadState *thread) {
  if (GPUTAP_LIKELY(thread->head - thread->cached_tail <= thread->mask)) return false;
  thread->cached_tail = load_acquire(&thread->ring->tail);
  return thread->head - thread->cached_tail > thread->mask;
}

// The next record to fill; null (and counted) if there is no room.
inline gputap_event_record *ring_reserve(ThreadState *thread, Live *live) {
  if (GPUTAP_UNLIKELY(!thread->ring)) {
    if (thread->ring_patience-- == 0) ring_claim(thread, live, 0);
    if (!thread->ring) {
      count_drop(live, GPUTAP_DROP_CAUSE_NO_RING);
      return nullptr;
    }
  }
  if (GPUTAP_UNLIKELY(ring_is_full(thread))) {
    store(&thread->ring->dropped, thread->ring->dropped + 1);
    return nullptr;
  }
  return &thread->records[thread->head & thread->mask];
}

inline void ring_publish(ThreadState *thread) {
  thread->head++;
  store_release(&thread->ring->head, thread->head);
}

inline gputap_ring_header *ring_at(gputap_control_header *header, uint32_t index) {
  return (gputap_ring_header *)((uint8_t *)header + header->rings_offset +
                                index * header->ring_stride);
}

}  // namespace gputap

#endif
