// The collectives: which NCCL calls each one is.
#include <ATen/ops/empty.h>

#include "allocator.h"
#include "process_group.h"

namespace simcuda {

namespace {

using c10d::OpType;
using c10d::ReduceOp;

ncclDataType_t type_of(const at::Tensor &tensor) {
  switch (tensor.scalar_type()) {
    case at::ScalarType::Char: return 0;
    case at::ScalarType::Byte: return 1;
    case at::ScalarType::Bool: return 1;
    case at::ScalarType::Int: return 2;
    case at::ScalarType::Long: return 4;
    case at::ScalarType::Half: return 6;
    case at::ScalarType::Float: return 7;
    case at::ScalarType::Double: return 8;
    case at::ScalarType::BFloat16: return 9;
    default: TORCH_CHECK(false, "simnccl: NCCL has no type for ", tensor.scalar_type());
  }
}

// The reduction as NCCL knows it; a scaled sum is made for one call.
class Reduction {
 public:
  Reduction(const ReduceOp &op, const at::Tensor &tensor, ncclComm_t comm) : comm_(comm) {
    switch (op.op_) {
      // Bytes of a bool would add up to more than one.
      case ReduceOp::SUM: code = tensor.scalar_type() == at::kBool ? ncclMax : ncclSum; return;
      case ReduceOp::AVG: code = ncclAvg; return;
      case ReduceOp::PRODUCT: code = ncclProd; return;
      case ReduceOp::MIN: code = ncclMin; return;
      case ReduceOp::MAX: code = ncclMax; return;
      case ReduceOp::PREMUL_SUM: scaled(op, tensor); return;
      default: TORCH_CHECK(false, "simnccl: NCCL does not have this reduction");
    }
  }
  Reduction(const Reduction &) = delete;
  ~Reduction() {
    if (made_) ncclRedOpDestroy(code, comm_);
  }

  ncclRedOp_t code = ncclSum;

 private:
  void scaled(const ReduceOp &op, const at::Tensor &tensor) {
    auto *factor = static_cast<c10d::PreMulSumSupplement *>(op.supplement_.get());
    TORCH_CHECK(factor && !factor->tensor_factor.defined() && tensor.scalar_type() == at::kFloat,
                "simnccl: PREMUL_SUM takes a number as factor, and float tensors");
    float scalar = (float)factor->double_factor;
    NCCL_CHECK(ncclRedOpCreatePreMulSum(&code, &scalar, type_of(tensor), ncclScalarHostImmediate,
                                        comm_));
    made_ = true;
  }

  ncclComm_t comm_;
  bool made_ = false;
};

// Several calls of NCCL as one launch.
template <typename Body>
void grouped(Body body) {
  NCCL_CHECK(ncclGroupStart());
  body();
  NCCL_CHECK(ncclGroupEnd());
}

int64_t elements(const Tensors &tensors) {
  int64_t all = 0;
  for (const at::Tensor &tensor : tensors) all += tensor.numel();
  return all;
}

at::Tensor flat_like(const Tensors &tensors) {
  return at::empty({elements(tensors)}, tensors.front().options());
}

// Not by at::copy_: that would wait on the host until the collective's bytes are there.
void copy_device(void *to, const void *from, size_t bytes, cudaStream_t stream) {
  if (bytes) SIMCUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream));
}

void same_sizes(const Tensors &tensors) {
  for (const at::Tensor &tensor : tensors)
    TORCH_CHECK(tensor.numel() == tensors.front().numel() &&
                    tensor.scalar_type() == tensors.front().scalar_type(),
                "simnccl: all tensors of a list must have the same size and type");
}

char *at_element(const at::Tensor &tensor, int64_t element) {
  return static_cast<char *>(tensor.data_ptr()) + element * tensor.itemsize();
}

}  // namespace

WorkPtr ProcessGroupSim::allreduce(Tensors &tensors, const c10d::AllreduceOptions &options) {
  TORCH_CHECK(tensors.size() == 1, "simnccl: one tensor a device");
  at::Tensor tensor = tensors[0];
  return run({OpType::ALLREDUCE, "allreduce", "nccl:all_reduce", options.asyncOp, tensor.numel(),
              tensor.numel()},
             tensors, tensors, [&, tensor](const Lane &on) {
               Reduction op(options.reduceOp, tensor, on.comm);
               NCCL_CHECK(ncclAllReduce(tensor.data_ptr(), tensor.data_ptr(), tensor.numel(),
                                        type_of(tensor), op.code, on.comm, handle_of(on.stream)));
             });
}

