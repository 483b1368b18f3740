#include "collective_work.h"

#include <c10/core/StreamGuard.h>

namespace simcuda {

EndEvent::EndEvent() { SIMCUDA_CHECK(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming)); }

EndEvent::~EndEvent() { cudaEventDestroy(event_); }

void EndEvent::record(cudaStream_t stream) { SIMCUDA_CHECK(cudaEventRecord(event_, stream)); }

void EndEvent::block(cudaStream_t stream) const {
  SIMCUDA_CHECK(cudaStreamWaitEvent(stream, event_, 0));
}

bool EndEvent::reached() const {
  cudaError_t error = cudaEventQuery(event_);
  if (error == cudaErrorNotReady) {
    cudaGetLastError();
    return false;
  }
  check(error, "cudaEventQuery");
  return true;
}

SimWork::SimWork(int rank, c10d::OpType type, const char *title,
                 const std::vector<at::Tensor> &inputs, std::vector<at::Tensor> outputs,
                 uint64_t sequence)
    : Work(rank, type, title, inputs), outputs_(std::move(outputs)), sequence_(sequence) {}

void SimWork::keep(std::vector<at::Tensor> tensors) {
  kept_.insert(kept_.end(), std::make_move_iterator(tensors.begin()),
               std::make_move_iterator(tensors.end()));
}

void SimWork::enqueued(const c10::Stream &stream) {
  end_->record(handle_of(stream));
  // The future records events of its own on the current streams: these must be the communication's.
  c10::StreamGuard guard(stream);
  future_ = c10::make_intrusive<c10::ivalue::Future>(
      c10::ListType::create(c10::TensorType::get()), std::vector<c10::Device>{stream.device()});
  if (recordFunctionEndCallback_)
    future_->addCallback([this](c10::ivalue::Future &) { recordFunctionEndCallback_(); },
                         /*use_future=*/false);
  future_->markCompleted(c10::IValue(outputs_));
}

void SimWork::synchronize() {
  int device = outputs_.empty() ? current_device() : outputs_[0].device().index();
  end_->block(handle_of(current_stream(device)));
  kept_.clear();  // what the current stream does next comes after the collective
}

bool SimWork::wait(std::chrono::milliseconds) {
  synchronize();
  if (blocks_host_) SIMCUDA_CHECK(cudaStreamSynchronize(current_handle()));
  return true;
}

}  // namespace simcuda
