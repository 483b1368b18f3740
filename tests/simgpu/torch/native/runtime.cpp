#include "runtime.h"

#include <c10/util/Exception.h>
#include <dlfcn.h>

#include <array>
#include <deque>
#include <mutex>

namespace simcuda {

namespace {

constexpr int kDevices = 16;
constexpr size_t kPoolStreams = 32;  // as many as PyTorch has; then they come round again

struct DeviceStreams {
  std::deque<cudaStream_t> handles;                  // by stream id - 1
  std::array<std::deque<c10::StreamId>, 2> by_rank;  // ids of normal and of high priority
  std::array<size_t, 2> next{};
};

std::mutex g_mutex;
std::array<DeviceStreams, kDevices> g_streams;
thread_local int t_device = 0;
thread_local std::array<c10::StreamId, kDevices> t_current{};

template <typename Function>
Function optional_function(const char *name) {
  return reinterpret_cast<Function>(dlsym(RTLD_DEFAULT, name));
}

}  // namespace

void check(cudaError_t error, const char *call) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // else a later call of somebody else would report it again
  throw c10::AcceleratorError({__func__, __FILE__, __LINE__}, error,
                              c10::str("CUDA error: ", cudaGetErrorString(error), " in ", call));
}

int device_count() noexcept {
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess) return count < kDevices ? count : kDevices;
  cudaGetLastError();
  return 0;
}

int current_device() noexcept { return t_device; }

int exchange_device(int device) {
  int before = t_device;
  if (device < 0 || device == before) return before;
  TORCH_CHECK(device < kDevices, "simcuda has no device ", device);
  SIMCUDA_CHECK(cudaSetDevice(device));
  t_device = device;
  return before;
}

static c10::Stream stream_of(int device, c10::StreamId id) {
  return c10::Stream(c10::Stream::UNSAFE, c10::Device(kType, device), id);
}

c10::Stream default_stream(int device) { return stream_of(device, 0); }

c10::Stream current_stream(int device) {
  if (device < 0) device = t_device;
  return stream_of(device, t_current.at(device));
}

c10::Stream exchange_stream(c10::Stream stream) {
  c10::StreamId before = t_current.at(stream.device_index());
  t_current[stream.device_index()] = stream.id();
  return stream_of(stream.device_index(), before);
}

c10::Stream pool_stream(int device, int priority) {
  if (device < 0) device = t_device;
  size_t rank = priority < 0;
  std::lock_guard<std::mutex> lock(g_mutex);
  DeviceStreams &streams = g_streams.at(device);
  auto &ids = streams.by_rank[rank];
  size_t turn = streams.next[rank]++ % kPoolStreams;
  if (turn == ids.size()) {
    int before = exchange_device(device);
    cudaStream_t handle = nullptr;
    cudaError_t error =
        cudaStreamCreateWithPriority(&handle, cudaStreamNonBlocking, priority < 0 ? -1 : 0);
    exchange_device(before);
    check(error, "cudaStreamCreateWithPriority");
    streams.handles.push_back(handle);
    ids.push_back((c10::StreamId)streams.handles.size());
  }
  return stream_of(device, ids[turn]);
}

cudaStream_t handle_of(const c10::Stream &stream) {
  if (stream.id() == 0) return nullptr;
  std::lock_guard<std::mutex> lock(g_mutex);
  return g_streams.at(stream.device_index()).handles.at(stream.id() - 1);
}

void settle(cudaStream_t stream) {
  static auto function = optional_function<void (*)(void *)>("simgpu_stream_settle");
  if (function) function(stream);
}

void next_duration(uint64_t duration_ns) {
  static auto function = optional_function<void (*)(uint64_t)>("simgpu_next_duration_ns");
  if (function && duration_ns) function(duration_ns);
}

}  // namespace simcuda
