// A source that Python runs between two steps, again and again: for what only the interpreter can
// read, such as the statistics of torch's allocator.
#ifndef GPUTAP_PYTHON_SAMPLES_H
#define GPUTAP_PYTHON_SAMPLES_H

#include <stdint.h>

#include "live.h"

namespace gputap {

// Copies the source, or forgets the last one if `length` is 0. Samples are `period_ns` apart, or more
// where Python is slow. 0 or -errno. Control thread.
int32_t python_samples_set(const char *source, uint32_t length, int64_t period_ns);

// A step has ended on the calling thread, which is the target's: at most it wakes our Python thread,
// once in a period. `boundary` counts the ends.
void python_samples_boundary(uint64_t now, uint64_t boundary);

// Control thread: what was answered goes into the shared memory; where no step ends, the time comes
// from here.
void python_samples_turn(Live *live);

// The session's end: what Python holds of ours is dropped as soon as the GIL is to be had.
void python_samples_end();

// On the Python thread, with the GIL.
void python_samples_run();

void python_samples_forget_after_fork();

}  // namespace gputap

#endif
