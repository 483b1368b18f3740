/* PCIe and NVLink, and the numbered fields. */
#include <stddef.h>

#include "answer.h"

enum { LINKS = 18, LINK_VERSION = 4, PCIE_GENERATION = 5, PCIE_WIDTH = 16 };

enum field {
  FIELD_ENERGY = 83,
  FIELD_PCIE_REPLAYS = 94,
  FIELD_NVLINK_SENT = 138,
  FIELD_NVLINK_RECEIVED = 139,
  FIELD_PCIE_SENT = 197,
  FIELD_PCIE_RECEIVED = 198,
};

NVML_API nvml_result nvmlDeviceGetTotalEnergyConsumption(nvml_device handle,
                                                         unsigned long long *energy_mj);

/* KB/s as the device sees it: it transmits to the host. */
static unsigned throughput(int device, int counter) {
  struct rates rates;
  machine_rates(device, &rates);
  const double bytes_per_s =
      counter == NVML_PCIE_TRANSMIT ? rates.dtoh_bytes_per_s : rates.htod_bytes_per_s;
  return (unsigned)(bytes_per_s / 1000);
}

NVML_API nvml_result nvmlDeviceGetPcieThroughput(nvml_device handle, int counter,
                                                 unsigned *kb_per_s) {
  if (counter != NVML_PCIE_TRANSMIT && counter != NVML_PCIE_RECEIVE) {
    return NVML_INVALID_ARGUMENT;
  }
  ANSWER(handle, kb_per_s, throughput(device, counter));
}

NVML_API nvml_result nvmlDeviceGetCurrPcieLinkGeneration(nvml_device handle, unsigned *generation) {
  ANSWER(handle, generation, PCIE_GENERATION);
}

NVML_API nvml_result nvmlDeviceGetCurrPcieLinkWidth(nvml_device handle, unsigned *width) {
  ANSWER(handle, width, PCIE_WIDTH);
}

NVML_API nvml_result nvmlDeviceGetPcieReplayCounter(nvml_device handle, unsigned *replays) {
  ANSWER(handle, replays, 0);
}

NVML_API nvml_result nvmlDeviceGetNvLinkState(nvml_device handle, unsigned link, int *is_active) {
  if (link >= LINKS) {
    return NVML_INVALID_ARGUMENT;
  }
  ANSWER(handle, is_active, 1);
}

NVML_API nvml_result nvmlDeviceGetNvLinkVersion(nvml_device handle, unsigned link,
                                                unsigned *version) {
  if (link >= LINKS) {
    return NVML_INVALID_ARGUMENT;
  }
  ANSWER(handle, version, LINK_VERSION);
}

static nvml_result field_value(nvml_device handle, int device, nvml_field *field) {
  struct totals totals;
  machine_totals(device, &totals);
  field->time_us = (long long)(totals.time_ns / 1000);
  field->latency_us = 0;
  field->type = NVML_VALUE_WIDE;
  switch (field->field) {
  case FIELD_ENERGY:
    return nvmlDeviceGetTotalEnergyConsumption(handle, &field->value.wide);
  case FIELD_PCIE_REPLAYS:
    field->type = NVML_VALUE_UNSIGNED;
    field->value.whole = 0;
    return NVML_SUCCESS;
  case FIELD_NVLINK_SENT:
  case FIELD_NVLINK_RECEIVED: /* KiB */
    field->value.wide = totals.ptop_bytes >> 10;
    return NVML_SUCCESS;
  case FIELD_PCIE_SENT:
    field->value.wide = totals.dtoh_bytes;
    return NVML_SUCCESS;
  case FIELD_PCIE_RECEIVED:
    field->value.wide = totals.htod_bytes;
    return NVML_SUCCESS;
  default:
    return NVML_NOT_SUPPORTED;
  }
}

NVML_API nvml_result nvmlDeviceGetFieldValues(nvml_device handle, int count, nvml_field *fields) {
  int device;
  const nvml_result result = machine_check(handle, &device);
  for (int i = 0; i < count && result == NVML_SUCCESS; i++) {
    fields[i].result = field_value(handle, device, &fields[i]);
  }
  return result;
}
