/* Begin and end, versions, errors, and which devices there are. */
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "../core/identity.h"
#include "../core/simgpu.h"
#include "machine.h"

struct nvml_device {
  int index;
};

static struct nvml_device devices[BOARD_DEVICES];
static int device_count, users;
static pthread_mutex_t users_lock = PTHREAD_MUTEX_INITIALIZER;

NVML_API nvml_result nvmlInitWithFlags(unsigned flags) {
  (void)flags;
  if (simgpu_fault("no_driver", 0) != 0) {
    return NVML_DRIVER_NOT_LOADED;
  }
  pthread_mutex_lock(&users_lock);
  if (users++ == 0) {
    device_count = simgpu_device_count();
    for (int i = 0; i < device_count; i++) {
      devices[i].index = i;
    }
    machine_start(device_count);
  }
  pthread_mutex_unlock(&users_lock);
  return NVML_SUCCESS;
}

NVML_API nvml_result nvmlInit_v2(void) { return nvmlInitWithFlags(0); }

NVML_API nvml_result nvmlShutdown(void) {
  pthread_mutex_lock(&users_lock);
  const nvml_result result = users > 0 ? NVML_SUCCESS : NVML_UNINITIALIZED;
  users -= users > 0;
  pthread_mutex_unlock(&users_lock);
  return result;
}

nvml_result machine_check(nvml_device handle, int *device) {
  if (users == 0) {
    return NVML_UNINITIALIZED;
  }
  if (handle < devices || handle >= devices + device_count) {
    return NVML_INVALID_ARGUMENT;
  }
  *device = handle->index;
  return *device == (int)simgpu_fault("nvml_lost", -1) ? NVML_GPU_IS_LOST : NVML_SUCCESS;
}

NVML_API const char *nvmlErrorString(nvml_result result) {
  switch (result) {
  case NVML_SUCCESS:
    return "The operation was successful";
  case NVML_UNINITIALIZED:
    return "NVML was not first initialized with nvmlInit()";
  case NVML_INVALID_ARGUMENT:
    return "A supplied argument is invalid";
  case NVML_NOT_SUPPORTED:
    return "The requested operation is not available on target device";
  case NVML_NO_PERMISSION:
    return "The current user does not have permission for operation";
  case NVML_NOT_FOUND:
    return "A query to find an object was unsuccessful";
  case NVML_INSUFFICIENT_SIZE:
    return "An input argument is not large enough";
  case NVML_DRIVER_NOT_LOADED:
    return "NVIDIA driver is not loaded";
  case NVML_GPU_IS_LOST:
    return "GPU is lost";
  case NVML_ARGUMENT_VERSION_MISMATCH:
    return "The provided version is invalid/unsupported";
  default:
    return "Unknown Error";
  }
}

static nvml_result copy_text(const char *text, char *to, unsigned size) {
  if (users == 0) {
    return NVML_UNINITIALIZED;
  }
  if (!to || strlen(text) >= size) {
    return to ? NVML_INSUFFICIENT_SIZE : NVML_INVALID_ARGUMENT;
  }
  strcpy(to, text);
  return NVML_SUCCESS;
}

NVML_API nvml_result nvmlSystemGetDriverVersion(char *version, unsigned size) {
  return copy_text("580.95.05", version, size);
}

NVML_API nvml_result nvmlSystemGetNVMLVersion(char *version, unsigned size) {
  return copy_text("13.580.95.05", version, size);
}

/* Also before nvmlInit. */
NVML_API nvml_result nvmlSystemGetCudaDriverVersion(int *version) {
  if (!version) {
    return NVML_INVALID_ARGUMENT;
  }
  *version = 13000;
  return NVML_SUCCESS;
}

NVML_API nvml_result nvmlSystemGetCudaDriverVersion_v2(int *version) {
  return nvmlSystemGetCudaDriverVersion(version);
}

/* ---- handles --------------------------------------------------------------------------------- */

NVML_API nvml_result nvmlDeviceGetCount_v2(unsigned *count) {
  if (users == 0 || !count) {
    return users ? NVML_INVALID_ARGUMENT : NVML_UNINITIALIZED;
  }
  *count = (unsigned)device_count;
  return NVML_SUCCESS;
}

