#include "fallback.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/record_function.h>
#include <c10/core/DeviceGuard.h>
#include <torch/library.h>

#include "generator.h"
#include "graph.h"
#include "host_view.h"
#include "op_facts.h"
#include "runtime.h"

namespace simcuda {

namespace {

using c10::IValue;
using torch::jit::Stack;

struct Argument {
  at::Tensor device, host;
  size_t index;  // among the arguments of the operator
};

// The arguments of one call, with CPU tensors on the device's bytes in the place of its tensors.
class Call {
 public:
  Call(const c10::OperatorHandle &op, Stack *stack) : schema_(op.schema()) {
    size_t count = schema_.arguments().size();
    auto given = torch::jit::last(*stack, count);
    host_.reserve(count);
    for (size_t i = 0; i < count; i++) host_.push_back(to_host(given[i], i));
    given_ = Stack(given.begin(), given.end());
    torch::jit::drop(*stack, count);
  }

  Stack host_stack() const { return host_; }
  const Stack &given() const { return given_; }
  const std::vector<Argument> &tensors() const { return tensors_; }
  c10::Device device() const {
    for (auto &argument : tensors_)
      if (argument.device.device().type() == kType) return argument.device.device();
    return c10::Device(kType, wanted_.value_or(current_device()));
  }

  // What the caller gets for the CPU's results: its own tensors where the schema says so, else new ones.
  Stack results(Stack host) const {
    for (auto &argument : tensors_) take_back_shape(argument.device, argument.host);
    const auto &returns = schema_.returns();
    for (size_t i = 0; i < host.size(); i++) {
      const auto *alias = returns[i].alias_info();
      if (alias && alias->isWrite() && host[i].isTensor())
        host[i] = written(*alias);
      else
        host[i] = moved(host[i]);
    }
    return host;
  }

 private:
  IValue to_host(const IValue &value, size_t index) {
    if (value.isTensor()) return host_tensor(value.toTensor(), index);
    if (value.isTensorList()) {
      c10::List<at::Tensor> views;
      for (const at::Tensor &tensor : value.toTensorVector()) views.push_back(host_tensor(tensor, index));
      return views;
    }
    if (value.isOptionalTensorList()) {
      c10::List<std::optional<at::Tensor>> views;
      for (const std::optional<at::Tensor> &tensor : value.toOptionalTensorVector())
        views.push_back(tensor ? std::optional(host_tensor(*tensor, index)) : std::nullopt);
      return views;
    }
    if (value.isDevice() && value.toDevice().type() == kType) {
      if (value.toDevice().has_index()) wanted_ = value.toDevice().index();
      return c10::Device(c10::DeviceType::CPU);
    }
    if (value.isGenerator()) return host_generator(value.toGenerator());
    return value;
  }

  at::Tensor host_tensor(const at::Tensor &tensor, size_t index) {
    if (!tensor.defined()) return tensor;
    at::Tensor view = host_view(tensor);
    if (tensor.device().type() == kType) tensors_.push_back({tensor, view, index});
    return view;
  }

  IValue written(const c10::AliasInfo &alias) const {
    const auto &arguments = schema_.arguments();
    for (size_t i = 0; i < arguments.size(); i++)
      if (arguments[i].alias_info() && *arguments[i].alias_info() == alias) return given_[i];
    TORCH_INTERNAL_ASSERT(false, schema_.name(), " returns what it was not given");
  }

  IValue moved(const IValue &value) const {
    if (value.isTensor()) return moved_tensor(value.toTensor());
    if (!value.isTensorList()) return value;
    c10::List<at::Tensor> all;
    for (const at::Tensor &tensor : value.toTensorVector()) all.push_back(moved_tensor(tensor));
    return all;
  }

  at::Tensor moved_tensor(const at::Tensor &tensor) const {
    if (!tensor.defined()) return tensor;
    for (auto &argument : tensors_)
      if (tensor.storage().is_alias_of(argument.host.storage()) ||
          (tensor.nbytes() && tensor.storage().data() == argument.device.storage().data()))
        return argument.device.as_strided(tensor.sizes(), tensor.strides(), tensor.storage_offset());
    return to_device(tensor, device());
  }

