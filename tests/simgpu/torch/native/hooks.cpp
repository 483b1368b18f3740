// The device as torch.accelerator, pinning and torch.Generator see it.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>

#include "allocator.h"
#include "generator.h"
#include "runtime.h"

namespace simcuda {

namespace {

// Its numbers are those of a CPU generator, so that a seeded run equals the same run on the CPU.
struct SimGenerator final : c10::GeneratorImpl {
  explicit SimGenerator(c10::DeviceIndex index, at::Generator numbers)
      : GeneratorImpl(c10::Device(kType, index), c10::DispatchKeySet(c10::DispatchKey::PrivateUse1)),
        host(std::move(numbers)) {}

  void set_current_seed(uint64_t seed) override { host.set_current_seed(seed); }
  void set_offset(uint64_t offset) override { host.set_offset(offset); }
  uint64_t get_offset() const override { return host.get_offset(); }
  uint64_t current_seed() const override { return host.current_seed(); }
  uint64_t seed() override { return host.seed(); }
  void set_state(const c10::TensorImpl &state) override {
    host.unsafeGetGeneratorImpl()->set_state(state);
  }
  c10::intrusive_ptr<c10::TensorImpl> get_state() const override {
    return host.unsafeGetGeneratorImpl()->get_state();
  }
  SimGenerator *clone_impl() const override {
    return new SimGenerator(device_.index(), host.clone());
  }

  at::Generator host;
};

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return device_count() > 0; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  void init() const override {}
  c10::DeviceIndex deviceCount() const override { return device_count(); }
  void setCurrentDevice(c10::DeviceIndex device) const override { exchange_device(device); }
  c10::DeviceIndex getCurrentDevice() const override { return current_device(); }
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex device) const override {
    return exchange_device(device);
  }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex device) const override {
    return exchange_device(device);
  }
  bool isPinnedPtr(const void *data) const override { return is_pinned(data); }
  c10::Allocator *getPinnedMemoryAllocator() const override { return pinned_allocator(); }
  c10::Device getDeviceFromPtr(void *) const override { return c10::Device(kType, current_device()); }
  const at::Generator &getDefaultGenerator(c10::DeviceIndex index) const override {
    static std::map<c10::DeviceIndex, at::Generator> made;
    if (index < 0) index = current_device();
    auto found = made.find(index);
    if (found == made.end())
      found = made.emplace(index, at::make_generator<SimGenerator>(
                                      index, at::detail::getDefaultCPUGenerator()))
                  .first;
    return found->second;
  }
  at::Generator getNewGenerator(c10::DeviceIndex index) const override {
    return at::make_generator<SimGenerator>(index < 0 ? current_device() : index,
                                            at::detail::createCPUGenerator());
  }
  void resizePrivateUse1Bytes(const c10::Storage &storage, size_t bytes) const override {
    c10::DataPtr larger = allocator()->allocate(bytes);
    size_t kept = std::min(bytes, storage.nbytes());
    if (kept) memcpy(larger.get(), storage.data(), kept);
    storage.unsafeGetStorageImpl()->set_data_ptr_noswap(std::move(larger));
    storage.unsafeGetStorageImpl()->set_nbytes(bytes);
  }
};

struct Register {
  Register() { at::RegisterPrivateUse1HooksInterface(new Hooks); }
} g_register;

}  // namespace

at::Generator host_generator(const at::Generator &generator) {
  if (generator.device().type() != kType) return generator;
  return static_cast<SimGenerator *>(generator.unsafeGetGeneratorImpl())->host;
}

}  // namespace simcuda
