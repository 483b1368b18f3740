// The calls of the CUDA runtime and driver that launch, copy, wait and allocate.
#ifndef GPUTAP_DEVICE_CALLS_H
#define GPUTAP_DEVICE_CALLS_H

#include <stdint.h>

namespace gputap {

// Records of CUPTI where it can choose single calls (CUDA 12.5), else callbacks of the subscriber that
// write events into the calling thread's ring. Without a subscriber (null) only the first way is left.
// Returns how many calls could be enabled.
uint32_t device_calls_enable(void *subscriber);
void device_calls_disable(void *subscriber);

// The subscriber's callback.
void device_call(void *user, uint32_t domain, uint32_t cbid, const void *data);

}  // namespace gputap

#endif
