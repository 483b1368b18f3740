#include <map>
#include <mutex>
#include <unordered_map>

#include "allocator.h"
#include "runtime.h"

namespace simcuda {

namespace {

// Blocks are powers of two, as in PyTorch's CachingHostAllocator. No event guards their reuse: copies of
// the simulated stack that may not move their bytes at once are waited for by `settle` before they start.
class Pinned final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    void *pointer = bytes ? take(bytes) : nullptr;
    return {pointer, pointer, &Pinned::give_back, c10::Device(c10::DeviceType::CPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &Pinned::give_back; }
  void copy_data(void *to, const void *from, size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }

  bool holds(const void *pointer) {
    std::lock_guard<std::mutex> lock(mutex_);
    auto after = sizes_.upper_bound(reinterpret_cast<uintptr_t>(pointer));
    if (after == sizes_.begin()) return false;
    auto &[start, size] = *--after;
    return reinterpret_cast<uintptr_t>(pointer) < start + size;
  }

 private:
  void *take(size_t bytes) {
    size_t size = 512;
    while (size < bytes) size *= 2;
    std::lock_guard<std::mutex> lock(mutex_);
    auto found = free_.find(size);
    if (found != free_.end()) {
      void *pointer = found->second;
      free_.erase(found);
      return pointer;
    }
    void *pointer = nullptr;
    SIMCUDA_CHECK(cudaHostAlloc(&pointer, size, 0));
    sizes_[reinterpret_cast<uintptr_t>(pointer)] = size;
    return pointer;
  }

  static void give_back(void *pointer) {
    if (!pointer) return;
    auto *self = static_cast<Pinned *>(pinned_allocator());
    std::lock_guard<std::mutex> lock(self->mutex_);
    self->free_.emplace(self->sizes_[reinterpret_cast<uintptr_t>(pointer)], pointer);
  }

  std::mutex mutex_;
  std::map<uintptr_t, size_t> sizes_;
  std::multimap<size_t, void *> free_;
};

}  // namespace

c10::Allocator *pinned_allocator() {
  static auto *pinned = new Pinned;
  return pinned;
}

bool is_pinned(const void *pointer) { return static_cast<Pinned *>(pinned_allocator())->holds(pointer); }

}  // namespace simcuda
