// The window: between START and STOP, or its deadline.
#ifndef GPUTAP_WINDOW_H
#define GPUTAP_WINDOW_H

#include "live.h"

namespace gputap {

void window_open(Live *live);

// Closes and waits until no callback writes any more. False if one stayed inside.
bool window_close(Live *live, gputap_stop_reason reason);

bool window_is_open();

// The window's length is over.
bool window_is_due(Live *live);

// Refreshes the counters in the header.
void window_count(Live *live);

}  // namespace gputap

#endif
