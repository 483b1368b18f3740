/* TEMPORARY: what libnccl needs of libcuda.so.1, until that is built. */
#include "../core/kernel.h"
#include "../core/simgpu.h"

struct launch_config {
  unsigned grid[3], block[3], shared_bytes;
  void *stream, *attributes;
  unsigned attribute_count;
};

int cuLaunchKernelEx(const struct launch_config *config, void *function, void **parameters,
                     void **extra) {
  struct simgpu_kernel *kernel = function;
  const struct {
    const void *config, *function, *parameters, *extra;
  } arguments = {config, function, parameters, extra};
  struct simgpu_call call = {.domain = SIMGPU_DRIVER,
                             .cbid = 652,
                             .function = "cuLaunchKernelEx",
                             .parameters = &arguments,
                             .symbol = kernel->name};
  simgpu_call_begin(&call);
  struct simgpu_operation operation = {
      .kind = SIMGPU_KERNEL, .name = kernel->name, .dynamic_shared = config->shared_bytes};
  for (int i = 0; i < 3; i++) {
    operation.grid[i] = config->grid[i];
    operation.block[i] = config->block[i];
  }
  const int result = simgpu_enqueue(simgpu_stream_of(config->stream), &operation);
  simgpu_call_end(&call, result);
  return result;
}

int cuMemcpyAsync(uint64_t to, uint64_t from, size_t bytes, void *stream) {
  const struct simgpu_operation copy = {
      .kind = SIMGPU_MEMCPY,
      .bytes = bytes,
      .width = bytes,
      .height = 1,
      .from = {(void *)from, 0},
      .to = {(void *)to, 0},
      .copy_kind = SIMGPU_COPY_DTOD,
      .source_kind = SIMGPU_MEMORY_DEVICE,
      .destination_kind = SIMGPU_MEMORY_DEVICE,
      .asynchronous = true,
  };
  return simgpu_enqueue(simgpu_stream_of(stream), &copy);
}
