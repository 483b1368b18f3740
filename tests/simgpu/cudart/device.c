/* Devices, versions and errors. CUDART_VERSION is that of the soname. */
#include <stdlib.h>
#include <string.h>

#include "api.h"

enum { SHARED_PER_BLOCK = 49152, SHARED_OPT_IN = 232448, REGISTERS = 65536, L2_BYTES = 52428800 };

/* cudaDeviceProp, which lost fields in 13.0: bytes, and offsets of what is filled in. */
#if CUDART_VERSION >= 13000
enum { PROP_SIZE = 1008, PROCESSORS = 384, CONCURRENT = 560, PCI_BUS = 568, ENGINES = 584,
       UNIFIED = 588, BUS_WIDTH = 592, L2 = 596, THREADS = 604, SHARED = 624, REGS = 632,
       MANAGED = 636, COOPERATIVE = 668, OPT_IN = 672 };
#else
enum { PROP_SIZE = 1032, PROCESSORS = 388, CONCURRENT = 576, PCI_BUS = 584, ENGINES = 600,
       UNIFIED = 604, BUS_WIDTH = 612, L2 = 616, THREADS = 624, SHARED = 640, REGS = 648,
       MANAGED = 652, COOPERATIVE = 688, OPT_IN = 696 };
#endif
enum { UUID = 256, MEMORY = 288, BLOCK_SHARED = 296, BLOCK_REGS = 304, WARP = 308,
       BLOCK_THREADS = 320, BLOCK_SIZE = 324, GRID_SIZE = 336, CONSTANT = 352, MAJOR = 360,
       MINOR = 364 };

static void put(char *at, int value) { memcpy(at, &value, sizeof value); }
static void put_size(char *at, size_t value) { memcpy(at, &value, sizeof value); }

static int properties(char *prop, int device) {
  static const int block[3] = {1024, 1024, 64}, grid[3] = {INT32_MAX, 65535, 65535};
  struct simgpu_device_info info;
  const int result = prop ? simgpu_device_info(device, &info) : SIMGPU_INVALID_VALUE;
  if (result != SIMGPU_OK) return result;
  memset(prop, 0, PROP_SIZE);
  strcpy(prop, info.name);
  memcpy(prop + UUID, info.uuid, sizeof info.uuid);
  put_size(prop + MEMORY, info.memory_total);
  put_size(prop + BLOCK_SHARED, SHARED_PER_BLOCK);
  put(prop + BLOCK_REGS, REGISTERS);
  put(prop + WARP, 32);
  put(prop + BLOCK_THREADS, 1024);
  memcpy(prop + BLOCK_SIZE, block, sizeof block);
  memcpy(prop + GRID_SIZE, grid, sizeof grid);
  put_size(prop + CONSTANT, 65536);
  put(prop + MAJOR, info.major);
  put(prop + MINOR, info.minor);
  put(prop + PROCESSORS, info.multiprocessors);
  put(prop + CONCURRENT, 1);
  put(prop + PCI_BUS, (int)strtol(info.pci_bus_id + 5, NULL, 16));
  put(prop + ENGINES, 3);
  put(prop + UNIFIED, 1);
  put(prop + BUS_WIDTH, 5120);
  put(prop + L2, L2_BYTES);
  put(prop + THREADS, 2048);
  put_size(prop + SHARED, 233472);
  put(prop + REGS, REGISTERS);
  put(prop + MANAGED, 1);
  put(prop + COOPERATIVE, 1);
  put_size(prop + OPT_IN, SHARED_OPT_IN);
  return SIMGPU_OK;
}

static int pci_bus_id(char *text, int size, int device) {
  struct simgpu_device_info info;
  const int result = simgpu_device_info(device, &info);
  if (result != SIMGPU_OK) return result;
  if (!text || size <= (int)strlen(info.pci_bus_id)) return SIMGPU_INVALID_VALUE;
  strcpy(text, info.pci_bus_id);
  return SIMGPU_OK;
}

static int count_devices(int *count) {
  if (!count) return SIMGPU_INVALID_VALUE;
  *count = simgpu_device_count();
  return SIMGPU_OK;
}

static int set(int *target, int value) {
  if (!target) return SIMGPU_INVALID_VALUE;
  *target = value;
  return SIMGPU_OK;
}

API_1(cudaGetDeviceCount, 3, int *, count, count_devices(count))
#if CUDART_VERSION >= 13000
API_2(cudaGetDeviceProperties, 440, void *, prop, int, device, properties(prop, device))
#else
API_2(cudaGetDeviceProperties_v2, 440, void *, prop, int, device, properties(prop, device))
#endif
API_1(cudaSetDevice, 16, int, device, simgpu_device_set_current(device))
API_1(cudaGetDevice, 17, int *, device, set(device, simgpu_device_current()))
API_3(cudaDeviceGetAttribute, 200, int *, value, int, attribute, int, device,
      simgpu_device_attribute(value, attribute, device))
API_3(cudaDeviceCanAccessPeer, 154, int *, can, int, device, int, peer,
      set(can, device != peer))
API_2(cudaDeviceEnablePeerAccess, 155, int, peer, unsigned, flags,
      ((void)flags, peer < simgpu_device_count() ? SIMGPU_OK : SIMGPU_INVALID_DEVICE))
API_3(cudaDeviceGetPCIBusId, 174, char *, text, int, size, int, device,
      pci_bus_id(text, size, device))
API_0(cudaDeviceSynchronize, 165, simgpu_device_synchronize(simgpu_device_current()))
API_0(cudaProfilerStart, 171, SIMGPU_OK)
API_0(cudaProfilerStop, 172, SIMGPU_OK)

/* These work without a device and in a forked child. */
SIMGPU_EXPORT int cudaRuntimeGetVersion(int *version) { return set(version, CUDART_VERSION); }

SIMGPU_EXPORT int cudaDriverGetVersion(int *version) {
  return set(version, simgpu_initialize() == SIMGPU_NO_DRIVER ? 0 : SIMGPU_DRIVER_VERSION);
}

/* An API call as any other, but its result is no error of its own. */
static int last_error(uint32_t cbid, const char *function, bool clear) {
  struct runtime_call call;
  if (runtime_begin(&call, cbid, function, NULL, NULL) == SIMGPU_OK) {
    runtime_end(&call, SIMGPU_OK);
  }
  return runtime_last_error(clear);
}

SIMGPU_EXPORT int cudaGetLastError(void) { return last_error(10, "cudaGetLastError", true); }

SIMGPU_EXPORT int cudaPeekAtLastError(void) {
  return last_error(11, "cudaPeekAtLastError", false);
}

SIMGPU_EXPORT const char *cudaGetErrorName(int error) { return simgpu_error_text(error)->name; }

SIMGPU_EXPORT const char *cudaGetErrorString(int error) { return simgpu_error_text(error)->text; }