  const c10::FunctionSchema &schema_;
  Stack given_, host_;
  std::vector<Argument> tensors_;
  std::optional<c10::DeviceIndex> wanted_;
};

// The CPU kernel's own calls of operators are no operators of the program: no profiler sees them.
void run_on_cpu(const c10::OperatorHandle &op, Stack *stack) {
  at::AutoDispatchBelowADInplaceOrView below;
  at::RecordFunctionGuard unseen(/*is_enabled=*/false);
  op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), stack);
}

void copy_bytes(const IValue &from, const at::Tensor &to) {
  if (from.isTensor() && to.defined() && to.numel()) host_view(to).copy_(from.toTensor());
}

// The maths of one call again, on the same bytes, whoever owns them now: the graph keeps them.
void keep_for_replay(const c10::OperatorHandle &op, const Call &call, const Stack &results) {
  if (!capturing()) return;
  std::vector<c10::Storage> owned;
  for (auto &argument : call.tensors()) owned.push_back(argument.device.storage());
  // Detached: the graph must not keep the autograd history that these tensors are about to get.
  std::vector<at::Tensor> outputs;
  for (auto &result : results) {
    bool fresh = result.isTensor() && result.toTensor().defined();
    outputs.push_back(fresh ? host_view(result.toTensor()) : at::Tensor());
    if (fresh) owned.push_back(result.toTensor().storage());
  }
  record_for_replay([op, owned, outputs, arguments = call.host_stack()] {
    Stack stack = arguments;
    run_on_cpu(op, &stack);
    at::AutoDispatchBelowADInplaceOrView below;
    at::RecordFunctionGuard unseen(/*is_enabled=*/false);
    for (size_t i = 0; i < stack.size(); i++) {
      bool same = stack[i].isTensor() && outputs[i].defined() &&
                  stack[i].toTensor().storage().data() == outputs[i].storage().data();
      if (!same) copy_bytes(stack[i], outputs[i]);
    }
  });
}

}  // namespace

void run_as(const c10::OperatorHandle &op, const c10::OperatorHandle &host_op, Stack *stack) {
  Call call(op, stack);
  c10::DeviceGuard guard(call.device());
  settle(current_handle());
  Stack host = call.host_stack();
  run_on_cpu(host_op, &host);
  Stack results = call.results(std::move(host));
  keep_for_replay(host_op, call, results);
  OpFacts facts = op_facts(op.schema(), call.given(), results);
  if (facts.numel) launch(facts);
  for (IValue &result : results) stack->push_back(std::move(result));
}

void run_operator(const c10::OperatorHandle &op, c10::DispatchKeySet, Stack *stack) {
  run_as(op, op, stack);
}

namespace {

bool takes_tensors(const c10::FunctionSchema &schema) {
  for (auto &argument : schema.arguments())
    if (argument.type()->str().find("Tensor") != std::string::npos) return true;
  return false;
}

// Operators that on CUDA are kernels of their own although the CPU composes them of others.
bool fused_on_cuda(const std::string &name) { return name.rfind("aten::_foreach_", 0) == 0; }

// Registered one by one, not only as a fallback: else an operator with a composite kernel (all that are
// "structured") would call its out= variant, and a profiler would see each operator twice.
struct RegisterOperators {
  RegisterOperators() {
    auto &dispatcher = c10::Dispatcher::singleton();
    static auto *handles = new std::vector<c10::RegistrationHandleRAII>;
    for (const c10::OperatorName &name : dispatcher.getAllOpNames()) {
      auto op = dispatcher.findSchema(name);
      if (!op || name.name.rfind("aten::", 0) != 0 || !takes_tensors(op->schema())) continue;
      if (op->hasKernelForDispatchKey(c10::DispatchKey::PrivateUse1)) continue;
      if (!op->hasKernelForDispatchKey(c10::DispatchKey::CPU) && !fused_on_cuda(name.name)) continue;
      handles->push_back(dispatcher.registerImpl(
          name, c10::DispatchKey::PrivateUse1,
          c10::KernelFunction::makeFromBoxedFunction<&run_operator>(), std::nullopt, nullptr,
          "simcuda"));
    }
  }
};

}  // namespace

void register_operators() { static RegisterOperators once; }

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&run_operator>());
}

}  // namespace simcuda
