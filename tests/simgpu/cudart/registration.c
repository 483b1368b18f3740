/* What compiled programs tell the runtime before main: their kernels and variables. */
#include <stdlib.h>
#include <string.h>

#include "api.h"

enum { INVALID_SYMBOL = 13, INVALID_FUNCTION = 98 };

struct variable {
  const void *host;
  void *device;
  size_t bytes;
  struct variable *next;
};

static struct variable *variables;

SIMGPU_EXPORT void **__cudaRegisterFatBinary(void *image) {
  void **handle = malloc(sizeof *handle);
  *handle = image;
  return handle;
}

SIMGPU_EXPORT void __cudaRegisterFatBinaryEnd(void **handle) { (void)handle; }
SIMGPU_EXPORT void __cudaUnregisterFatBinary(void **handle) { free(handle); }

SIMGPU_EXPORT char __cudaInitModule(void **handle) {
  (void)handle;
  return 1;
}

SIMGPU_EXPORT void __cudaRegisterFunction(void **handle, const char *host, char *device,
                                          const char *name, int threads, void *tid, void *bid,
                                          void *block, void *grid, int *warp) {
  (void)handle, (void)device, (void)threads, (void)tid, (void)bid;
  (void)block, (void)grid, (void)warp;
  simgpu_kernel_register(host, name);
}

SIMGPU_EXPORT void __cudaRegisterVar(void **handle, char *host, char *device, const char *name,
                                     int external, size_t bytes, int constant, int global) {
  (void)handle, (void)device, (void)name, (void)external, (void)constant, (void)global;
  struct variable *variable = calloc(1, sizeof *variable);
  variable->host = host;
  variable->bytes = bytes;
  variable->next = variables;
  variables = variable;
}

static struct variable *find(const void *symbol) {
  struct variable *variable = variables;
  while (variable && variable->host != symbol) variable = variable->next;
  return variable;
}

int symbol_address(void **pointer, const void *symbol) {
  struct variable *variable = find(symbol);
  if (!variable) return INVALID_SYMBOL;
  if (!variable->device) {
    const int result =
        simgpu_memory_allocate(SIMGPU_MEMORY_DEVICE, variable->bytes, &variable->device);
    if (result != SIMGPU_OK) return result;
    memset(variable->device, 0, variable->bytes);
  }
  *pointer = variable->device;
  return SIMGPU_OK;
}

static int symbol_size(size_t *bytes, const void *symbol) {
  const struct variable *variable = find(symbol);
  if (!variable) return INVALID_SYMBOL;
  *bytes = variable->bytes;
  return SIMGPU_OK;
}

static int kernel_of(struct simgpu_kernel **kernel, const void *function) {
  *kernel = simgpu_kernel_of_host(function);
  return *kernel ? SIMGPU_OK : INVALID_FUNCTION;
}

API_2(cudaGetSymbolAddress, 53, void **, pointer, const void *, symbol,
      symbol_address(pointer, symbol))
API_2(cudaGetSymbolSize, 54, size_t *, bytes, const void *, symbol, symbol_size(bytes, symbol))
API_2(cudaGetFuncBySymbol, 336, struct simgpu_kernel **, kernel, const void *, function,
      kernel_of(kernel, function))
API_2(cudaGetKernel, 439, struct simgpu_kernel **, kernel, const void *, function,
      kernel_of(kernel, function))

/* Compiled programs call it once for each kernel, and the real one shows no API record for it. */
SIMGPU_EXPORT int __cudaGetKernel(struct simgpu_kernel **kernel, const void *function) {
  return kernel_of(kernel, function);
}
