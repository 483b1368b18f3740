// What all collectives share: communicators, streams, events, the profiler's events.
#include "process_group.h"

#include <c10/core/StreamGuard.h>
#include <torch/csrc/distributed/c10d/ParamCommsUtils.hpp>

#include "flight_log.h"
#include "graph.h"

namespace simcuda {

namespace {

void check_tensors(const Tensors &tensors) {
  for (const at::Tensor &tensor : tensors) {
    TORCH_CHECK(tensor.device().type() == kType, "simnccl: tensors must be on simcuda, not on ",
                tensor.device());
    TORCH_CHECK(tensor.is_non_overlapping_and_dense(), "simnccl: tensors must be contiguous");
  }
}

at::ScalarType type_of(const Tensors &inputs, const Tensors &outputs) {
  if (!inputs.empty()) return inputs[0].scalar_type();
  return outputs.empty() ? at::ScalarType::Float : outputs[0].scalar_type();
}

}  // namespace

void check_nccl(ncclResult_t result, const char *call) {
  if (result == 0) return;
  TORCH_CHECK_WITH(DistBackendError, false, "NCCL error in ", call, ": ",
                   ncclGetErrorString ? ncclGetErrorString(result) : "?");
}

ProcessGroupSim::ProcessGroupSim(c10::intrusive_ptr<c10d::Store> store, int rank, int size,
                                 std::vector<int64_t> global_ranks)
    : Backend(rank, size), store_(std::move(store)), global_ranks_(std::move(global_ranks)) {
  TORCH_CHECK(ncclCommInitRank, "simnccl: libnccl.so.2 of the simulated stack is not loaded");
  init();
}

ProcessGroupSim::~ProcessGroupSim() { destroy_lanes(false); }

void ProcessGroupSim::destroy_lanes(bool abort) {
  for (auto &[device, lane] : lanes_) {
    if (abort)
      ncclCommAbort(lane.comm);
    else
      ncclCommDestroy(lane.comm);
    cudaEventDestroy(lane.ready);
  }
  lanes_.clear();
  pending_.clear();
}

void ProcessGroupSim::abort() { destroy_lanes(true); }

void ProcessGroupSim::shutdown() { destroy_lanes(false); }

ProcessGroupSim::Lane &ProcessGroupSim::lane(c10::Device device) {
  auto found = lanes_.find(device.index());
  if (found != lanes_.end()) return found->second;
  std::string key = "simnccl/" + std::to_string(device.index());
  ncclUniqueId id{};
  if (rank_ == 0) {
    NCCL_CHECK(ncclGetUniqueId(&id));
    store_->set(key, std::vector<uint8_t>(id.internal, id.internal + sizeof id.internal));
  } else {
    std::vector<uint8_t> bytes = store_->get(key);
    TORCH_CHECK(bytes.size() == sizeof id.internal, "simnccl: no unique id in the store");
    memcpy(id.internal, bytes.data(), bytes.size());
  }
  int before = exchange_device(device.index());
  Lane made{nullptr, pool_stream(device.index(), 0), nullptr};
  NCCL_CHECK(ncclCommInitRank(&made.comm, size_, id, rank_));
  SIMCUDA_CHECK(cudaEventCreateWithFlags(&made.ready, cudaEventDisableTiming));
  exchange_device(before);
  return lanes_.emplace(device.index(), made).first->second;
}

void ProcessGroupSim::forget_finished() {
  while (!pending_.empty() && pending_.front().first->reached()) pending_.pop_front();
}

c10::intrusive_ptr<SimWork> ProcessGroupSim::enqueue_on_lane(const Collective &what,
                                                             const Tensors &inputs,
                                                             const Tensors &outputs,
                                                             const Enqueue &enqueue) {
  // A replay would do the maths around the collective before its bytes have come.
  TORCH_CHECK(!capturing(), "simnccl: no collectives in a CUDA graph");
  c10::Device device = (outputs.empty() ? inputs : outputs).front().device();
  Lane &on = lane(device);
  c10::DeviceGuard guard(device);
  uint64_t number = what.point_to_point ? point_to_point_sequence_ : sequence_;
  auto work = c10::make_intrusive<SimWork>(rank_, what.type, what.title, inputs, outputs, number);
  if (coalescing_) {
    coalescing_device_ = device;
    for (auto &tensor : inputs) coalesced_inputs_.push_back(tensor);
    for (auto &tensor : outputs) coalesced_outputs_.push_back(tensor);
    enqueue(on);
    return work;
  }
  forget_finished();
  SIMCUDA_CHECK(cudaEventRecord(on.ready, current_handle()));
  SIMCUDA_CHECK(cudaStreamWaitEvent(handle_of(on.stream), on.ready, 0));
  enqueue(on);
  work->keep(inputs);
  work->enqueued(on.stream);
  Tensors used = inputs;
  used.insert(used.end(), outputs.begin(), outputs.end());
  pending_.emplace_back(work->end(), std::move(used));
  return work;
}

WorkPtr ProcessGroupSim::run(const Collective &what, const Tensors &inputs, const Tensors &outputs,
                             const Enqueue &enqueue) {
  check_tensors(inputs);
  check_tensors(outputs);
  uint64_t &counter = what.point_to_point ? point_to_point_sequence_ : sequence_;
  counter++;
  int first = global_ranks_.empty() ? 0 : (int)global_ranks_[0];
  int stride = global_ranks_.size() < 2 ? 1 : (int)(global_ranks_[1] - global_ranks_[0]);
  RECORD_PARAM_COMMS_DATA_WITH_ASYNC_OP(
      std::make_tuple((int64_t)counter, what.point_to_point), std::make_tuple(pg_uid_, pg_desc_),
      inputs, outputs, what.point_to_point ? what.peer : rank_, what.name, what.in_elements,
      what.out_elements, type_of(inputs, outputs), what.in_splits, what.out_splits, first, stride,
      size_, what.async_op);
  auto work = enqueue_on_lane(what, inputs, outputs, enqueue);
  flight_log_add({pg_uid_, pg_desc_, what.title, sequence_, point_to_point_sequence_, ++op_id_,
                  what.point_to_point, sizes_json(inputs), types_json(inputs), sizes_json(outputs),
                  types_json(outputs), 0, (uint64_t)pthread_self(), work->end()});
  return work;
}

void ProcessGroupSim::startCoalescing() {
  TORCH_CHECK(!coalescing_, "simnccl: already coalescing");
  // The stream waits for the caller's before anything of the group is enqueued.
  Lane &on = lane(c10::Device(kType, current_device()));
  SIMCUDA_CHECK(cudaEventRecord(on.ready, current_handle()));
  SIMCUDA_CHECK(cudaStreamWaitEvent(handle_of(on.stream), on.ready, 0));
  coalescing_ = true;
  NCCL_CHECK(ncclGroupStart());
}

WorkPtr ProcessGroupSim::endCoalescing() {
  TORCH_CHECK(coalescing_, "simnccl: not coalescing");
  coalescing_ = false;
  NCCL_CHECK(ncclGroupEnd());
  c10::Device device = coalescing_device_.value_or(c10::Device(kType, current_device()));
  auto work = c10::make_intrusive<SimWork>(rank_, c10d::OpType::COALESCED, "nccl:coalesced",
                                           coalesced_inputs_, coalesced_outputs_, sequence_);
  work->keep(coalesced_inputs_);
  work->enqueued(lane(device).stream);
  Tensors used = std::move(coalesced_inputs_);
  used.insert(used.end(), coalesced_outputs_.begin(), coalesced_outputs_.end());
  pending_.emplace_back(work->end(), std::move(used));
  coalesced_inputs_.clear();
  coalesced_outputs_.clear();
  return work;
}

}  // namespace simcuda
