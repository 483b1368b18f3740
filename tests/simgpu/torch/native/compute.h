#pragma once

#include <ATen/core/Tensor.h>

#include <functional>

#include "launch.h"

namespace simcuda {

// For kernels that are written by hand: runs `maths`, which works on host views, now and at each replay;
// launches the kernels of `facts`; returns its results as device tensors. `inputs` own the bytes.
std::vector<at::Tensor> compute(const std::vector<at::Tensor> &inputs, const OpFacts &facts,
                                std::function<std::vector<at::Tensor>()> maths);

// The facts that all operators have, from the inputs.
OpFacts facts_of(const char *op, const std::vector<at::Tensor> &inputs, uint64_t flops);

}  // namespace simcuda
