// The c10d backend "simnccl": collectives of the simulated NCCL, in the manner of ProcessGroupNCCL.
#pragma once

#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include <deque>
#include <functional>

#include "collective_api.h"
#include "collective_work.h"

namespace simcuda {

using Tensors = std::vector<at::Tensor>;
using WorkPtr = c10::intrusive_ptr<c10d::Work>;

// Throws what PyTorch throws for a failed NCCL call.
void check_nccl(ncclResult_t result, const char *call);
#define NCCL_CHECK(call) ::simcuda::check_nccl(call, #call)

// What one call of a collective is, for profilers and for the enqueue.
struct Collective {
  c10d::OpType type;
  const char *name;   // in record_param_comms: "allreduce"
  const char *title;  // of the profiler's event: "nccl:all_reduce"
  bool async_op;
  int64_t in_elements, out_elements;
  std::vector<int64_t> in_splits{}, out_splits{};
  bool point_to_point = false;
  int peer = -1;
};

class ProcessGroupSim final : public c10d::Backend {
 public:
  ProcessGroupSim(c10::intrusive_ptr<c10d::Store> store, int rank, int size,
                  std::vector<int64_t> global_ranks);
  ~ProcessGroupSim() override;

  const std::string getBackendName() const override { return "simnccl"; }
  bool supportsCoalescing() const override { return true; }
  void setTimeout(std::chrono::milliseconds) override {}
  void startCoalescing() override;
  WorkPtr endCoalescing() override;
  void setSequenceNumberForGroup() override {}
  uint64_t getSequenceNumberForGroup() override { return sequence_; }
  c10d::ErrorType getError() override { return c10d::ErrorType::SUCCESS; }
  void eagerConnectSingleDevice(at::Device device) override { lane(device); }
  void abort() override;
  void shutdown() override;

  WorkPtr broadcast(Tensors &, const c10d::BroadcastOptions &) override;
  WorkPtr allreduce(Tensors &, const c10d::AllreduceOptions &) override;
  WorkPtr allreduce_coalesced(Tensors &, const c10d::AllreduceCoalescedOptions &) override;
  WorkPtr reduce(Tensors &, const c10d::ReduceOptions &) override;
  WorkPtr allgather(std::vector<Tensors> &, Tensors &, const c10d::AllgatherOptions &) override;
  WorkPtr _allgather_base(at::Tensor &, at::Tensor &, const c10d::AllgatherOptions &) override;
  WorkPtr allgather_into_tensor_coalesced(Tensors &, Tensors &,
                                          const c10d::AllgatherOptions &) override;
  WorkPtr reduce_scatter(Tensors &, std::vector<Tensors> &,
                         const c10d::ReduceScatterOptions &) override;
  WorkPtr _reduce_scatter_base(at::Tensor &, at::Tensor &,
                               const c10d::ReduceScatterOptions &) override;
  WorkPtr reduce_scatter_tensor_coalesced(Tensors &, Tensors &,
                                          const c10d::ReduceScatterOptions &) override;
  WorkPtr alltoall_base(at::Tensor &, at::Tensor &, std::vector<int64_t> &, std::vector<int64_t> &,
                        const c10d::AllToAllOptions &) override;
  WorkPtr alltoall(Tensors &, Tensors &, const c10d::AllToAllOptions &) override;
  WorkPtr gather(std::vector<Tensors> &, Tensors &, const c10d::GatherOptions &) override;
  WorkPtr scatter(Tensors &, std::vector<Tensors> &, const c10d::ScatterOptions &) override;
  WorkPtr send(Tensors &, int destination, int tag) override;
  WorkPtr recv(Tensors &, int source, int tag) override;
  WorkPtr barrier(const c10d::BarrierOptions &) override;

 private:
  // A communicator with its stream, on one device.
  struct Lane {
    ncclComm_t comm;
    c10::Stream stream;
    cudaEvent_t ready;  // the caller's stream has come so far
  };
  // Enqueues calls of NCCL (and copies) on the lane's stream.
  using Enqueue = std::function<void(const Lane &)>;

  Lane &lane(c10::Device device);
  WorkPtr run(const Collective &what, const Tensors &inputs, const Tensors &outputs,
              const Enqueue &enqueue);
  c10::intrusive_ptr<SimWork> enqueue_on_lane(const Collective &what, const Tensors &inputs,
                                              const Tensors &outputs, const Enqueue &enqueue);
  void forget_finished();
  void destroy_lanes(bool abort);

  c10::intrusive_ptr<c10d::Store> store_;
  std::vector<int64_t> global_ranks_;
  std::map<c10::DeviceIndex, Lane> lanes_;
  // Collectives that nobody may hold any more still use their tensors.
  std::deque<std::pair<std::shared_ptr<EndEvent>, Tensors>> pending_;
  c10::intrusive_ptr<SimWork> coalesced_;
  bool coalescing_ = false;
  std::optional<c10::Device> coalescing_device_;
  Tensors coalesced_outputs_, coalesced_inputs_;
  uint64_t sequence_ = 0, point_to_point_sequence_ = 0, op_id_ = 0;
};

}  // namespace simcuda
