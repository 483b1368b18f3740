#pragma once

#include <functional>
#include <vector>

#include "runtime.h"

namespace simcuda {

// One CUDA graph. A replay is one cudaGraphLaunch for the device; the host then does the recorded maths
// again, on the same memory. The graph keeps alive all memory that was used while it was captured.
class Graph {
 public:
  Graph() = default;
  Graph(const Graph &) = delete;
  ~Graph();

  void capture_begin();
  void capture_end();
  void replay();
  void reset();

  size_t calls() const { return calls_.size(); }
  bool captures(cudaStream_t stream) const { return capturing_ && stream == stream_; }
  void keep(std::function<void()> call) { calls_.push_back(std::move(call)); }

 private:
  std::vector<std::function<void()>> calls_;
  cudaStream_t stream_ = nullptr;
  cudaGraph_t graph_ = nullptr;
  cudaGraphExec_t exec_ = nullptr;
  bool capturing_ = false;
};

}  // namespace simcuda
