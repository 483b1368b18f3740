/* What may be asked about kernels. */
#include <string.h>

#include "api.h"

enum {
  INVALID_FUNCTION = 98,
  THREADS_PER_PROCESSOR = 2048,
  BLOCKS_PER_PROCESSOR = 32,
  MOST_THREADS = 1024,
};

static const struct simgpu_kernel *find(const void *function) {
  const struct simgpu_kernel *kernel = simgpu_kernel_of_host(function);
  return kernel || !simgpu_kernel_is_one(function) ? kernel : function;
}

static int attributes(struct abi_function_attributes *attributes, const void *function) {
  const struct simgpu_kernel *kernel = find(function);
  if (!kernel) return INVALID_FUNCTION;
  memset(attributes, 0, sizeof *attributes);
  attributes->shared_bytes = kernel->static_shared;
  attributes->most_threads_per_block = MOST_THREADS;
  attributes->registers = (int)kernel->registers;
  attributes->ptx_version = attributes->binary_version = 90;
  attributes->most_dynamic_shared = 49152;
  return SIMGPU_OK;
}

static int occupancy(int *blocks, int threads) {
  if (!blocks || threads <= 0 || threads > MOST_THREADS) return SIMGPU_INVALID_VALUE;
  const int fitting = THREADS_PER_PROCESSOR / threads;
  *blocks = fitting < BLOCKS_PER_PROCESSOR ? fitting : BLOCKS_PER_PROCESSOR;
  return SIMGPU_OK;
}

static int name_of(const char **name, const void *function) {
  const struct simgpu_kernel *kernel = find(function);
  if (!kernel) return INVALID_FUNCTION;
  *name = kernel->name;
  return SIMGPU_OK;
}

API_2(cudaFuncGetAttributes, 15, struct abi_function_attributes *, found, const void *, function,
      attributes(found, function))
API_3(cudaFuncSetAttribute, 273, const void *, function, int, attribute, int, value,
      ((void)attribute, (void)value, find(function) ? SIMGPU_OK : INVALID_FUNCTION))
API_2(cudaFuncSetCacheConfig, 14, const void *, function, int, config,
      ((void)config, find(function) ? SIMGPU_OK : INVALID_FUNCTION))
API_2(cudaFuncGetName, 451, const char **, name, const void *, function, name_of(name, function))
API_4(cudaOccupancyMaxActiveBlocksPerMultiprocessor, 210, int *, blocks, const void *, function,
      int, threads, size_t, shared, ((void)function, (void)shared, occupancy(blocks, threads)))
API_5(cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags, 251, int *, blocks, const void *,
      function, int, threads, size_t, shared, unsigned, flags,
      ((void)function, (void)shared, (void)flags, occupancy(blocks, threads)))

/* Libraries of the runtime: any image will do, as for modules of the driver (cuda/module.c). */
static int load(const void **library, const void *image) {
  if (!library || !image) return SIMGPU_INVALID_VALUE;
  *library = image;
  return SIMGPU_OK;
}

static int kernel_of(struct simgpu_kernel **kernel, const void *library, const char *name) {
  if (!kernel || !library || !name) return SIMGPU_INVALID_VALUE;
  *kernel = simgpu_kernel_named(name);
  return SIMGPU_OK;
}

API_3(cudaLibraryGetKernel, 473, struct simgpu_kernel **, kernel, const void *, library,
      const char *, name, kernel_of(kernel, library, name))
API_1(cudaLibraryUnload, 472, const void *, library,
      (library ? SIMGPU_OK : SIMGPU_INVALID_HANDLE))

SIMGPU_EXPORT int cudaLibraryLoadData(const void **library, const void *image, int *jit_options,
                                      void **jit_values, unsigned jit_count, int *options,
                                      void **values, unsigned count) {
  PACK(const void **library; const void *image; int *jit_options; void **jit_values;
       unsigned jit_count; int *options; void **values; unsigned count;) = {
      library, image, jit_options, jit_values, jit_count, options, values, count};
  BODY(cudaLibraryLoadData, 470, NULL, load(library, image))
}
