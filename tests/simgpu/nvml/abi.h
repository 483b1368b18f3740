/* What a program compiled for NVML 13 expects of libnvidia-ml.so.1: numbers, structures. */
#ifndef SIMGPU_NVML_ABI_H
#define SIMGPU_NVML_ABI_H
#include <stdint.h>

#define NVML_API __attribute__((visibility("default")))

typedef enum {
  NVML_SUCCESS = 0,
  NVML_UNINITIALIZED = 1,
  NVML_INVALID_ARGUMENT = 2,
  NVML_NOT_SUPPORTED = 3,
  NVML_NO_PERMISSION = 4,
  NVML_NOT_FOUND = 6,
  NVML_INSUFFICIENT_SIZE = 7,
  NVML_DRIVER_NOT_LOADED = 9,
  NVML_GPU_IS_LOST = 15,
  NVML_ARGUMENT_VERSION_MISMATCH = 25,
  NVML_UNKNOWN = 999,
} nvml_result;

typedef struct nvml_device *nvml_device;

typedef struct {
  unsigned long long total, free, used;
} nvml_memory;

typedef struct {
  unsigned version;
  unsigned long long total, reserved, free, used;
} nvml_memory_v2;

typedef struct {
  unsigned gpu, memory; /* percent */
} nvml_utilization;

typedef struct {
  char bus_id_legacy[16];
  unsigned domain, bus, device, device_id, subsystem_id;
  char bus_id[32];
} nvml_pci_info;
_Static_assert(sizeof(nvml_pci_info) == 68, "nvmlPciInfo_t");

typedef struct {
  unsigned pid;
  unsigned long long used_memory;
  unsigned gpu_instance, compute_instance;
} nvml_process;

typedef struct {
  unsigned version;
  int sensor, temperature;
} nvml_temperature;

typedef struct {
  unsigned field, scope;
  long long time_us, latency_us;
  int type, result;
  union {
    double real;
    unsigned whole;
    unsigned long long wide;
  } value;
} nvml_field;
_Static_assert(sizeof(nvml_field) == 40, "nvmlFieldValue_t");

enum { NVML_VALUE_UNSIGNED = 1, NVML_VALUE_WIDE = 3 };
enum { NVML_MEMORY_V2 = 0x02000028, NVML_TEMPERATURE_V1 = 0x0100000c };
enum { NVML_NO_INSTANCE = -1 };
enum { NVML_CLOCK_GRAPHICS, NVML_CLOCK_SM, NVML_CLOCK_MEMORY, NVML_CLOCK_VIDEO };
enum { NVML_PCIE_TRANSMIT, NVML_PCIE_RECEIVE };
enum { NVML_IDLE = 1 }; /* a reason for slow clocks */

#endif
