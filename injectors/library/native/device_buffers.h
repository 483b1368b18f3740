// The buffers that CUPTI writes its records into, and their way into the shared memory.
#ifndef GPUTAP_DEVICE_BUFFERS_H
#define GPUTAP_DEVICE_BUFFERS_H

#include <stddef.h>
#include <stdint.h>

namespace gputap {

// Makes the first buffers, so that no thread of the job has to fault them in.
void device_buffers_prepare();

// Buffers that are with CUPTI.
uint32_t device_buffers_out();

bool device_buffer_is_ours(const uint8_t *buffer);

// CUPTI's two callbacks. They come on its own thread, on the job's, and on ours while it flushes.
void device_buffer_request(uint8_t **buffer, size_t *size, size_t *most_records);
void device_buffer_complete(void *context, uint32_t stream, uint8_t *buffer, size_t size,
                            size_t valid);

}  // namespace gputap

#endif
