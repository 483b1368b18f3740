#pragma once

#include <c10/core/CachingDeviceAllocator.h>

#include <cstdint>
#include <vector>

namespace simcuda {

// The caching allocator of the devices. Blocks are kept by device and stream; they are not split, so
// reserved - allocated is what waits in the cache plus what rounding costs.
c10::DeviceAllocator *allocator();

// A block that the allocator has of the driver, and an event of its history.
struct HeldBlock {
  uintptr_t address;
  size_t reserved, allocated, requested;
  int64_t stream;
  int device;
  const char *state;  // the words of torch.cuda.memory._snapshot
};
struct MemoryEvent {
  const char *action;
  uintptr_t address;
  size_t bytes;
  int64_t stream;
  int device;
  int64_t time_us;
};
std::vector<HeldBlock> held_blocks();
std::vector<MemoryEvent> memory_events();
void record_memory_events(size_t most);  // 0: no more
bool memory_events_are_recorded();

// Page-locked host memory (cudaHostAlloc), cached by size.
c10::Allocator *pinned_allocator();
bool is_pinned(const void *pointer);

}  // namespace simcuda
