/* What the device does: memory, utilization, power, clocks, temperature. An H100 as a model. */
#include <stddef.h>
#include <time.h>

#include "../core/simgpu.h"
#include "answer.h"

enum {
  IDLE_WATTS = 70,
  BUSY_WATTS = 560, /* on top */
  LIMIT_WATTS = 700,
  IDLE_CELSIUS = 34,
  BUSY_CELSIUS = 32, /* on top */
  IDLE_MHZ = 345,
  BUSY_MHZ = 1980,
  MEMORY_MHZ = 2619,
};

static uint64_t memory_total(int device) {
  struct simgpu_device_info info;
  return simgpu_device_info(device, &info) == SIMGPU_OK ? info.memory_total : 0;
}

static uint64_t memory_used(int device) {
  struct totals totals;
  machine_totals(device, &totals);
  const uint64_t total = memory_total(device); /* each process has all of it for itself */
  return totals.memory_used < total ? totals.memory_used : total;
}

static double busy_share(int device) {
  struct rates rates;
  machine_rates(device, &rates);
  return rates.busy;
}

NVML_API nvml_result nvmlDeviceGetMemoryInfo(nvml_device handle, nvml_memory *memory) {
  int device;
  const nvml_result result = machine_check(handle, &device);
  if (result == NVML_SUCCESS) {
    const uint64_t total = memory_total(device), used = memory_used(device);
    *memory = (nvml_memory){.total = total, .free = total - used, .used = used};
  }
  return result;
}

NVML_API nvml_result nvmlDeviceGetMemoryInfo_v2(nvml_device handle, nvml_memory_v2 *memory) {
  nvml_memory simple;
  if (memory->version != NVML_MEMORY_V2) {
    return NVML_ARGUMENT_VERSION_MISMATCH;
  }
  const nvml_result result = nvmlDeviceGetMemoryInfo(handle, &simple);
  if (result == NVML_SUCCESS) {
    memory->total = simple.total;
    memory->free = simple.free;
    memory->used = simple.used;
    memory->reserved = 0;
  }
  return result;
}

NVML_API nvml_result nvmlDeviceGetUtilizationRates(nvml_device handle, nvml_utilization *rates) {
  int device;
  const nvml_result result = machine_check(handle, &device);
  if (result == NVML_SUCCESS) {
    const unsigned percent = (unsigned)(busy_share(device) * 100 + 0.5);
    *rates = (nvml_utilization){.gpu = percent, .memory = percent / 2};
  }
  return result;
}

/* ---- power ----------------------------------------------------------------------------------- */

static unsigned milliwatts(int device) {
  return (unsigned)((IDLE_WATTS + BUSY_WATTS * busy_share(device)) * 1000);
}

/* Since the machine's start; it never falls. */
static uint64_t millijoules(int device) {
  struct timespec up;
  struct totals totals;
  clock_gettime(CLOCK_BOOTTIME, &up);
  machine_totals(device, &totals);
  const double idle_mj = ((double)up.tv_sec * 1e3 + (double)up.tv_nsec / 1e6) * IDLE_WATTS;
  return (uint64_t)(idle_mj + (double)totals.busy_ns / 1e6 * BUSY_WATTS);
}

NVML_API nvml_result nvmlDeviceGetPowerUsage(nvml_device handle, unsigned *power_mw) {
  ANSWER(handle, power_mw, milliwatts(device));
}

NVML_API nvml_result nvmlDeviceGetTotalEnergyConsumption(nvml_device handle,
                                                         unsigned long long *energy_mj) {
  ANSWER(handle, energy_mj, millijoules(device));
}

NVML_API nvml_result nvmlDeviceGetEnforcedPowerLimit(nvml_device handle, unsigned *limit_mw) {
  ANSWER(handle, limit_mw, LIMIT_WATTS * 1000);
}

NVML_API nvml_result nvmlDeviceGetPowerManagementLimit(nvml_device handle, unsigned *limit_mw) {
  ANSWER(handle, limit_mw, LIMIT_WATTS * 1000);
}

NVML_API nvml_result nvmlDeviceGetPerformanceState(nvml_device handle, int *state) {
  ANSWER(handle, state, 0);
}

/* ---- temperature, clocks --------------------------------------------------------------------- */

static double celsius(int device) {
  return simgpu_fault("nvml_temperature", IDLE_CELSIUS + BUSY_CELSIUS * busy_share(device));
}

NVML_API nvml_result nvmlDeviceGetTemperature(nvml_device handle, int sensor,
                                              unsigned *temperature) {
  if (sensor != 0) {
    return NVML_INVALID_ARGUMENT;
  }
  ANSWER(handle, temperature, celsius(device));
}

NVML_API nvml_result nvmlDeviceGetTemperatureV(nvml_device handle, nvml_temperature *temperature) {
  if (temperature->version != NVML_TEMPERATURE_V1) {
    return NVML_ARGUMENT_VERSION_MISMATCH;
  }
  unsigned value = 0;
  const nvml_result result = nvmlDeviceGetTemperature(handle, temperature->sensor, &value);
  temperature->temperature = (int)value;
  return result;
}

/* Shutdown, slowdown, and the other limits of an H100, by NVML's numbers. */
NVML_API nvml_result nvmlDeviceGetTemperatureThreshold(nvml_device handle, int which,
                                                       unsigned *temperature) {
  static const unsigned limits[] = {92, 87, 95, 85};
  if (which < 0 || which >= 4) {
    return NVML_INVALID_ARGUMENT;
  }
  ANSWER(handle, temperature, limits[which]);
}

static unsigned clock_mhz(int device, int which) {
  if (which == NVML_CLOCK_MEMORY) {
    return MEMORY_MHZ;
  }
  return busy_share(device) > 0 ? BUSY_MHZ : IDLE_MHZ;
}

NVML_API nvml_result nvmlDeviceGetClockInfo(nvml_device handle, int which, unsigned *mhz) {
  if (which < NVML_CLOCK_GRAPHICS || which > NVML_CLOCK_VIDEO) {
    return NVML_INVALID_ARGUMENT;
  }
  ANSWER(handle, mhz, clock_mhz(device, which));
}

NVML_API nvml_result nvmlDeviceGetMaxClockInfo(nvml_device handle, int which, unsigned *mhz) {
  if (which < NVML_CLOCK_GRAPHICS || which > NVML_CLOCK_VIDEO) {
    return NVML_INVALID_ARGUMENT;
  }
  ANSWER(handle, mhz, which == NVML_CLOCK_MEMORY ? MEMORY_MHZ : BUSY_MHZ);
}

/* ---- slow for a reason ----------------------------------------------------------------------- */

static unsigned long long clock_reasons(int device) {
  const double reasons = simgpu_fault("nvml_throttle", -1);
  if (reasons >= 0) {
    return (unsigned long long)reasons;
  }
  return busy_share(device) > 0 ? 0 : NVML_IDLE;
}

NVML_API nvml_result nvmlDeviceGetCurrentClocksEventReasons(nvml_device handle,
                                                            unsigned long long *reasons) {
  ANSWER(handle, reasons, clock_reasons(device));
}

NVML_API nvml_result nvmlDeviceGetCurrentClocksThrottleReasons(nvml_device handle,
                                                               unsigned long long *reasons) {
  ANSWER(handle, reasons, clock_reasons(device));
}