WorkPtr ProcessGroupSim::allreduce_coalesced(Tensors &tensors,
                                             const c10d::AllreduceCoalescedOptions &options) {
  return run({OpType::COALESCED, "allreduce_coalesced", "nccl:allreduce_coalesced", options.asyncOp,
              elements(tensors), elements(tensors)},
             tensors, tensors, [&](const Lane &on) {
               grouped([&] {
                 for (const at::Tensor &tensor : tensors) {
                   Reduction op(options.reduceOp, tensor, on.comm);
                   NCCL_CHECK(ncclAllReduce(tensor.data_ptr(), tensor.data_ptr(), tensor.numel(),
                                            type_of(tensor), op.code, on.comm,
                                            handle_of(on.stream)));
                 }
               });
             });
}

WorkPtr ProcessGroupSim::broadcast(Tensors &tensors, const c10d::BroadcastOptions &options) {
  TORCH_CHECK(tensors.size() == 1, "simnccl: one tensor a device");
  at::Tensor tensor = tensors[0];
  int root = (int)options.rootRank;
  return run({OpType::BROADCAST, "broadcast", "nccl:broadcast", options.asyncOp, tensor.numel(),
              tensor.numel()},
             tensors, tensors, [=](const Lane &on) {
               NCCL_CHECK(ncclBroadcast(tensor.data_ptr(), tensor.data_ptr(), tensor.numel(),
                                        type_of(tensor), root, on.comm, handle_of(on.stream)));
             });
}

WorkPtr ProcessGroupSim::reduce(Tensors &tensors, const c10d::ReduceOptions &options) {
  TORCH_CHECK(tensors.size() == 1, "simnccl: one tensor a device");
  at::Tensor tensor = tensors[0];
  return run({OpType::REDUCE, "reduce", "nccl:reduce", options.asyncOp, tensor.numel(),
              tensor.numel()},
             tensors, tensors, [&, tensor](const Lane &on) {
               Reduction op(options.reduceOp, tensor, on.comm);
               NCCL_CHECK(ncclReduce(tensor.data_ptr(), tensor.data_ptr(), tensor.numel(),
                                     type_of(tensor), op.code, (int)options.rootRank, on.comm,
                                     handle_of(on.stream)));
             });
}

WorkPtr ProcessGroupSim::allgather(std::vector<Tensors> &outputs, Tensors &inputs,
                                   const c10d::AllgatherOptions &options) {
  TORCH_CHECK(inputs.size() == 1 && outputs.size() == 1, "simnccl: one tensor a device");
  same_sizes(outputs[0]);
  at::Tensor input = inputs[0], flat = flat_like(outputs[0]);
  return run({OpType::ALLGATHER, "all_gather", "nccl:all_gather", options.asyncOp, input.numel(),
              elements(outputs[0])},
             inputs, outputs[0], [&, input, flat](const Lane &on) {
               cudaStream_t stream = handle_of(on.stream);
               NCCL_CHECK(ncclAllGather(input.data_ptr(), flat.data_ptr(), input.numel(),
                                        type_of(input), on.comm, stream));
               int64_t done = 0;
               for (const at::Tensor &output : outputs[0]) {
                 copy_device(output.data_ptr(), at_element(flat, done), output.nbytes(), stream);
                 done += output.numel();
               }
               allocator()->recordStream(flat.storage().data_ptr(), on.stream);
             });
}

WorkPtr ProcessGroupSim::_allgather_base(at::Tensor &output, at::Tensor &input,
                                         const c10d::AllgatherOptions &options) {
  TORCH_CHECK(output.numel() == input.numel() * size_ && output.scalar_type() == input.scalar_type(),
              "simnccl: output must be world size times the input");
  return run({OpType::_ALLGATHER_BASE, "_allgather_base", "nccl:_all_gather_base", options.asyncOp,
              input.numel(), output.numel()},
             {input}, {output}, [=](const Lane &on) {
               NCCL_CHECK(ncclAllGather(input.data_ptr(), output.data_ptr(), input.numel(),
                                        type_of(input), on.comm, handle_of(on.stream)));
             });
}

WorkPtr ProcessGroupSim::allgather_into_tensor_coalesced(Tensors &outputs, Tensors &inputs,
                                                         const c10d::AllgatherOptions &options) {
  return run({OpType::COALESCED, "allgather_into_tensor_coalesced",
              "nccl:all_gather_into_tensor_coalesced", options.asyncOp, elements(inputs),
              elements(outputs)},
             inputs, outputs, [&](const Lane &on) {
               grouped([&] {
                 for (size_t i = 0; i < inputs.size(); i++)
                   NCCL_CHECK(ncclAllGather(inputs[i].data_ptr(), outputs[i].data_ptr(),
                                            inputs[i].numel(), type_of(inputs[i]), on.comm,
                                            handle_of(on.stream)));
               });
             });
}

