// Reductions, broadcasts and gathers: which NCCL calls each one is.
#include <ATen/ops/empty.h>

#include "allocator.h"
#include "collective_calls.h"

namespace simcuda {

namespace {

using c10d::OpType;
using c10d::ReduceOp;

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
