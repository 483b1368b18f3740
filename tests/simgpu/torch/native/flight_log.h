// What PyTorch's flight recorder keeps of NCCL's collectives, for `_dump_nccl_trace_json`. Its own one is
// not exported by libtorch, and the CPU wheel has none for NCCL.
#pragma once

#include <string>

#include "collective_work.h"

namespace simcuda {

struct FlightEntry {
  std::string group, description, name;
  uint64_t collective_seq, p2p_seq, op_id;
  bool is_p2p;
  std::string inputs, input_types, outputs, output_types;  // as JSON
  int64_t created_ns;                                      // unix time
  uint64_t thread;
  std::shared_ptr<EndEvent> end;
  int64_t completed_ns = 0;  // when a dump first saw it complete
};

// Sizes and types of tensors as JSON, e.g. [[10], [2, 3]] and ["Float", "Long"].
std::string sizes_json(const std::vector<at::Tensor> &tensors);
std::string types_json(const std::vector<at::Tensor> &tensors);

void flight_log_add(FlightEntry entry);
std::string flight_log_json(bool include_collectives, bool only_active);

}  // namespace simcuda
