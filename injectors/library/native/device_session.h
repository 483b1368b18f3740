// One holding of CUPTI: subscribe, enable, flush, disable, give back. Device thread only.
#ifndef GPUTAP_DEVICE_SESSION_H
#define GPUTAP_DEVICE_SESSION_H

#include "live.h"

namespace gputap {

constexpr const char *kDeviceThread = "gputap-device";

// Tries to begin; returns the state it led to and leaves the reason in the header.
gputap_device_state device_session_begin(Live *live);

// Fetches what is complete and compares the clocks.
void device_session_tick(Live *live);

// Stops recording and gives everything back. `drain_ns`: how long to wait for the last records.
void device_session_end(Live *live, int64_t drain_ns);

void device_say(Live *live, const char *text);

// Since when the device thread has been inside CUPTI (monotonic ns); 0: it is not.
int64_t device_inside_since();

}  // namespace gputap

#endif
