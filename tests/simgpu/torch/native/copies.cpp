// Copies between host and device, and within the device.
#include <ATen/core/Tensor.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty_like.h>
#include <ATen/record_function.h>
#include <c10/core/DeviceGuard.h>
#include <torch/library.h>

#include "allocator.h"
#include "graph.h"
#include "host_view.h"
#include "op_facts.h"
#include "runtime.h"

namespace simcuda {

namespace {

bool on_device(const at::Tensor &tensor) { return tensor.device().type() == kType; }

void copy_on_host(const at::Tensor &to, const at::Tensor &from) {
  at::AutoDispatchBelowADInplaceOrView below;
  at::RecordFunctionGuard unseen(/*is_enabled=*/false);
  to.copy_(from);
}

// Kept for replays with the storages that own the bytes.
void keep_for_replay(const at::Tensor &to, const at::Tensor &from) {
  if (!capturing()) return;
  std::vector<c10::Storage> owned = {to.storage(), from.storage()};
  at::Tensor host_to = host_view(to), host_from = host_view(from);
  record_for_replay([owned, host_to, host_from] { copy_on_host(host_to, host_from); });
}

// Where a captured copy may put its bytes: the graph's copies would run out of order with our maths.
void *scratch(const at::Tensor &to) {
  c10::Allocator *from = on_device(to)                ? static_cast<c10::Allocator *>(allocator())
                         : is_pinned(to.data_ptr()) ? pinned_allocator()
                                                    : c10::GetAllocator(c10::DeviceType::CPU);
  auto bytes = std::make_shared<c10::DataPtr>(from->allocate(to.nbytes()));
  record_for_replay([bytes] {});
  return bytes->get();
}

void copy_bytes(const at::Tensor &to, const at::Tensor &from, int kind, bool non_blocking) {
  cudaStream_t stream = current_handle();
  void *target = capturing() ? scratch(to) : to.mutable_data_ptr();
  SIMCUDA_CHECK(cudaMemcpyAsync(target, from.const_data_ptr(), to.nbytes(), kind, stream));
  if (capturing())
    copy_on_host(host_view(to), host_view(from));
  else if (kind != cudaMemcpyDeviceToDevice && !non_blocking)
    SIMCUDA_CHECK(cudaStreamSynchronize(stream));
}

// As a kernel reads and writes any layout and type, so does the host; a plain one is a memcpy.
void copy_within_device(const at::Tensor &to, const at::Tensor &from) {
  bool plain = to.scalar_type() == from.scalar_type() && to.strides() == from.strides() &&
               to.is_non_overlapping_and_dense();
  keep_for_replay(to, from);
  if (plain) return copy_bytes(to, from, cudaMemcpyDeviceToDevice, true);
  copy_on_host(host_view(to), host_view(from));
  OpFacts facts;
  facts.op = "copy";
  facts.type = element_type(to.scalar_type());
  facts.from = element_type(from.scalar_type());
  facts.numel = to.numel();
  facts.bytes = to.nbytes() + (uint64_t)from.numel() * from.itemsize();
  launch(facts);
}

// A link between host and device moves bytes only: types and layouts change on the side they come from.
void copy_over_link(const at::Tensor &to, const at::Tensor &from, bool non_blocking) {
  at::Tensor source = from.scalar_type() == to.scalar_type() ? from : from.to(to.scalar_type());
  if (!source.is_contiguous()) source = source.contiguous();
  at::Tensor target = to.is_contiguous() ? to : at::empty_like(to, at::MemoryFormat::Contiguous);
  int kind = on_device(to) ? cudaMemcpyHostToDevice : cudaMemcpyDeviceToHost;
  keep_for_replay(target, source);
  copy_bytes(target, source, kind, non_blocking);
  if (!target.is_same(to)) to.copy_(target);
}

at::Tensor copy_from(const at::Tensor &from, const at::Tensor &to, bool non_blocking) {
  if (!to.numel()) return to;
  c10::DeviceGuard guard(on_device(to) ? to.device() : from.device());
  settle(current_handle());
  at::Tensor source = from.sizes() == to.sizes() ? from : from.expand_as(to);
  if (on_device(to) && on_device(from))
    copy_within_device(to, source);
  else
    copy_over_link(to, source, non_blocking);
  return to;
}

at::Tensor &copy(at::Tensor &self, const at::Tensor &from, bool non_blocking) {
  if (!self.is_same(from)) copy_from(from, self, non_blocking);
  return self;
}

at::Tensor copy_from_and_resize(const at::Tensor &from, const at::Tensor &to) {
  to.resize_(from.sizes());
  return copy_from(from, to, false);
}

// `.item()`: the number comes over the link, and the host waits for it.
at::Scalar local_scalar_dense(const at::Tensor &self) {
  c10::DeviceGuard guard(self.device());
  cudaStream_t stream = current_handle();
  settle(stream);
  alignas(16) char number[16];
  const char *at = static_cast<const char *>(self.const_data_ptr());
  SIMCUDA_CHECK(cudaMemcpyAsync(number, at, self.itemsize(), cudaMemcpyDeviceToHost, stream));
  SIMCUDA_CHECK(cudaStreamSynchronize(stream));
  at::RecordFunctionGuard unseen(/*is_enabled=*/false);
  return host_view(self).item();
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("copy_", copy);
  m.impl("_copy_from", copy_from);
  m.impl("_copy_from_and_resize", copy_from_and_resize);
  m.impl("_local_scalar_dense", local_scalar_dense);
}

}  // namespace

}  // namespace simcuda
