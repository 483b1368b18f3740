#include "flight_log.h"

#include <chrono>
#include <deque>
#include <mutex>
#include <sstream>

namespace simcuda {

namespace {

constexpr size_t kEntries = 2000;  // as many as PyTorch keeps

std::mutex g_mutex;
std::deque<FlightEntry> g_entries;
uint64_t g_first_id = 0;

int64_t unix_ns() {
  auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(now).count();
}

std::string quoted(const std::string &text) {
  std::string result = "\"";
  for (char c : text) {
    if (c == '"' || c == '\\') result += '\\';
    result += c;
  }
  return result + "\"";
}

template <typename Each>
std::string joined(size_t count, Each each) {
  std::string result = "[";
  for (size_t i = 0; i < count; i++) result += (i ? ", " : "") + each(i);
  return result + "]";
}

void write(std::ostream &out, const FlightEntry &entry, uint64_t id) {
  bool done = entry.completed_ns != 0;
  std::string seen = done ? std::to_string(entry.completed_ns) : "null";
  out << "{\"record_id\": " << id << ", \"pg_id\": 0, \"process_group\": [" << quoted(entry.group)
      << ", " << quoted(entry.description) << "], \"collective_seq_id\": " << entry.collective_seq
      << ", \"p2p_seq_id\": " << entry.p2p_seq << ", \"op_id\": " << entry.op_id
      << ", \"profiling_name\": " << quoted(entry.name)
      << ", \"time_created_ns\": " << entry.created_ns << ", \"input_sizes\": " << entry.inputs
      << ", \"input_dtypes\": " << entry.input_types << ", \"output_sizes\": " << entry.outputs
      << ", \"output_dtypes\": " << entry.output_types << ", \"state\": \""
      << (done ? "completed" : "scheduled") << "\", \"time_discovered_started_ns\": " << seen
      << ", \"time_discovered_completed_ns\": " << seen << ", \"retired\": "
      << (done ? "true" : "false") << ", \"timeout_ms\": 600000, \"is_p2p\": "
      << (entry.is_p2p ? "true" : "false") << ", \"thread_id\": \"" << entry.thread << "\"}";
}

}  // namespace

std::string sizes_json(const std::vector<at::Tensor> &tensors) {
  return joined(tensors.size(), [&](size_t i) {
    auto sizes = tensors[i].sizes();
    return joined(sizes.size(), [&](size_t d) { return std::to_string(sizes[d]); });
  });
}

std::string types_json(const std::vector<at::Tensor> &tensors) {
  return joined(tensors.size(),
                [&](size_t i) { return quoted(c10::toString(tensors[i].scalar_type())); });
}

void flight_log_add(FlightEntry entry) {
  entry.created_ns = unix_ns();
  std::lock_guard<std::mutex> lock(g_mutex);
  g_entries.push_back(std::move(entry));
  if (g_entries.size() > kEntries) {
    g_entries.pop_front();
    g_first_id++;
  }
}

std::string flight_log_json(bool include_collectives, bool only_active) {
  std::lock_guard<std::mutex> lock(g_mutex);
  std::ostringstream out;
  out << "{\"version\": \"2.10\", \"pg_config\": {}, \"pg_status\": {}, \"entries\": [";
  const char *separator = "";
  for (size_t i = 0; include_collectives && i < g_entries.size(); i++) {
    FlightEntry &entry = g_entries[i];
    if (!entry.completed_ns && entry.end->reached()) entry.completed_ns = unix_ns();
    if (entry.completed_ns) entry.end.reset();
    if (only_active && entry.completed_ns) continue;
    out << separator;
    write(out, entry, g_first_id + i);
    separator = ", ";
  }
  out << "]}";
  return out.str();
}

}  // namespace simcuda
