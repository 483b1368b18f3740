#include "allocator.h"

#include <cstring>
#include <map>
#include <mutex>
#include <set>
#include <unordered_map>
#include <vector>

#include "allocator_history.h"
#include "allocator_stats.h"
#include "runtime.h"

namespace simcuda {

namespace {

constexpr size_t kRound = 512, kLargeRound = 2 << 20;

struct Block {
  void *pointer;
  size_t reserved;       // what cudaMalloc gave
  size_t allocated = 0;  // what the present owner counts for, rounded to 512
  size_t requested = 0;
  int device;
  c10::StreamId stream;
  std::set<c10::StreamId> used_on;     // other streams (record_stream)
  std::vector<cudaEvent_t> awaited{};  // those streams' ends, when freed
};

size_t round_up(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

class Cache final : public c10::DeviceAllocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    int device = current_device();
    void *pointer = bytes ? take_block(device, current_stream(device).id(), bytes) : nullptr;
    return {pointer, pointer, &Cache::give_back, c10::Device(kType, device)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &Cache::give_back; }
  void copy_data(void *to, const void *from, size_t bytes) const override {
    SIMCUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, current_handle()));
  }

  bool initialized() override { return true; }
  void emptyCache(c10::MempoolId_t) override {
    std::lock_guard<std::mutex> lock(mutex_);
    finish_waiting(true);
    release_cached(-1);
  }
  void recordStream(const c10::DataPtr &data, c10::Stream stream) override {
    std::lock_guard<std::mutex> lock(mutex_);
    auto found = live_.find(data.get());
    if (found != live_.end() && found->second.stream != stream.id())
      found->second.used_on.insert(stream.id());
  }
  DeviceStats getDeviceStats(c10::DeviceIndex device) override {
    std::lock_guard<std::mutex> lock(mutex_);
    return stats_[device];
  }
  void resetAccumulatedStats(c10::DeviceIndex device) override {
    std::lock_guard<std::mutex> lock(mutex_);
    for_each_stat(stats_[device], [](auto &stat) { stat.reset_accumulated(); });
    stats_[device].num_alloc_retries = stats_[device].num_ooms = 0;
  }
  void resetPeakStats(c10::DeviceIndex device) override {
    std::lock_guard<std::mutex> lock(mutex_);
    for_each_stat(stats_[device], [](auto &stat) { stat.reset_peak(); });
  }
  std::pair<size_t, size_t> getMemoryInfo(c10::DeviceIndex device) override {
    size_t free = 0, total = 0;
    int before = exchange_device(device);
    cudaError_t error = cudaMemGetInfo(&free, &total);
    exchange_device(before);
    check(error, "cudaMemGetInfo");
    return {free, total};
  }

  std::vector<HeldBlock> held() {
    std::lock_guard<std::mutex> lock(mutex_);
    std::vector<HeldBlock> found;
    auto add = [&](const Block &block, const char *state, bool used) {
      found.push_back({(uintptr_t)block.pointer, block.reserved, used ? block.allocated : 0,
                       used ? block.requested : 0, block.stream, block.device, state});
    };
    for (auto &[pointer, block] : live_) add(block, "active_allocated", true);
    for (auto &block : waiting_) add(block, "active_awaiting_free", true);
    for (auto &[key, blocks] : cached_)
      for (auto &[bytes, block] : blocks) add(block, "inactive", false);
    return found;
  }
  std::vector<MemoryEvent> events() {
    std::lock_guard<std::mutex> lock(mutex_);
    return history_.events();
  }
  void record(size_t most) {
    std::lock_guard<std::mutex> lock(mutex_);
    history_.record(most);
  }
  bool is_recorded() {
    std::lock_guard<std::mutex> lock(mutex_);
    return history_.on();
  }

 private:
  using Key = std::pair<int, c10::StreamId>;

  void *take_block(int device, c10::StreamId stream, size_t bytes) {
    size_t rounded = round_up(bytes, kRound);
    size_t wanted = rounded <= kSmall ? rounded : round_up(rounded, kLargeRound);
    std::lock_guard<std::mutex> lock(mutex_);
    finish_waiting(false);
    Block block = from_cache(device, stream, wanted);
    if (!block.pointer) block = from_device(device, stream, wanted);
    block.allocated = rounded;
    block.requested = bytes;
    count(block);
    report(block, (int64_t)rounded);
    note("alloc", block, rounded);
    live_[block.pointer] = block;
    return block.pointer;
  }

  // The smallest that fits, but no block of more than twice the size: it would starve a large request.
  Block from_cache(int device, c10::StreamId stream, size_t wanted) {
    auto &blocks = cached_[{device, stream}];
    auto found = blocks.lower_bound(wanted);
    if (found == blocks.end() || found->first > 2 * wanted) return {nullptr, 0, 0, 0, 0, 0, {}, {}};
    Block block = found->second;
    blocks.erase(found);
    return block;
  }

  Block from_device(int device, c10::StreamId stream, size_t wanted) {
    void *pointer = nullptr;
    DeviceStats &stats = stats_[device];
    stats.num_device_alloc++;
    if (cudaMalloc(&pointer, wanted) != cudaSuccess) {
      cudaGetLastError();
      stats.num_alloc_retries++;
      finish_waiting(true);
      release_cached(device);
      if (cudaMalloc(&pointer, wanted) != cudaSuccess) {
        cudaGetLastError();
        out_of_memory(device, wanted);
      }
    }
    add(stats.segment, small(wanted), 1);
    add(stats.reserved_bytes, small(wanted), wanted);
    history_.note("segment_alloc", pointer, wanted, stream, device);
    return {pointer, wanted, 0, 0, device, stream, {}, {}};
  }

