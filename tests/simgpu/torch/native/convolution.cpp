#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/convolution_backward.h>
#include <torch/library.h>

#include "compute.h"
#include "fallback.h"
#include "host_view.h"

namespace simcuda {

namespace {

using at::Tensor;

void forward(const c10::OperatorHandle &op, c10::DispatchKeySet, torch::jit::Stack *stack) {
  static auto host_op = c10::Dispatcher::singleton().findSchemaOrThrow("aten::convolution", "");
  run_as(op, host_op, stack);
}

std::tuple<Tensor, Tensor, Tensor> backward(const Tensor &grad, const Tensor &input,
                                            const Tensor &weight, c10::IntArrayRef stride,
                                            c10::IntArrayRef padding, c10::IntArrayRef dilation,
                                            bool transposed, c10::IntArrayRef output_padding,
                                            int64_t groups, std::array<bool, 3> mask) {
  Tensor g = host_view(grad), x = host_view(input), w = host_view(weight);
  std::vector<int64_t> bias = {grad.size(1)};
  auto maths = [=, strides = stride.vec(), paddings = padding.vec(), dilations = dilation.vec(),
                output_paddings = output_padding.vec()]() -> std::vector<Tensor> {
    auto [dx, dw, db] = at::convolution_backward(g, x, w, bias, strides, paddings, dilations,
                                                 transposed, output_paddings, groups, mask);
    return {dx, dw, db};
  };
  std::vector<Tensor> inputs = {grad, input, weight};
  uint64_t flops = 2ull * grad.numel() * weight.numel() / std::max<int64_t>(1, weight.size(0));
  auto d = compute(inputs, facts_of("convolution_backward_overrideable", inputs, flops), maths);
  return {d[0], d[1], d[2]};
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("convolution_overrideable", torch::CppFunction::makeFromBoxedFunction<&forward>());
  m.impl("convolution_backward_overrideable", backward);
}

}  // namespace

}  // namespace simcuda
