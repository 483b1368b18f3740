// The device level: CUPTI taken and given back, all of it on a thread of its own, since a call into
// CUPTI may take seconds or not return.
#ifndef GPUTAP_DEVICE_H
#define GPUTAP_DEVICE_H

#include "live.h"

namespace gputap {

// --- the control thread's

// What gputap wants from here on. 0, or -errno where there can be no thread.
int32_t device_want(Live *live, bool on);

// Marks a call into CUPTI that does not return.
void device_look_after(Live *live);

// Lets go of CUPTI and ends the thread. False: it is stuck, and may still touch the shared memory.
bool device_shut_down(Live *live, int64_t timeout_ns);

// --- threads of the job, by way of device_manners.h

// Lets go of CUPTI, waiting for that until `timeout_ns` have passed.
void device_yield(int64_t timeout_ns);

// The target's own profiler is done: we may come back.
void device_resume();

// --- in a forked child
void device_forget_after_fork();

}  // namespace gputap

#endif
