#include "compute.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/record_function.h>
#include <c10/core/DeviceGuard.h>

#include "graph.h"
#include "host_view.h"
#include "op_facts.h"
#include "runtime.h"

namespace simcuda {

namespace {

std::vector<at::Tensor> unseen(const std::function<std::vector<at::Tensor>()> &maths) {
  at::AutoDispatchBelowADInplaceOrView below;
  at::RecordFunctionGuard guard(/*is_enabled=*/false);
  return maths();
}

void keep_for_replay(const std::vector<at::Tensor> &inputs, const std::vector<at::Tensor> &results,
                     const std::function<std::vector<at::Tensor>()> &maths) {
  std::vector<c10::Storage> owned;
  for (auto *tensors : {&inputs, &results})
    for (const at::Tensor &tensor : *tensors)
      if (tensor.defined()) owned.push_back(tensor.storage());
  std::vector<at::Tensor> outputs;
  for (const at::Tensor &tensor : results) outputs.push_back(host_view(tensor));
  record_for_replay([owned, outputs, maths] {
    unseen([&] {
      auto again = maths();
      for (size_t i = 0; i < again.size(); i++)
        if (again[i].defined()) outputs[i].copy_(again[i]);
      return again;
    });
  });
}

}  // namespace

std::vector<at::Tensor> compute(const std::vector<at::Tensor> &inputs, const OpFacts &facts,
                                std::function<std::vector<at::Tensor>()> maths) {
  c10::DeviceGuard guard(inputs.front().device());
  settle(current_handle());
  std::vector<at::Tensor> results;
  for (const at::Tensor &tensor : unseen(maths))
    results.push_back(tensor.defined() ? to_device(tensor, inputs.front().device()) : tensor);
  if (capturing()) keep_for_replay(inputs, results, maths);
  launch(facts);
  return results;
}

OpFacts facts_of(const char *op, const std::vector<at::Tensor> &inputs, uint64_t flops) {
  OpFacts facts;
  facts.op = op;
  facts.type = element_type(inputs.front().scalar_type());
  facts.row = inputs.front().dim() ? inputs.front().size(-1) : 1;
  for (const at::Tensor &tensor : inputs) {
    if (!tensor.defined()) continue;
    facts.numel = std::max(facts.numel, tensor.numel());
    facts.bytes += (uint64_t)tensor.numel() * tensor.itemsize();
  }
  facts.flops = flops;
  return facts;
}

}  // namespace simcuda
