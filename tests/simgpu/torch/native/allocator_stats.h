// Counting for the caching allocator. Each statistic has three cells: all, small blocks, large blocks.
#pragma once

#include <c10/core/CachingDeviceAllocator.h>

namespace simcuda {

using c10::CachingAllocator::StatArray;
using c10::CachingDeviceAllocator::DeviceStats;

constexpr size_t kSmall = 1 << 20;

inline bool small(size_t reserved) { return reserved <= kSmall; }

template <typename Change>
void change(StatArray &stats, bool is_small, Change how) {
  how(stats[0]);
  how(stats[is_small ? 1 : 2]);
}

inline void add(StatArray &stats, bool is_small, size_t amount) {
  change(stats, is_small, [&](auto &stat) { stat.increase(amount); });
}

inline void take(StatArray &stats, bool is_small, size_t amount) {
  change(stats, is_small, [&](auto &stat) { stat.decrease(amount); });
}

template <typename Each>
void for_each_stat(DeviceStats &stats, Each each) {
  for (StatArray *array :
       {&stats.allocation, &stats.segment, &stats.active, &stats.inactive_split,
        &stats.allocated_bytes, &stats.reserved_bytes, &stats.active_bytes,
        &stats.inactive_split_bytes, &stats.requested_bytes})
    for (auto &stat : *array) each(stat);
}

}  // namespace simcuda
