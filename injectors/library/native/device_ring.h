// The ring that CUPTI's records leave through: chunks of bytes, many writers, one reader.
#ifndef GPUTAP_DEVICE_RING_H
#define GPUTAP_DEVICE_RING_H

#include "live.h"

namespace gputap {

// Room for a chunk with so many bytes of records and so many offsets behind them. Null, and the
// records counted, where the ring is full. Others wait behind it until it is published.
gputap_device_chunk *device_ring_claim(Live *live, uint32_t data_bytes, uint32_t records);

inline uint8_t *chunk_data(gputap_device_chunk *chunk) { return (uint8_t *)(chunk + 1); }

inline uint32_t *chunk_offsets(gputap_device_chunk *chunk) {
  return (uint32_t *)(chunk_data(chunk) + chunk->data_bytes);
}

inline void device_ring_publish(gputap_device_chunk *chunk) { store_release(&chunk->ready, 1); }

}  // namespace gputap

#endif
