#pragma once

#include <ATen/core/function_schema.h>
#include <ATen/core/stack.h>

#include "launch.h"

namespace simcuda {

ElementType element_type(c10::ScalarType type);

// What an operator's kernels are named and timed by: element type, sizes, bytes, flops.
OpFacts op_facts(const c10::FunctionSchema &schema, const torch::jit::Stack &arguments,
                 const torch::jit::Stack &results);

}  // namespace simcuda
