#pragma once

#include <c10/core/CachingDeviceAllocator.h>

namespace simcuda {

// The caching allocator of the devices. Blocks are kept by device and stream; they are not split, so
// reserved - allocated is what waits in the cache plus what rounding costs.
c10::DeviceAllocator *allocator();

// Page-locked host memory (cudaHostAlloc), cached by size.
c10::Allocator *pinned_allocator();
bool is_pinned(const void *pointer);

}  // namespace simcuda
