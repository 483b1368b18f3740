// CUDA graphs: what the host has to do again when the device replays a graph.
#pragma once

#include <functional>

namespace simcuda {

// This thread is between capture_begin and capture_end.
bool capturing();

// Keeps `again` for replays if this thread is capturing. It must own all that it touches.
void record_for_replay(const std::function<void()> &again);

}  // namespace simcuda
