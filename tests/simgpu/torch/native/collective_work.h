// One collective that has been enqueued.
#pragma once

#include <torch/csrc/distributed/c10d/Work.hpp>

#include "runtime.h"

namespace simcuda {

// An event that marks the end of a collective on the communication stream.
class EndEvent {
 public:
  EndEvent();
  EndEvent(const EndEvent &) = delete;
  ~EndEvent();
  void record(cudaStream_t stream);
  void block(cudaStream_t stream) const;
  bool reached() const;

 private:
  cudaEvent_t event_ = nullptr;
};

class SimWork final : public c10d::Work {
 public:
  SimWork(int rank, c10d::OpType type, const char *title, const std::vector<at::Tensor> &inputs,
          std::vector<at::Tensor> outputs, uint64_t sequence);

  bool isCompleted() override { return end_->reached(); }
  bool isSuccess() const override { return true; }
  // Makes the current stream wait, not the host; a barrier makes the host wait.
  bool wait(std::chrono::milliseconds timeout) override;
  void synchronize() override;
  std::vector<at::Tensor> result() override { return outputs_; }
  c10::intrusive_ptr<c10::ivalue::Future> getFuture() override { return future_; }
  uint64_t getSequencenumber() const override { return sequence_; }

  // After the last enqueue on `stream`, which carries the future's event as well.
  void enqueued(const c10::Stream &stream);
  void keep(std::vector<at::Tensor> tensors);
  void block_host() { blocks_host_ = true; }
  std::shared_ptr<EndEvent> end() const { return end_; }

 private:
  std::vector<at::Tensor> outputs_;
  std::vector<at::Tensor> kept_;  // alive until waited for: the device still works on them
  std::shared_ptr<EndEvent> end_ = std::make_shared<EndEvent>();
  c10::intrusive_ptr<c10::ivalue::Future> future_;
  uint64_t sequence_;
  bool blocks_host_ = false;
};

}  // namespace simcuda
