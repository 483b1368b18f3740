// All-to-all, gather, scatter, send and receive: groups of sends and receives, as PyTorch makes them.
#include "collective_calls.h"

namespace simcuda {

using c10d::OpType;

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

}  // namespace simcuda