WorkPtr ProcessGroupSim::reduce_scatter(Tensors &outputs, std::vector<Tensors> &inputs,
                                        const c10d::ReduceScatterOptions &options) {
  TORCH_CHECK(inputs.size() == 1 && outputs.size() == 1, "simnccl: one tensor a device");
  same_sizes(inputs[0]);
  at::Tensor output = outputs[0], flat = flat_like(inputs[0]);
  return run({OpType::REDUCE_SCATTER, "reduce_scatter", "nccl:reduce_scatter", options.asyncOp,
              elements(inputs[0]), output.numel()},
             inputs[0], outputs, [&, output, flat](const Lane &on) {
               cudaStream_t stream = handle_of(on.stream);
               int64_t done = 0;
               for (const at::Tensor &input : inputs[0]) {
                 copy_device(at_element(flat, done), input.data_ptr(), input.nbytes(), stream);
                 done += input.numel();
               }
               Reduction op(options.reduceOp, output, on.comm);
               NCCL_CHECK(ncclReduceScatter(flat.data_ptr(), output.data_ptr(), output.numel(),
                                            type_of(output), op.code, on.comm, stream));
               allocator()->recordStream(flat.storage().data_ptr(), on.stream);
             });
}

WorkPtr ProcessGroupSim::_reduce_scatter_base(at::Tensor &output, at::Tensor &input,
                                              const c10d::ReduceScatterOptions &options) {
  TORCH_CHECK(input.numel() == output.numel() * size_ && output.scalar_type() == input.scalar_type(),
              "simnccl: input must be world size times the output");
  return run({OpType::_REDUCE_SCATTER_BASE, "_reduce_scatter_base", "nccl:_reduce_scatter_base",
              options.asyncOp, input.numel(), output.numel()},
             {input}, {output}, [&, input, output](const Lane &on) {
               Reduction op(options.reduceOp, output, on.comm);
               NCCL_CHECK(ncclReduceScatter(input.data_ptr(), output.data_ptr(), output.numel(),
                                            type_of(output), op.code, on.comm,
                                            handle_of(on.stream)));
             });
}

WorkPtr ProcessGroupSim::reduce_scatter_tensor_coalesced(
    Tensors &outputs, Tensors &inputs, const c10d::ReduceScatterOptions &options) {
  return run({OpType::COALESCED, "reduce_scatter_tensor_coalesced",
              "nccl:reduce_scatter_tensor_coalesced", options.asyncOp, elements(inputs),
              elements(outputs)},
             inputs, outputs, [&](const Lane &on) {
               grouped([&] {
                 for (size_t i = 0; i < inputs.size(); i++) {
                   Reduction op(options.reduceOp, outputs[i], on.comm);
                   NCCL_CHECK(ncclReduceScatter(inputs[i].data_ptr(), outputs[i].data_ptr(),
                                                outputs[i].numel(), type_of(outputs[i]), op.code,
                                                on.comm, handle_of(on.stream)));
                 }
               });
             });
}

// The remaining ones are groups of sends and receives, as PyTorch makes them.

WorkPtr ProcessGroupSim::alltoall_base(at::Tensor &output, at::Tensor &input,
                                       std::vector<int64_t> &output_splits,
                                       std::vector<int64_t> &input_splits,
                                       const c10d::AllToAllOptions &options) {
  auto counts = [this](const at::Tensor &tensor, const std::vector<int64_t> &splits) {
    int64_t row = tensor.dim() && tensor.size(0) ? tensor.numel() / tensor.size(0) : 1;
    std::vector<int64_t> all;
    for (int rank = 0; rank < size_; rank++)
      all.push_back(splits.empty() ? tensor.numel() / size_ : splits[rank] * row);
    return all;
  };
  auto out = counts(output, output_splits), in = counts(input, input_splits);
  const char *name = output_splits.empty() && input_splits.empty() ? "all_to_all" : "all_to_allv";
  return run({OpType::ALLTOALL_BASE, name, "nccl:all_to_all", options.asyncOp, input.numel(),
              output.numel(), input_splits, output_splits},
             {input}, {output}, [&, input, output](const Lane &on) {
               cudaStream_t stream = handle_of(on.stream);
               grouped([&] {
                 int64_t sent = 0, received = 0;
                 for (int peer = 0; peer < size_; peer++) {
                   if (in[peer])
                     NCCL_CHECK(ncclSend(at_element(input, sent), in[peer], type_of(input), peer,
                                         on.comm, stream));
                   if (out[peer])
                     NCCL_CHECK(ncclRecv(at_element(output, received), out[peer], type_of(output),
                                         peer, on.comm, stream));
                   sent += in[peer];
                   received += out[peer];
                 }
               });
             });
}

