/* Launches of kernels. */
#include "api.h"

enum {
  INVALID_CONFIGURATION = 9,
  INVALID_FUNCTION = 98,
  MOST_THREADS = 1024,
};

struct configuration {
  struct abi_dim3 grid, block;
  size_t dynamic_shared;
  void *stream;
};

static _Thread_local struct configuration pushed;

SIMGPU_EXPORT unsigned __cudaPushCallConfiguration(struct abi_dim3 grid, struct abi_dim3 block,
                                                   size_t dynamic_shared, void *stream) {
  pushed = (struct configuration){grid, block, dynamic_shared, stream};
  return 0;
}

SIMGPU_EXPORT int __cudaPopCallConfiguration(struct abi_dim3 *grid, struct abi_dim3 *block,
                                             size_t *dynamic_shared, void *stream) {
  *grid = pushed.grid;
  *block = pushed.block;
  *dynamic_shared = pushed.dynamic_shared;
  *(void **)stream = pushed.stream;
  return SIMGPU_OK;
}

static bool is_launchable(const struct simgpu_operation *operation) {
  const uint64_t threads =
      (uint64_t)operation->block[0] * operation->block[1] * operation->block[2];
  return operation->grid[0] && operation->grid[1] && operation->grid[2] && threads &&
         threads <= MOST_THREADS;
}

static struct simgpu_operation describe(const struct simgpu_kernel *kernel, struct abi_dim3 grid,
                                        struct abi_dim3 block, size_t dynamic_shared) {
  return (struct simgpu_operation){
      .kind = SIMGPU_KERNEL,
      .name = kernel->name,
      .grid = {grid.x, grid.y, grid.z},
      .block = {block.x, block.y, block.z},
      .dynamic_shared = (uint32_t)dynamic_shared,
      .static_shared = kernel->static_shared,
      .registers = kernel->registers,
  };
}

static int launch(const struct simgpu_kernel *kernel, struct abi_dim3 grid, struct abi_dim3 block,
                  size_t dynamic_shared, bool cooperative, void *stream) {
  if (!kernel) return INVALID_FUNCTION;
  struct simgpu_operation operation = describe(kernel, grid, block, dynamic_shared);
  operation.cooperative = cooperative;
  if (!is_launchable(&operation)) return INVALID_CONFIGURATION;
  return simgpu_enqueue(simgpu_stream_of(stream), &operation);
}

/* A cudaKernel_t may be given wherever the address of a host stub is. */
static const struct simgpu_kernel *find(const void *function) {
  const struct simgpu_kernel *kernel = simgpu_kernel_of_host(function);
  return kernel || !simgpu_kernel_is_one(function) ? kernel : function;
}

static int launch_configured(const struct abi_launch_config *config,
                             const struct simgpu_kernel *kernel, void *stream) {
  if (!config) return SIMGPU_INVALID_VALUE;
  if (!kernel) return INVALID_FUNCTION;
  struct simgpu_operation operation =
      describe(kernel, config->grid, config->block, config->dynamic_shared);
  for (unsigned i = 0; i < config->attribute_count; i++) {
    const struct abi_launch_attribute *attribute = &config->attributes[i];
    if (attribute->id == ABI_ATTRIBUTE_COOPERATIVE) operation.cooperative = attribute->value.number;
    if (attribute->id == ABI_ATTRIBUTE_CLUSTER) {
      operation.cluster[0] = attribute->value.cluster.x;
      operation.cluster[1] = attribute->value.cluster.y;
      operation.cluster[2] = attribute->value.cluster.z;
    }
  }
  if (!is_launchable(&operation)) return INVALID_CONFIGURATION;
  return simgpu_enqueue(simgpu_stream_of(stream), &operation);
}

static const char *name_of(const struct simgpu_kernel *kernel) {
  return kernel ? kernel->name : NULL;
}

/* The three ways to launch have their symbol in the callback, so they are written out. */
#define LAUNCH(name, function, cbid, KERNEL, found, cooperative, change)                        \
  SIMGPU_EXPORT int function(KERNEL kernel, struct abi_dim3 grid, struct abi_dim3 block,        \
                             void **arguments, size_t shared, void *stream) {                   \
    PACK(KERNEL kernel; struct abi_dim3 grid, block; void **arguments; size_t shared;           \
         void *stream;) = {kernel, grid, block, arguments, shared, stream};                     \
    const struct simgpu_kernel *it = found;                                                     \
    change BODY(name, cbid, name_of(it), launch(it, grid, block, shared, cooperative, stream))  \
  }

LAUNCH(__cudaLaunchKernel, __cudaLaunchKernel, 505, struct simgpu_kernel *, kernel, false, )
LAUNCH(__cudaLaunchKernel_ptsz, __cudaLaunchKernel_ptsz, 506, struct simgpu_kernel *, kernel,
       false, PTSZ)
LAUNCH(cudaLaunchKernel, cudaLaunchKernel, 211, const void *, find(kernel), false, )
LAUNCH(cudaLaunchKernel_ptsz, cudaLaunchKernel_ptsz, 214, const void *, find(kernel), false, PTSZ)
LAUNCH(cudaLaunchCooperativeKernel, cudaLaunchCooperativeKernel, 269, const void *, find(kernel),
       true, )
LAUNCH(cudaLaunchCooperativeKernel_ptsz, cudaLaunchCooperativeKernel_ptsz, 270, const void *,
       find(kernel), true, PTSZ)

#define LAUNCH_CONFIGURED(function, cbid, change)                                               \
  SIMGPU_EXPORT int function(const struct abi_launch_config *config, const void *kernel,        \
                             void **arguments) {                                                \
    PACK(const struct abi_launch_config *config; const void *kernel; void **arguments;) = {     \
        config, kernel, arguments};                                                             \
    const struct simgpu_kernel *it = find(kernel);                                              \
    void *stream = config ? config->stream : NULL;                                              \
    change BODY(function, cbid, name_of(it), launch_configured(config, it, stream))             \
  }

LAUNCH_CONFIGURED(cudaLaunchKernelExC, 430, )
LAUNCH_CONFIGURED(cudaLaunchKernelExC_ptsz, 431, PTSZ)

#define HOST_FUNCTION(function, cbid, change)                                                   \
  SIMGPU_EXPORT int function(void *stream, void (*work)(void *), void *user) {                  \
    PACK(void *stream; void (*work)(void *); void *user;) = {stream, work, user};               \
    change BODY(function, cbid, NULL, simgpu_enqueue_host(simgpu_stream_of(stream), work, user)) \
  }

HOST_FUNCTION(cudaLaunchHostFunc, 284, )
HOST_FUNCTION(cudaLaunchHostFunc_ptsz, 285, PTSZ)
