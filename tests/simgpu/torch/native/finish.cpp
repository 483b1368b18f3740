#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <thread>

#include "finish.h"
#include "runtime.h"

namespace simcuda {

namespace {

void empty_backward() {
  try {
    auto options = at::TensorOptions().device(c10::Device(kType, current_device()));
    at::Tensor leaf = at::empty({0}, options).requires_grad_();
    leaf.view({0}).backward(at::empty({0}, options));
  } catch (...) {  // the process ends; nothing is lost
  }
}

}  // namespace

void finish_autograd() { std::thread(empty_backward).join(); }

}  // namespace simcuda
