// The process group's Python side: how it is made, and what it remembers.
#include <torch/csrc/utils/pybind.h>

#include "flight_log.h"
#include "process_group.h"

namespace simcuda {

void define_process_group(py::module_ &m) {
  m.def(
      "create_process_group",
      [](const c10::intrusive_ptr<c10d::Store> &store, int rank, int size,
         std::vector<int64_t> global_ranks) -> c10::intrusive_ptr<c10d::Backend> {
        return c10::make_intrusive<ProcessGroupSim>(store, rank, size, std::move(global_ranks));
      },
      py::arg("store"), py::arg("rank"), py::arg("size"), py::arg("global_ranks"));
  m.def(
      "dump_nccl_trace_json",
      [](bool include_collectives, bool only_active) {
        return py::bytes(flight_log_json(include_collectives, only_active));
      },
      py::arg("includeCollectives") = true, py::arg("onlyActive") = false);
}

}  // namespace simcuda
