// What the caching allocator did, as CUDA's does it: the newest events, while somebody wants them.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <vector>

#include "allocator.h"

namespace simcuda {

class History {
 public:
  bool on() const { return most_ != 0; }
  void record(size_t most) {
    most_ = most;
    if (!on()) events_.clear();
  }
  void note(const char *action, const void *pointer, size_t bytes, int64_t stream, int device) {
    using namespace std::chrono;
    if (!on()) return;
    if (events_.size() == most_) events_.pop_front();
    auto time_us = duration_cast<microseconds>(system_clock::now().time_since_epoch()).count();
    events_.push_back({action, (uintptr_t)pointer, bytes, stream, device, time_us});
  }
  std::vector<MemoryEvent> events() const { return {events_.begin(), events_.end()}; }

 private:
  size_t most_ = 0;
  std::deque<MemoryEvent> events_;
};

}  // namespace simcuda
