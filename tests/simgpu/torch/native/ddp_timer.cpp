// DistributedDataParallel's timer: events on the stream, as on CUDA.
#include <c10/core/Event.h>
#include <torch/csrc/distributed/c10d/reducer_timer.hpp>

#include <map>

#include "runtime.h"

namespace simcuda {

namespace {

class SimTimer final : public c10d::Timer {
 public:
  explicit SimTimer(c10::Device device) : device_(device) {}

  void record(Event event) override {
    c10d::Timer::record(event);  // the host's time as well
    auto [found, made] = events_.try_emplace(event, kType, c10::EventFlag::BACKEND_DEFAULT);
    found->second.record(current_stream(device_.index()));
  }

  std::optional<int64_t> measureDifference(Event start, Event end) override {
    auto from = events_.find(start), to = events_.find(end);
    if (from == events_.end() || to == events_.end()) return std::nullopt;
    to->second.synchronize();
    double ms = from->second.elapsedTime(to->second);
    if (ms < 0) return std::nullopt;  // the end is that of an earlier step
    return (int64_t)(ms * 1e6);
  }

 private:
  c10::Device device_;
  std::map<Event, c10::Event> events_;
};

}  // namespace

}  // namespace simcuda

namespace c10d {
C10_REGISTER_TYPED_CLASS(TimerRegistry, c10::kPrivateUse1, simcuda::SimTimer)
}  // namespace c10d
