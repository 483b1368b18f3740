// What Python needs beyond torch.Stream, torch.Event and torch.accelerator.
#include <torch/csrc/utils/pybind.h>

#include "allocator.h"
#include "finish.h"
#include "graph.h"
#include "graph_object.h"
#include "launch.h"
#include "runtime.h"

namespace simcuda {
void register_operators();
void define_process_group(py::module_ &m);
}

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  using namespace simcuda;
  register_operators();
  define_process_group(m);
  using Release = py::call_guard<py::gil_scoped_release>;
  m.def("finish_autograd", &finish_autograd, Release());
  m.def("device_count", &device_count);
  m.def("current_device", &current_device);
  m.def("set_device", [](int device) { exchange_device(device); });
  m.def("capturing", &capturing);
  m.def("held_blocks", [] {
    py::list out;
    for (const HeldBlock &it : held_blocks())
      out.append(py::make_tuple(it.address, it.reserved, it.allocated, it.requested, it.stream,
                                it.device, it.state));
    return out;
  });
  m.def("memory_events", [] {
    py::list out;
    for (const MemoryEvent &it : memory_events())
      out.append(
          py::make_tuple(it.action, it.address, it.bytes, it.stream, it.device, it.time_us));
    return out;
  });
  m.def("record_memory_events", &record_memory_events);
  m.def("memory_events_are_recorded", &memory_events_are_recorded);
  m.def("stream_handle", [](int device, int64_t id) {
    return (uintptr_t)handle_of(c10::Stream(c10::Stream::UNSAFE, c10::Device(kType, device), id));
  });
  m.def("kernel_names", [](const std::string &op, bool low, int64_t row, bool scalar) {
    OpFacts facts;
    facts.op = op;
    facts.row = row;
    facts.scalar = scalar;
    if (low) facts.type = {"N3c108BFloat16E", 2, true};
    return kernel_names(facts);
  });
  py::class_<Graph>(m, "Graph")
      .def(py::init<>())
      .def("capture_begin", &Graph::capture_begin, Release())
      .def("capture_end", &Graph::capture_end, Release())
      .def("replay", &Graph::replay, Release())
      .def("reset", &Graph::reset, Release())
      .def_property_readonly("calls", &Graph::calls);
}
