// Scaled dot product attention as on CUDA: flash attention for 16-bit types, the memory-efficient one
// for float. Masks, dropout and grouped queries go the composed way (`_math`).
#include <ATen/core/Tensor.h>
#include <ATen/ops/_scaled_dot_product_attention_math.h>
#include <ATen/ops/_scaled_dot_product_efficient_attention.h>
#include <ATen/ops/_scaled_dot_product_flash_attention.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu_backward.h>
#include <ATen/ops/empty.h>
#include <c10/core/GradMode.h>
#include <torch/library.h>

#include "compute.h"
#include "host_view.h"

namespace simcuda {

namespace {

using at::Tensor;
using Scale = std::optional<double>;

// Two products of [queries x keys x head size]; a causal mask halves them; backward has five.
uint64_t flops(const Tensor &query, const Tensor &key, bool causal, bool backward) {
  uint64_t product = 2ull * query.numel() * key.size(-2) / (causal ? 2 : 1);
  return product * (backward ? 5 : 2);
}

std::vector<Tensor> forward(const char *op, const Tensor &query, const Tensor &key,
                            const Tensor &value, bool causal, Scale scale) {
  Tensor q = host_view(query), k = host_view(key), v = host_view(value);
  auto maths = [q, k, v, causal, scale]() -> std::vector<Tensor> {
    auto [out, logsumexp] =
        at::_scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, causal, std::nullopt, scale);
    return {out, logsumexp};
  };
  std::vector<Tensor> inputs = {query, key, value};
  return compute(inputs, facts_of(op, inputs, flops(query, key, causal, false)), maths);
}

std::vector<Tensor> backward(const char *op, const Tensor &grad, const Tensor &query,
                             const Tensor &key, const Tensor &value, const Tensor &out,
                             const Tensor &logsumexp, bool causal, Scale scale) {
  Tensor g = host_view(grad), q = host_view(query), k = host_view(key), v = host_view(value),
         o = host_view(out), l = host_view(logsumexp);
  auto maths = [=]() -> std::vector<Tensor> {
    auto [dq, dk, dv] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
        g, q, k, v, o, l, 0.0, causal, std::nullopt, scale);
    return {dq, dk, dv};
  };
  std::vector<Tensor> inputs = {query, key, value, grad, out, logsumexp};
  return compute(inputs, facts_of(op, inputs, flops(query, key, causal, true)), maths);
}

Tensor no_state(const Tensor &like) {
  return at::empty({}, like.options().dtype(c10::ScalarType::Long));
}

std::tuple<Tensor, Tensor, Tensor, Tensor, c10::SymInt, c10::SymInt, Tensor, Tensor, Tensor> flash(
    const Tensor &query, const Tensor &key, const Tensor &value, double, bool causal, bool,
    Scale scale) {
  auto results = forward("_scaled_dot_product_flash_attention", query, key, value, causal, scale);
  return {results[0],     results[1],      Tensor(),        Tensor(), query.size(2),
          key.size(2),    no_state(query), no_state(query), Tensor()};
}

std::tuple<Tensor, Tensor, Tensor> flash_backward(
    const Tensor &grad, const Tensor &query, const Tensor &key, const Tensor &value,
    const Tensor &out, const Tensor &logsumexp, const Tensor &, const Tensor &, c10::SymInt,
    c10::SymInt, double, bool causal, const Tensor &, const Tensor &, Scale scale) {
  auto d = backward("_scaled_dot_product_flash_attention_backward", grad, query, key, value, out,
                    logsumexp, causal, scale);
  return {d[0], d[1], d[2]};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> efficient(const Tensor &query, const Tensor &key,
                                                     const Tensor &value,
                                                     const std::optional<Tensor> &, bool, double,
                                                     bool causal, Scale scale) {
  auto results = forward("_scaled_dot_product_efficient_attention", query, key, value, causal, scale);
  return {results[0], results[1], no_state(query), no_state(query)};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> efficient_backward(
    const Tensor &grad, const Tensor &query, const Tensor &key, const Tensor &value, const Tensor &,
    const Tensor &out, const Tensor &logsumexp, const Tensor &, const Tensor &, double,
    std::array<bool, 4>, bool causal, Scale scale) {
  auto d = backward("_scaled_dot_product_efficient_attention_backward", grad, query, key, value, out,
                    logsumexp, causal, scale);
  return {d[0], d[1], d[2], Tensor()};
}

Tensor attention(const Tensor &query, const Tensor &key, const Tensor &value,
                 const std::optional<Tensor> &mask, double dropout, bool causal, Scale scale,
                 bool grouped) {
  bool fused = !(mask && mask->defined()) && dropout == 0 && !grouped && query.dim() == 4 &&
               key.dim() == 4 && query.size(1) == key.size(1) && query.size(-1) == value.size(-1) &&
               query.numel() && key.numel();
  if (!fused)
    return std::get<0>(at::_scaled_dot_product_attention_math(query, key, value, mask, dropout,
                                                              causal, std::nullopt, scale, grouped));
  if (query.itemsize() == 2)
    return std::get<0>(
        at::_scaled_dot_product_flash_attention(query, key, value, 0.0, causal, false, scale));
  bool train = c10::GradMode::is_enabled() && query.requires_grad();
  return std::get<0>(at::_scaled_dot_product_efficient_attention(query, key, value, std::nullopt,
                                                                 train, 0.0, causal, scale));
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("_scaled_dot_product_flash_attention", flash);
  m.impl("_scaled_dot_product_flash_attention_backward", flash_backward);
  m.impl("_scaled_dot_product_efficient_attention", efficient);
  m.impl("_scaled_dot_product_efficient_attention_backward", efficient_backward);
  m.impl("scaled_dot_product_attention", attention);
}

// A composite operator with a kernel for its backend needs one for autograd as well; ours is composed.
TORCH_LIBRARY_IMPL(aten, AutogradPrivateUse1, m) {
  m.impl("scaled_dot_product_attention", attention);
}

}  // namespace

}  // namespace simcuda
