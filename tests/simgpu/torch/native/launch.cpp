#include "launch.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <unordered_map>

#include "runtime.h"

namespace simcuda {

namespace {

constexpr double kEfficiency = 0.6;
constexpr double kBytesPerNs = 3350, kLowFlopsPerNs = 989e3, kTf32FlopsPerNs = 495e3,
                 kFp32FlopsPerNs = 67e3;
constexpr double kFloorNs = 1700;

double slowdown() {
  static double factor = [] {
    const char *text = getenv("SIMCUDA_SLOWDOWN");
    double value = text ? atof(text) : 1;
    return value > 0 ? value : 1;
  }();
  return factor;
}

double flops_per_ns(const OpFacts &facts) {
  if (facts.type.low) return kLowFlopsPerNs;
  static bool tf32 = getenv("SIMCUDA_TF32") != nullptr;
  return facts.op.find("conv") != std::string::npos || tf32 ? kTf32FlopsPerNs : kFp32FlopsPerNs;
}

// The address by which cudaLaunchKernel knows a kernel: nvcc's host stub, here a byte of our own.
const char *registered(const std::string &name) {
  static std::mutex mutex;
  static auto *known = new std::unordered_map<std::string, const char *>;
  static void **module = [] {
    // What nvcc passes: magic, version, pointer to an ELF image, which the simulated runtime does not read.
    static struct {
      int magic, version;
      const void *image;
      void *more;
    } wrapper = {0x466243b1, 1, "", nullptr};
    return __cudaRegisterFatBinary(&wrapper);
  }();
  std::lock_guard<std::mutex> lock(mutex);
  auto &stub = (*known)[name];
  if (!stub) {
    // Leaked: CUPTI's records point to the name for ever.
    char *copy = strdup(name.c_str());
    stub = new char(0);
    __cudaRegisterFunction(module, stub, copy, copy, -1, nullptr, nullptr, nullptr, nullptr, nullptr);
    __cudaRegisterFatBinaryEnd(module);
  }
  return stub;
}

void launch_one(const std::string &name, const OpFacts &facts, cudaStream_t stream) {
  bool matrix = facts.flops > 0;
  unsigned threads = matrix ? 384 : 128;
  int64_t per_block = matrix ? 128 * 128 : 4 * 128;
  int64_t blocks = std::clamp<int64_t>((facts.numel + per_block - 1) / per_block, 1, 1 << 20);
  int64_t numel = facts.numel;
  void *arguments[] = {&numel};
  next_duration(kernel_duration_ns(facts));
  SIMCUDA_CHECK(cudaLaunchKernel(registered(name), {(unsigned)blocks, 1, 1}, {threads, 1, 1},
                                 arguments, matrix ? 200 * 1024 : 0, stream));
}

}  // namespace

uint64_t kernel_duration_ns(const OpFacts &facts) {
  double memory_ns = (double)facts.bytes / (kBytesPerNs * kEfficiency);
  double maths_ns = (double)facts.flops / (flops_per_ns(facts) * kEfficiency);
  return (uint64_t)(std::max({kFloorNs, memory_ns, maths_ns}) * slowdown());
}

void launch(const OpFacts &facts) {
  cudaStream_t stream = current_handle();
  for (const std::string &name : kernel_names(facts)) launch_one(name, facts, stream);
}

}  // namespace simcuda
