#pragma once

namespace simcuda {

// Lets autograd's device thread let go of its last task. That task holds Python objects of the thread
// that called backward; to release them after Python's finalisation has begun aborts the process
// (CPython ends threads that want the GIL, and ~ThreadLocalState is noexcept). The thread lets go when
// it takes its next task: an empty one, of a thread that Python knows nothing of.
void finish_autograd();

}  // namespace simcuda
