// Device memory of the simulated stack is host memory: a tensor on the device can be looked at as a CPU
// tensor, and the CPU's kernels do the maths.
#pragma once

#include <ATen/core/Tensor.h>

namespace simcuda {

// A CPU tensor on the same bytes. Does not own them; growing it gives it memory of its own.
at::Tensor host_view(const at::Tensor &tensor);

// Keeps `tensor`'s shape and bytes in line with its view, which an out= operation may have resized.
void take_back_shape(const at::Tensor &tensor, const at::Tensor &view);

// A new device tensor with the bytes of a CPU result, laid out alike.
at::Tensor to_device(const at::Tensor &result, c10::Device device);

}  // namespace simcuda
