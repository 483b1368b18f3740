// Factories, views and resizing: what launches nothing on a GPU.
#include <ATen/EmptyTensor.h>
#include <ATen/core/Tensor.h>
#include <ATen/native/Resize.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/empty_strided.h>
#include <ATen/ops/fill.h>
#include <ATen/ops/set_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_as_complex_native.h>
#include <ATen/ops/view_as_real_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/DeviceGuard.h>
#include <torch/library.h>

#include "allocator.h"
#include "host_view.h"
#include "runtime.h"

namespace simcuda {

namespace {

constexpr c10::DispatchKeySet kKeys{c10::DispatchKey::PrivateUse1};

c10::Device device_or_current(std::optional<c10::Device> device) {
  return device && device->has_index() ? *device : c10::Device(kType, current_device());
}

at::Tensor empty_memory_format(c10::IntArrayRef sizes, std::optional<c10::ScalarType> dtype,
                               std::optional<c10::Layout>, std::optional<c10::Device> device,
                               std::optional<bool>, std::optional<c10::MemoryFormat> format) {
  c10::DeviceGuard guard(device_or_current(device));
  return at::detail::empty_generic(sizes, allocator(), kKeys, c10::dtype_or_default(dtype), format);
}

at::Tensor empty_strided(c10::IntArrayRef sizes, c10::IntArrayRef strides,
                         std::optional<c10::ScalarType> dtype, std::optional<c10::Layout>,
                         std::optional<c10::Device> device, std::optional<bool>) {
  c10::DeviceGuard guard(device_or_current(device));
  return at::detail::empty_strided_generic(sizes, strides, allocator(), kKeys,
                                           c10::dtype_or_default(dtype));
}

void grow(at::TensorImpl *tensor, size_t bytes) {
  const c10::Storage &storage = tensor->storage();
  if (storage.nbytes() >= bytes) return;
  c10::DeviceGuard guard(tensor->device());
  c10::DataPtr larger = allocator()->allocate(bytes);
  if (storage.nbytes()) allocator()->copy_data(larger.get(), storage.data(), storage.nbytes());
  storage.unsafeGetStorageImpl()->set_data_ptr_noswap(std::move(larger));
  storage.unsafeGetStorageImpl()->set_nbytes(bytes);
}

const at::Tensor &resize(const at::Tensor &self, c10::IntArrayRef sizes,
                         std::optional<c10::MemoryFormat> format) {
  at::TensorImpl *tensor = self.unsafeGetTensorImpl();
  int64_t elements = c10::multiply_integers(sizes);
  grow(tensor, (elements + tensor->storage_offset()) * tensor->itemsize());
  tensor->set_sizes_contiguous(sizes);
  if (format) tensor->empty_tensor_restride(*format);
  return self;
}

at::Tensor &set_storage(at::Tensor &self, c10::Storage source, int64_t offset,
                        c10::IntArrayRef sizes, c10::IntArrayRef strides) {
  return at::native::set_storage_cpu_(self, std::move(source), offset, sizes, strides);
}

at::Tensor &set_empty(at::Tensor &self) {
  c10::Storage nothing(c10::Storage::use_byte_size_t{}, 0, allocator(), true);
  return at::native::set_storage_cpu_(self, nothing, 0, {0}, {});
}

void record_stream(at::Tensor &self, c10::Stream stream) {
  allocator()->recordStream(self.storage().data_ptr(), stream);
}

// As on CUDA, where it is a fill; the CPU has a kernel of its own for it.
at::Tensor &zero(at::Tensor &self) { return self.fill_(0); }

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", empty_memory_format);
  m.impl("empty_strided", empty_strided);
  m.impl("resize_", resize);
  m.impl("as_strided", at::native::as_strided_tensorimpl);
  m.impl("view", at::native::view);
  m.impl("_reshape_alias", at::native::_reshape_alias);
  m.impl("unfold", at::native::unfold);
  m.impl("view_as_real", at::native::view_as_real);
  m.impl("view_as_complex", at::native::view_as_complex);
  m.impl("set_.source_Storage", at::native::set_);
  m.impl("set_.source_Storage_storage_offset", set_storage);
  m.impl("set_.source_Tensor", at::native::set_tensor_);
  m.impl("set_", set_empty);
  m.impl("zero_", zero);
  m.impl("record_stream", record_stream);
}

}  // namespace

at::Tensor host_view(const at::Tensor &tensor) {
  if (!tensor.defined() || tensor.device().type() != kType) return tensor;
  const c10::Storage &storage = tensor.storage();
  c10::DataPtr bytes(storage.mutable_data(), c10::Device(c10::DeviceType::CPU));
  c10::Storage seen(c10::Storage::use_byte_size_t{}, storage.nbytes(), std::move(bytes),
                    c10::GetAllocator(c10::DeviceType::CPU), /*resizable=*/true);
  auto view = at::detail::make_tensor<c10::TensorImpl>(
      std::move(seen), c10::DispatchKeySet(c10::DispatchKey::CPU), tensor.dtype());
  auto *impl = view.unsafeGetTensorImpl();
  impl->set_sizes_and_strides(tensor.sizes(), tensor.strides(), tensor.storage_offset());
  if (tensor.unsafeGetTensorImpl()->is_wrapped_number()) impl->set_wrapped_number(true);
  return view;
}

void take_back_shape(const at::Tensor &tensor, const at::Tensor &view) {
  at::TensorImpl *impl = tensor.unsafeGetTensorImpl();
  bool moved = view.storage().data() != tensor.storage().data();
  if (moved) {
    grow(impl, view.storage().nbytes());
    memcpy(tensor.storage().mutable_data(), view.storage().data(), view.storage().nbytes());
  }
  if (moved || view.sizes() != tensor.sizes() || view.strides() != tensor.strides())
    impl->set_sizes_and_strides(view.sizes(), view.strides(), view.storage_offset());
}

at::Tensor to_device(const at::Tensor &result, c10::Device device) {
  at::Tensor dense = result.is_non_overlapping_and_dense() ? result : result.contiguous();
  at::Tensor made = empty_strided(dense.sizes(), dense.strides(), dense.scalar_type(), {}, device, {});
  if (dense.numel()) memcpy(made.mutable_data_ptr(), dense.const_data_ptr(), dense.nbytes());
  return made;
}

}  // namespace simcuda
