// The process's own memory map.
#ifndef GPUTAP_MAPS_H
#define GPUTAP_MAPS_H

#include <stddef.h>
#include <stdint.h>

namespace gputap {

struct Mapping {
  uint64_t start, end;
  bool readable, writable;
  const char *path; /* not terminated; length 0 = anonymous */
  size_t path_length;
};

// Calls `visit` for each mapping in order of address until it returns true; whether it did. Visitors
// must not change the map.
bool maps_find(bool (*visit)(const Mapping &, void *), void *context);

// Whether the file of the mapping is one whose name starts with `stem`.
bool is_mapping_of(const Mapping &mapping, const char *stem);

}  // namespace gputap

#endif
