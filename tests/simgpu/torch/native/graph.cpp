#include "graph.h"

#include <c10/util/Exception.h>

#include <atomic>
#include <mutex>

#include "graph_object.h"

namespace simcuda {

namespace {

// One capture at a time in a process, as PyTorch has it; autograd's threads take part in it.
std::atomic<Graph *> g_capturing{nullptr};
std::mutex g_mutex;

}  // namespace

bool capturing() {
  Graph *graph = g_capturing.load(std::memory_order_acquire);
  return graph && graph->captures(current_handle());
}

void record_for_replay(const std::function<void()> &again) {
  std::lock_guard<std::mutex> lock(g_mutex);
  if (Graph *graph = g_capturing.load()) graph->keep(again);
}

Graph::~Graph() {
  try {
    reset();
  } catch (...) {  // the runtime may be gone at the end of the process
  }
}

void Graph::capture_begin() {
  TORCH_CHECK(!exec_, "This CUDAGraph instance already owns a captured graph. Call reset() first.");
  TORCH_CHECK(!g_capturing.load(), "Another capture is under way.");
  stream_ = current_handle();
  TORCH_CHECK(stream_, "CUDA graphs must be captured on a non-default stream.");
  SIMCUDA_CHECK(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeGlobal));
  capturing_ = true;
  g_capturing.store(this, std::memory_order_release);
}

void Graph::capture_end() {
  TORCH_CHECK(capturing_, "capture_end without capture_begin.");
  g_capturing.store(nullptr);
  capturing_ = false;
  SIMCUDA_CHECK(cudaStreamEndCapture(stream_, &graph_));
  SIMCUDA_CHECK(cudaGraphInstantiateWithFlags(&exec_, graph_, 0));
}

void Graph::replay() {
  TORCH_CHECK(exec_, "Called CUDAGraph::replay without a preceding successful capture.");
  cudaStream_t stream = current_handle();
  settle(stream);
  SIMCUDA_CHECK(cudaGraphLaunch(exec_, stream));
  for (auto &call : calls_) call();
}

void Graph::reset() {
  if (capturing_) capture_end();
  if (exec_) SIMCUDA_CHECK(cudaGraphExecDestroy(exec_));
  if (graph_) SIMCUDA_CHECK(cudaGraphDestroy(graph_));
  exec_ = nullptr;
  graph_ = nullptr;
  calls_.clear();
}

}  // namespace simcuda
