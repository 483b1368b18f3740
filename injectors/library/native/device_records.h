// One buffer of CUPTI's records, copied into the shared memory with its strings by id.
#ifndef GPUTAP_DEVICE_RECORDS_H
#define GPUTAP_DEVICE_RECORDS_H

#include <stddef.h>

#include "live.h"

namespace gputap {

// Between `callback_enter_device` and `callback_leave` only.
void device_records_copy(Live *live, uint8_t *buffer, size_t valid);

// Kernels, copies and fills so far, in all sessions.
uint64_t device_work_records();

}  // namespace gputap

#endif
