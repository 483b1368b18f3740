// When every operator is recorded: whole steps, or slices of time where there are no steps, as often
// as the budget allows.
#ifndef GPUTAP_BURSTS_H
#define GPUTAP_BURSTS_H

#include "threads.h"

namespace gputap {

enum Boundary : uint32_t { kNoBoundary, kOptimizerBoundary, kLoaderBoundary };

// A step boundary on the calling thread, from inside its callback.
void bursts_boundary(Live *live, ThreadState *thread, Boundary kind);

// Control thread only, in this order: begin, ticks, end.
void bursts_begin(Live *live);
void bursts_tick(Live *live);
void bursts_end(Live *live);

// How long the control thread may sleep.
int64_t bursts_wait_ns();

}  // namespace gputap

#endif
