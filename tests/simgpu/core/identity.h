/* What a virtual device is called, for all libraries, those of other processes included. */
#ifndef SIMGPU_IDENTITY_H
#define SIMGPU_IDENTITY_H
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define SIMGPU_DEVICE_NAME "SimGPU H100 (simulated)"

enum {
  SIMGPU_PCI_DOMAIN = 0,
  SIMGPU_FIRST_PCI_BUS = 0x18,
  SIMGPU_COMPUTE_MAJOR = 9,
  SIMGPU_COMPUTE_MINOR = 0,
  SIMGPU_MULTIPROCESSORS = 132,
};

static inline void simgpu_identity_uuid(int device, uint8_t uuid[16]) {
  static const uint8_t first[16] = {'S', 'i', 'm', 'G', 'P', 'U', 0x40, 0x00, 0x80};
  memcpy(uuid, first, sizeof first);
  uuid[15] = (uint8_t)device;
}

static inline int simgpu_identity_pci_bus(int device) { return SIMGPU_FIRST_PCI_BUS + device; }

static inline void simgpu_identity_pci(int device, char *text, size_t size) {
  snprintf(text, size, "%04X:%02X:00.0", SIMGPU_PCI_DOMAIN, simgpu_identity_pci_bus(device));
}

#endif
