#pragma once

#include <ATen/core/stack.h>
#include <c10/core/DispatchKeySet.h>

#include "launch.h"

namespace c10 {
class OperatorHandle;
}

namespace simcuda {

// Any operator: the CPU's kernel on the same bytes, then the launch of what a GPU would have started.
void run_operator(const c10::OperatorHandle &op, c10::DispatchKeySet keys, torch::jit::Stack *stack);

// As run_operator, but the maths are those of `host_op`, which takes the same arguments.
void run_as(const c10::OperatorHandle &op, const c10::OperatorHandle &host_op,
            torch::jit::Stack *stack);

}  // namespace simcuda
