/* Launches, as Triton and NCCL make them: with API records of the driver alone. */
#include "driver.h"

enum { MOST_THREADS = 1024 };

static const char *name_of(const struct simgpu_kernel *kernel) {
  return kernel ? kernel->name : NULL;
}

static int enqueue(const struct simgpu_kernel *kernel, struct simgpu_operation *operation,
                   stream_handle stream) {
  if (!kernel) return SIMGPU_INVALID_HANDLE;
  const uint64_t threads =
      (uint64_t)operation->block[0] * operation->block[1] * operation->block[2];
  if (!operation->grid[0] || !operation->grid[1] || !operation->grid[2] || !threads ||
      threads > MOST_THREADS) {
    return SIMGPU_INVALID_VALUE;
  }
  operation->kind = SIMGPU_KERNEL;
  operation->name = kernel->name;
  operation->static_shared = kernel->static_shared;
  operation->registers = kernel->registers;
  return simgpu_enqueue(simgpu_stream_of(stream), operation);
}

static int launch(const struct simgpu_kernel *kernel, const unsigned *sizes, bool cooperative,
                  stream_handle stream) {
  struct simgpu_operation operation = {
      .grid = {sizes[0], sizes[1], sizes[2]},
      .block = {sizes[3], sizes[4], sizes[5]},
      .dynamic_shared = sizes[6],
      .cooperative = cooperative,
  };
  return enqueue(kernel, &operation, stream);
}

static int launch_configured(const struct simgpu_kernel *kernel,
                             const struct abi_driver_launch_config *config,
                             stream_handle stream) {
  if (!config) return SIMGPU_INVALID_VALUE;
  struct simgpu_operation operation = {
      .grid = {config->grid.x, config->grid.y, config->grid.z},
      .block = {config->block.x, config->block.y, config->block.z},
      .dynamic_shared = config->dynamic_shared,
  };
  for (unsigned i = 0; i < config->attribute_count; i++) {
    const struct abi_launch_attribute *attribute = &config->attributes[i];
    if (attribute->id == ABI_ATTRIBUTE_COOPERATIVE) operation.cooperative = attribute->value.number;
    if (attribute->id == ABI_ATTRIBUTE_CLUSTER) {
      operation.cluster[0] = attribute->value.cluster.x;
      operation.cluster[1] = attribute->value.cluster.y;
      operation.cluster[2] = attribute->value.cluster.z;
    }
  }
  return enqueue(kernel, &operation, stream);
}

#define LAUNCH(export, cbid, default_stream)                                                      \
  SIMGPU_EXPORT int export(function_handle kernel, unsigned grid_x, unsigned grid_y,              \
                           unsigned grid_z, unsigned block_x, unsigned block_y, unsigned block_z, \
                           unsigned shared, stream_handle stream, void **arguments,               \
                           void **extra) {                                                        \
    PACK(function_handle kernel; unsigned sizes[7]; stream_handle stream; void **arguments;       \
         void **extra;) = {kernel,                                                                \
                           {grid_x, grid_y, grid_z, block_x, block_y, block_z, shared},           \
                           stream,                                                                \
                           arguments,                                                             \
                           extra};                                                                \
    if (!stream) stream = default_stream;                                                         \
    BODY(export, cbid, name_of(kernel), true, launch(kernel, parameters_.sizes, false, stream))   \
  }
LAUNCH(cuLaunchKernel, 307, NULL)
LAUNCH(cuLaunchKernel_ptsz, 442, (stream_handle)2)

#define LAUNCH_CONFIGURED(export, cbid, default_stream)                                         \
  SIMGPU_EXPORT int export(const struct abi_driver_launch_config *config, function_handle kernel, \
                           void **arguments, void **extra) {                                    \
    PACK(const struct abi_driver_launch_config *config; function_handle kernel;                 \
         void **arguments; void **extra;) = {config, kernel, arguments, extra};                 \
    stream_handle stream = config ? config->stream : NULL;                                      \
    if (!stream) stream = default_stream;                                                       \
    BODY(export, cbid, name_of(kernel), true, launch_configured(kernel, config, stream))        \
  }
LAUNCH_CONFIGURED(cuLaunchKernelEx, 652, NULL)

SIMGPU_EXPORT int cuLaunchCooperativeKernel(function_handle kernel, unsigned grid_x,
                                            unsigned grid_y, unsigned grid_z, unsigned block_x,
                                            unsigned block_y, unsigned block_z, unsigned shared,
                                            stream_handle stream, void **arguments) {
  PACK(function_handle kernel; unsigned sizes[7]; stream_handle stream; void **arguments;) = {
      kernel, {grid_x, grid_y, grid_z, block_x, block_y, block_z, shared}, stream, arguments};
  BODY(cuLaunchCooperativeKernel, 477, name_of(kernel), true,
       launch(kernel, parameters_.sizes, true, stream))
}

typedef void (*host_function)(void *);
DRIVER_3(cuLaunchHostFunc, 527, stream_handle, stream, host_function, work, void *, user,
         simgpu_enqueue_host(simgpu_stream_of(stream), work, user))