NVML_API nvml_result nvmlDeviceGetHandleByIndex_v2(unsigned index, nvml_device *device) {
  if (users == 0) {
    return NVML_UNINITIALIZED;
  }
  if (!device || index >= (unsigned)device_count) {
    return NVML_INVALID_ARGUMENT;
  }
  *device = &devices[index];
  return machine_check(*device, &(int){0});
}

static void write_uuid(int device, char *text, size_t size) {
  uint8_t id[16];
  simgpu_identity_uuid(device, id);
  int at = snprintf(text, size, "GPU-");
  for (int i = 0; i < 16; i++) {
    const char *dash = i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "";
    at += snprintf(text + at, size - (size_t)at, "%s%02x", dash, id[i]);
  }
}

static void write_bus_id(int device, char *text, size_t size) {
  snprintf(text, size, "%08X:%02X:00.0", SIMGPU_PCI_DOMAIN, simgpu_identity_pci_bus(device));
}

typedef void (*writer)(int device, char *text, size_t size);

static nvml_result find(writer write, const char *wanted, nvml_device *device) {
  if (users == 0 || !wanted || !device) {
    return users ? NVML_INVALID_ARGUMENT : NVML_UNINITIALIZED;
  }
  for (int i = 0; i < device_count; i++) {
    char text[64];
    write(i, text, sizeof text);
    if (strcasecmp(text, wanted) == 0) {
      *device = &devices[i];
      return machine_check(*device, &(int){0});
    }
  }
  return NVML_NOT_FOUND;
}

NVML_API nvml_result nvmlDeviceGetHandleByUUID(const char *uuid, nvml_device *device) {
  return find(write_uuid, uuid, device);
}

/* The domain has four digits with CUDA, eight here. */
NVML_API nvml_result nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, nvml_device *device) {
  char padded[32];
  if (bus_id && strcspn(bus_id, ":") == 4) {
    snprintf(padded, sizeof padded, "0000%s", bus_id);
    bus_id = padded;
  }
  return find(write_bus_id, bus_id, device);
}

NVML_API nvml_result nvmlDeviceGetName(nvml_device handle, char *name, unsigned size) {
  int device;
  const nvml_result result = machine_check(handle, &device);
  return result == NVML_SUCCESS ? copy_text(SIMGPU_DEVICE_NAME, name, size) : result;
}

NVML_API nvml_result nvmlDeviceGetUUID(nvml_device handle, char *uuid, unsigned size) {
  int device;
  char text[64];
  const nvml_result result = machine_check(handle, &device);
  if (result != NVML_SUCCESS) {
    return result;
  }
  write_uuid(device, text, sizeof text);
  return copy_text(text, uuid, size);
}

NVML_API nvml_result nvmlDeviceGetIndex(nvml_device handle, unsigned *index) {
  int device;
  const nvml_result result = machine_check(handle, &device);
  if (result == NVML_SUCCESS && !index) {
    return NVML_INVALID_ARGUMENT;
  }
  if (result == NVML_SUCCESS) {
    *index = (unsigned)device;
  }
  return result;
}

NVML_API nvml_result nvmlDeviceGetMinorNumber(nvml_device handle, unsigned *minor) {
  return nvmlDeviceGetIndex(handle, minor);
}

NVML_API nvml_result nvmlDeviceGetPciInfo_v3(nvml_device handle, nvml_pci_info *info) {
  int device;
  const nvml_result result = machine_check(handle, &device);
  if (result != NVML_SUCCESS || !info) {
    return result != NVML_SUCCESS ? result : NVML_INVALID_ARGUMENT;
  }
  *info = (nvml_pci_info){
      .domain = SIMGPU_PCI_DOMAIN,
      .bus = (unsigned)simgpu_identity_pci_bus(device),
      .device_id = 0x233010de, /* of an H100 SXM */
      .subsystem_id = 0x16c110de,
  };
  simgpu_identity_pci(device, info->bus_id_legacy, sizeof info->bus_id_legacy);
  write_bus_id(device, info->bus_id, sizeof info->bus_id);
  return NVML_SUCCESS;
}

NVML_API nvml_result nvmlDeviceGetCudaComputeCapability(nvml_device handle, int *major,
                                                        int *minor) {
  int device;
  const nvml_result result = machine_check(handle, &device);
  if (result == NVML_SUCCESS) {
    *major = SIMGPU_COMPUTE_MAJOR;
    *minor = SIMGPU_COMPUTE_MINOR;
  }
  return result;
}
