/* Errors of memory, modes, and what this device does not have. */
#include "../core/simgpu.h"
#include "answer.h"

/* Uncorrected errors since the last reboot (counter 0) are what a fault plants. */
static unsigned long long errors(int type, int counter) {
  return type == 1 && counter == 0 ? (unsigned long long)simgpu_fault("nvml_ecc", 0) : 0;
}

NVML_API nvml_result nvmlDeviceGetTotalEccErrors(nvml_device handle, int type, int counter,
                                                 unsigned long long *count) {
  ANSWER(handle, count, errors(type, counter));
}

NVML_API nvml_result nvmlDeviceGetMemoryErrorCounter(nvml_device handle, int type, int counter,
                                                     int location, unsigned long long *count) {
  const int is_dram = location == 2;
  ANSWER(handle, count, is_dram ? errors(type, counter) : 0);
}

NVML_API nvml_result nvmlDeviceGetEccMode(nvml_device handle, int *current, int *pending) {
  int device;
  const nvml_result result = machine_check(handle, &device);
  if (result == NVML_SUCCESS) {
    *current = *pending = 1;
  }
  return result;
}

NVML_API nvml_result nvmlDeviceGetRemappedRows(nvml_device handle, unsigned *corrected,
                                               unsigned *uncorrected, unsigned *pending,
                                               unsigned *failed) {
  int device;
  const nvml_result result = machine_check(handle, &device);
  if (result == NVML_SUCCESS) {
    *corrected = *pending = *failed = 0;
    *uncorrected = (unsigned)errors(1, 0);
  }
  return result;
}

NVML_API nvml_result nvmlDeviceGetMigMode(nvml_device handle, unsigned *current,
                                          unsigned *pending) {
  int device;
  const nvml_result result = machine_check(handle, &device);
  if (result == NVML_SUCCESS) {
    *current = *pending = 0;
  }
  return result;
}

NVML_API nvml_result nvmlDeviceGetPersistenceMode(nvml_device handle, int *mode) {
  ANSWER(handle, mode, 1);
}

NVML_API nvml_result nvmlDeviceGetComputeMode(nvml_device handle, int *mode) {
  ANSWER(handle, mode, 0);
}

/* A board without fans. */
NVML_API nvml_result nvmlDeviceGetFanSpeed(nvml_device handle, unsigned *percent) {
  int device;
  (void)percent;
  const nvml_result result = machine_check(handle, &device);
  return result == NVML_SUCCESS ? NVML_NOT_SUPPORTED : result;
}