WorkPtr ProcessGroupSim::alltoall(Tensors &outputs, Tensors &inputs,
                                  const c10d::AllToAllOptions &options) {
  TORCH_CHECK((int)inputs.size() == size_ && (int)outputs.size() == size_,
              "simnccl: as many tensors as ranks");
  return run({OpType::ALLTOALL, "all_to_all", "nccl:all_to_all", options.asyncOp, elements(inputs),
              elements(outputs)},
             inputs, outputs, [&](const Lane &on) {
               cudaStream_t stream = handle_of(on.stream);
               grouped([&] {
                 for (int peer = 0; peer < size_; peer++) {
                   const at::Tensor &in = inputs[peer], &out = outputs[peer];
                   if (in.numel())
                     NCCL_CHECK(
                         ncclSend(in.data_ptr(), in.numel(), type_of(in), peer, on.comm, stream));
                   if (out.numel())
                     NCCL_CHECK(
                         ncclRecv(out.data_ptr(), out.numel(), type_of(out), peer, on.comm, stream));
                 }
               });
             });
}

WorkPtr ProcessGroupSim::gather(std::vector<Tensors> &outputs, Tensors &inputs,
                                const c10d::GatherOptions &options) {
  TORCH_CHECK(inputs.size() == 1, "simnccl: one tensor a device");
  int root = (int)options.rootRank;
  Tensors received = rank_ == root ? outputs.at(0) : Tensors{};
  at::Tensor input = inputs[0];
  return run({OpType::GATHER, "gather", "nccl:gather", options.asyncOp, input.numel(),
              elements(received)},
             inputs, received, [&, input](const Lane &on) {
               cudaStream_t stream = handle_of(on.stream);
               grouped([&] {
                 NCCL_CHECK(ncclSend(input.data_ptr(), input.numel(), type_of(input), root, on.comm,
                                     stream));
                 for (int peer = 0; peer < (int)received.size(); peer++)
                   NCCL_CHECK(ncclRecv(received[peer].data_ptr(), received[peer].numel(),
                                       type_of(received[peer]), peer, on.comm, stream));
               });
             });
}

WorkPtr ProcessGroupSim::scatter(Tensors &outputs, std::vector<Tensors> &inputs,
                                 const c10d::ScatterOptions &options) {
  TORCH_CHECK(outputs.size() == 1, "simnccl: one tensor a device");
  int root = (int)options.rootRank;
  Tensors sent = rank_ == root ? inputs.at(0) : Tensors{};
  at::Tensor output = outputs[0];
  return run({OpType::SCATTER, "scatter", "nccl:scatter", options.asyncOp, elements(sent),
              output.numel()},
             sent, outputs, [&, output](const Lane &on) {
               cudaStream_t stream = handle_of(on.stream);
               grouped([&] {
                 for (int peer = 0; peer < (int)sent.size(); peer++)
                   NCCL_CHECK(ncclSend(sent[peer].data_ptr(), sent[peer].numel(),
                                       type_of(sent[peer]), peer, on.comm, stream));
                 NCCL_CHECK(ncclRecv(output.data_ptr(), output.numel(), type_of(output), root,
                                     on.comm, stream));
               });
             });
}

WorkPtr ProcessGroupSim::send(Tensors &tensors, int destination, int) {
  at::Tensor tensor = tensors.at(0);
  std::string title = c10::str("nccl:send ", rank_, "->", destination);
  return run({OpType::SEND, "send", title.c_str(), true, tensor.numel(), tensor.numel(), {}, {}, true,
              destination},
             tensors, {}, [=](const Lane &on) {
               NCCL_CHECK(ncclSend(tensor.data_ptr(), tensor.numel(), type_of(tensor), destination,
                                   on.comm, handle_of(on.stream)));
             });
}

WorkPtr ProcessGroupSim::recv(Tensors &tensors, int source, int) {
  at::Tensor tensor = tensors.at(0);
  std::string title = c10::str("nccl:recv ", rank_, "<-", source);
  return run({OpType::RECV, "recv", title.c_str(), true, tensor.numel(), tensor.numel(), {}, {}, true,
              source},
             {}, tensors, [=](const Lane &on) {
               NCCL_CHECK(ncclRecv(tensor.data_ptr(), tensor.numel(), type_of(tensor), source,
                                   on.comm, handle_of(on.stream)));
             });
}

WorkPtr ProcessGroupSim::barrier(const c10d::BarrierOptions &options) {
  at::Tensor token = at::empty({1}, at::TensorOptions().dtype(at::kFloat).device(
                                        c10::Device(kType, current_device())));
  token.fill_(0);
  Tensors tensors = {token};
  auto work = run({OpType::BARRIER, "barrier", "nccl:all_reduce_barrier", options.asyncOp, 0, 0},
                  tensors, tensors, [=](const Lane &on) {
                    NCCL_CHECK(ncclAllReduce(token.data_ptr(), token.data_ptr(), 1, type_of(token),
                                             ncclSum, on.comm, handle_of(on.stream)));
                  });
  static_cast<SimWork *>(work.get())->block_host();
  return work;
}

}  // namespace simcuda
