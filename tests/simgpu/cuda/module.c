/*
 * Modules, libraries and functions. Any image will do: a module has every kernel that it is asked
 * for, by the name it is asked for.
 */
#include <stdlib.h>

#include "driver.h"

struct module {
  const void *image;
};

static int load(struct module **module, const void *image) {
  if (!module || !image) return SIMGPU_INVALID_VALUE;
  *module = malloc(sizeof **module);
  (*module)->image = image;
  return SIMGPU_OK;
}

static int unload(struct module *module) {
  if (!module) return SIMGPU_INVALID_HANDLE;
  free(module);
  return SIMGPU_OK;
}

static int find(function_handle *kernel, const struct module *module, const char *name) {
  if (!kernel || !name) return SIMGPU_INVALID_VALUE;
  if (!module) return SIMGPU_INVALID_HANDLE;
  *kernel = simgpu_kernel_named(name);
  return SIMGPU_OK;
}

static int name_of(const char **name, function_handle kernel) {
  if (!name || !simgpu_kernel_is_one(kernel)) return SIMGPU_INVALID_HANDLE;
  *name = kernel->name;
  return SIMGPU_OK;
}

/* CUfunction_attribute */
enum { FUNCTION_THREADS = 0, FUNCTION_SHARED = 1, FUNCTION_REGISTERS = 4 };

static int attribute_of(int *value, int attribute, function_handle kernel) {
  if (!value || !simgpu_kernel_is_one(kernel)) return SIMGPU_INVALID_HANDLE;
  *value = attribute == FUNCTION_THREADS     ? 1024
           : attribute == FUNCTION_SHARED    ? (int)kernel->static_shared
           : attribute == FUNCTION_REGISTERS ? (int)kernel->registers
                                             : 0;
  return SIMGPU_OK;
}

static int function_of(function_handle *function, function_handle kernel) {
  if (!function || !simgpu_kernel_is_one(kernel)) return SIMGPU_INVALID_HANDLE;
  *function = kernel;
  return SIMGPU_OK;
}

static int occupancy(int *blocks, int threads) {
  if (!blocks || threads <= 0 || threads > 1024) return SIMGPU_INVALID_VALUE;
  *blocks = 2048 / threads < 32 ? 2048 / threads : 32;
  return SIMGPU_OK;
}

DRIVER_2(cuModuleLoadData, 19, struct module **, module, const void *, image, load(module, image))
DRIVER_5(cuModuleLoadDataEx, 20, struct module **, module, const void *, image, unsigned, count,
         int *, options, void **, values,
         ((void)count, (void)options, (void)values, load(module, image)))
DRIVER_1(cuModuleUnload, 22, struct module *, module, unload(module))
DRIVER_3(cuModuleGetFunction, 23, function_handle *, kernel, struct module *, module,
         const char *, name, find(kernel, module, name))
DEVICE_1(cuLibraryUnload, 680, struct module *, library, unload(library))
DEVICE_3(cuLibraryGetKernel, 681, function_handle *, kernel, struct module *, library,
         const char *, name, find(kernel, library, name))
DEVICE_2(cuKernelGetFunction, 683, function_handle *, function, function_handle, kernel,
         function_of(function, kernel))
DEVICE_2(cuKernelGetName, 719, const char **, name, function_handle, kernel, name_of(name, kernel))
DEVICE_2(cuFuncGetName, 718, const char **, name, function_handle, kernel, name_of(name, kernel))
DRIVER_3(cuFuncGetAttribute, 85, int *, value, int, attribute, function_handle, kernel,
         attribute_of(value, attribute, kernel))
DRIVER_3(cuFuncSetAttribute, 481, function_handle, kernel, int, attribute, int, value,
         ((void)attribute, (void)value,
          simgpu_kernel_is_one(kernel) ? SIMGPU_OK : SIMGPU_INVALID_HANDLE))
DRIVER_4(cuOccupancyMaxActiveBlocksPerMultiprocessor, 374, int *, blocks, function_handle, kernel,
         int, threads, size_t, shared, ((void)kernel, (void)shared, occupancy(blocks, threads)))

SIMGPU_EXPORT int cuLibraryLoadData(struct module **library, const void *image, int *jit_options,
                                    void **jit_values, unsigned jit_count, int *options,
                                    void **values, unsigned count) {
  PACK(struct module **library; const void *image; int *jit_options; void **jit_values;
       unsigned jit_count; int *options; void **values; unsigned count;) = {
      library, image, jit_options, jit_values, jit_count, options, values, count};
  BODY(cuLibraryLoadData, 678, NULL, false, load(library, image))
}