  [[noreturn]] void out_of_memory(int device, size_t wanted) {
    DeviceStats &stats = stats_[device];
    stats.num_ooms++;
    size_t free = 0, total = 0;
    cudaMemGetInfo(&free, &total);
    size_t allocated = stats.allocated_bytes[0].current, reserved = stats.reserved_bytes[0].current;
    c10::reportOutOfMemoryToProfiler((int64_t)wanted, allocated, reserved,
                                     c10::Device(kType, device));
    using c10::CachingAllocator::format_size;
    TORCH_CHECK_WITH(OutOfMemoryError, false, "simcuda out of memory. Tried to allocate ",
                     format_size(wanted), ". GPU ", device, " has a total capacity of ",
                     format_size(total), " of which ", format_size(free),
                     " is free. Of the allocated memory ", format_size(allocated),
                     " is allocated by PyTorch, and ", format_size(reserved - allocated),
                     " is reserved by PyTorch but unallocated.");
    std::abort();
  }

  static void give_back(void *pointer) {
    auto *self = static_cast<Cache *>(allocator());
    if (pointer) self->free_block(pointer);
  }

  void free_block(void *pointer) {
    std::lock_guard<std::mutex> lock(mutex_);
    auto found = live_.find(pointer);
    if (found == live_.end()) return;
    Block block = std::move(found->second);
    live_.erase(found);
    bool is_small = small(block.reserved);
    take(stats_[block.device].allocation, is_small, 1);
    take(stats_[block.device].allocated_bytes, is_small, block.allocated);
    take(stats_[block.device].requested_bytes, is_small, block.requested);
    report(block, -(int64_t)block.allocated);
    note("free_requested", block, block.allocated);
    for (c10::StreamId id : block.used_on) await_stream(block, id);
    block.used_on.clear();
    if (block.awaited.empty())
      cache(block);
    else
      waiting_.push_back(block);
  }

  static void await_stream(Block &block, c10::StreamId id) {
    c10::Stream stream(c10::Stream::UNSAFE, c10::Device(kType, block.device), id);
    cudaEvent_t event = nullptr;
    if (cudaEventCreateWithFlags(&event, cudaEventDisableTiming) != cudaSuccess) return;
    cudaEventRecord(event, handle_of(stream));
    block.awaited.push_back(event);
  }

  void finish_waiting(bool wait) {
    auto finished = [&](Block &block) {
      while (!block.awaited.empty()) {
        cudaEvent_t event = block.awaited.back();
        if (wait)
          cudaEventSynchronize(event);
        else if (cudaEventQuery(event) == cudaErrorNotReady)
          return cudaGetLastError(), false;
        cudaEventDestroy(event);
        block.awaited.pop_back();
      }
      cache(block);
      return true;
    };
    for (size_t i = 0; i < waiting_.size();)
      if (finished(waiting_[i]))
        waiting_.erase(waiting_.begin() + (long)i);
      else
        i++;
  }

  void cache(const Block &block) {
    bool is_small = small(block.reserved);
    note("free_completed", block, block.allocated);
    take(stats_[block.device].active, is_small, 1);
    take(stats_[block.device].active_bytes, is_small, block.allocated);
    cached_[Key(block.device, block.stream)].emplace(block.reserved, block);
  }

  void release_cached(int device) {
    for (auto &[key, blocks] : cached_) {
      if (device >= 0 && key.first != device) continue;
      for (auto &[bytes, block] : blocks) {
        cudaFree(block.pointer);
        note("segment_free", block, bytes);
        DeviceStats &stats = stats_[key.first];
        stats.num_device_free++;
        take(stats.segment, small(bytes), 1);
        take(stats.reserved_bytes, small(bytes), bytes);
      }
      blocks.clear();
    }
  }

  void count(const Block &block) {
    bool is_small = small(block.reserved);
    DeviceStats &stats = stats_[block.device];
    add(stats.allocation, is_small, 1);
    add(stats.active, is_small, 1);
    add(stats.allocated_bytes, is_small, block.allocated);
    add(stats.active_bytes, is_small, block.allocated);
    add(stats.requested_bytes, is_small, block.requested);
  }

  void note(const char *action, const Block &block, size_t bytes) {
    history_.note(action, block.pointer, bytes, block.stream, block.device);
  }

  void report(const Block &block, int64_t bytes) {
    DeviceStats &stats = stats_[block.device];
    c10::reportMemoryUsageToProfiler(block.pointer, bytes, stats.allocated_bytes[0].current,
                                     stats.reserved_bytes[0].current,
                                     c10::Device(kType, block.device));
  }

  std::mutex mutex_;
  std::unordered_map<void *, Block> live_;
  std::map<Key, std::multimap<size_t, Block>> cached_;
  std::vector<Block> waiting_;
  std::map<int, DeviceStats> stats_;
  History history_;
};

Cache *cache() {
  static auto *cache = new Cache;  // never destroyed: tensors outlive static destructors
  return cache;
}

}  // namespace

c10::DeviceAllocator *allocator() { return cache(); }
std::vector<HeldBlock> held_blocks() { return cache()->held(); }
std::vector<MemoryEvent> memory_events() { return cache()->events(); }
void record_memory_events(size_t most) { cache()->record(most); }
bool memory_events_are_recorded() { return cache()->is_recorded(); }

namespace {
struct Register {
  Register() { c10::SetAllocator(kType, allocator()); }
} g_register;
}  // namespace

}  // namespace simcuda
