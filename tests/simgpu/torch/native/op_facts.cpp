#include "op_facts.h"

#include <ATen/core/Tensor.h>

#include <algorithm>

#include "runtime.h"

namespace simcuda {

namespace {

using torch::jit::Stack;

// "aten::add_.Tensor" and "aten::add.out" are both "add".
std::string base_name(const c10::FunctionSchema &schema) {
  std::string name = schema.name().substr(schema.name().find("::") + 2);
  if (!name.empty() && name.back() == '_') name.pop_back();
  return name;
}

void add_tensor(OpFacts &facts, const at::Tensor &tensor, bool &typed) {
  if (!tensor.defined() || tensor.device().type() != kType) return;
  if (!typed && tensor.is_floating_point()) {
    facts.type = element_type(tensor.scalar_type());
    facts.row = tensor.dim() ? tensor.size(-1) : 1;
    typed = true;
  }
  facts.numel = std::max(facts.numel, tensor.numel());
  facts.bytes += (uint64_t)tensor.numel() * tensor.itemsize();
}

void add_value(OpFacts &facts, const c10::IValue &value, bool &typed) {
  if (value.isTensor()) return add_tensor(facts, value.toTensor(), typed);
  if (!value.isTensorList()) return;
  auto tensors = value.toTensorVector();
  facts.list = std::max(facts.list, (int64_t)tensors.size());
  for (const at::Tensor &tensor : tensors) add_tensor(facts, tensor, typed);
}

const at::Tensor *tensor_at(const Stack &stack, size_t index) {
  return index < stack.size() && stack[index].isTensor() && stack[index].toTensor().defined()
             ? &stack[index].toTensor()
             : nullptr;
}

uint64_t product_flops(const at::Tensor *left, const at::Tensor *right) {
  return left && right && right->dim() ? 2ull * left->numel() * right->size(-1) : 0;
}

// Two products of [queries x keys x head size] for each head; half of them where the mask is causal.
uint64_t attention_flops(const at::Tensor *query, const at::Tensor *key, bool causal) {
  if (!query || !key || query->dim() < 2 || key->dim() < 2) return 0;
  uint64_t all = 4ull * query->numel() * key->size(-2);
  return causal ? all / 2 : all;
}

bool causal(const c10::FunctionSchema &schema, const Stack &arguments) {
  auto index = schema.argumentIndexWithName("is_causal");
  return index && arguments[*index].isBool() && arguments[*index].toBool();
}

uint64_t flops(const std::string &op, const c10::FunctionSchema &schema, const Stack &arguments,
               const Stack &results) {
  if (op == "mm" || op == "bmm")
    return product_flops(tensor_at(arguments, 0), tensor_at(arguments, 1));
  if (op == "addmm" || op == "baddbmm")
    return product_flops(tensor_at(arguments, 1), tensor_at(arguments, 2));
  if (op == "convolution_overrideable") {
    auto *out = tensor_at(results, 0), *weight = tensor_at(arguments, 1);
    return out && weight ? 2ull * out->numel() * weight->numel() / std::max<int64_t>(1, weight->size(0)) : 0;
  }
  if (op == "convolution_backward_overrideable") {
    auto *out = tensor_at(arguments, 0), *weight = tensor_at(arguments, 2);
    return out && weight ? 2ull * out->numel() * weight->numel() / std::max<int64_t>(1, weight->size(0)) : 0;
  }
  if (op.find("attention_backward") != std::string::npos)
    return attention_flops(tensor_at(arguments, 1), tensor_at(arguments, 2), causal(schema, arguments)) * 5 / 2;
  if (op.rfind("_scaled_dot_product_", 0) == 0)
    return attention_flops(tensor_at(arguments, 0), tensor_at(arguments, 1), causal(schema, arguments));
  return 0;
}

}  // namespace

ElementType element_type(c10::ScalarType type) {
  switch (type) {
    case c10::ScalarType::Double: return {"d", 8, false};
    case c10::ScalarType::BFloat16: return {"N3c108BFloat16E", 2, true};
    case c10::ScalarType::Half: return {"N3c104HalfE", 2, true};
    case c10::ScalarType::Long: return {"l", 8, false};
    case c10::ScalarType::Int: return {"i", 4, false};
    case c10::ScalarType::Short: return {"s", 2, false};
    case c10::ScalarType::Char: return {"a", 1, false};
    case c10::ScalarType::Byte: return {"h", 1, false};
    case c10::ScalarType::Bool: return {"b", 1, false};
    default: return {"f", 4, false};
  }
}

OpFacts op_facts(const c10::FunctionSchema &schema, const Stack &arguments, const Stack &results) {
  OpFacts facts;
  facts.op = base_name(schema);
  bool typed = false;
  for (auto &value : arguments) add_value(facts, value, typed);
  for (auto &value : results) add_value(facts, value, typed);
  const at::Tensor *first = tensor_at(arguments, 0);
  if (!typed && first) facts.type = element_type(first->scalar_type());
  const c10::IValue *second = arguments.size() > 1 ? &arguments[1] : nullptr;
  facts.scalar = second && (second->isScalar() || (second->isTensor() && second->toTensor().defined() &&
                                                   second->toTensor().is_cpu()));
  facts.flops = flops(facts.op, schema, arguments, results);
  return facts;
}

}  // namespace simcuda
