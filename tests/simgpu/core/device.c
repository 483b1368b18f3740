/* The virtual devices of the process. */
#include <string.h>

#include "identity.h"
#include "internal.h"

enum { GIB = 1 << 30 };

pthread_mutex_t core_lock = PTHREAD_MUTEX_INITIALIZER;
pthread_cond_t core_changed = PTHREAD_COND_INITIALIZER;
struct device core_devices[MOST_DEVICES];

static _Thread_local int current;

static pthread_once_t read_once = PTHREAD_ONCE_INIT;
static int device_count;
static uint64_t memory_total;

static void read_environment(void) {
  const uint64_t count = environment_number("SIMGPU_DEVICES", 1);
  device_count = count < MOST_DEVICES ? (int)count : MOST_DEVICES;
  memory_total = environment_number("SIMGPU_MEMORY", 80ull * GIB);
}

SIMGPU_EXPORT int simgpu_device_count(void) {
  pthread_once(&read_once, read_environment);
  return device_count;
}

SIMGPU_EXPORT int simgpu_device_current(void) { return current; }

SIMGPU_EXPORT int simgpu_device_set_current(int device) {
  if (device < 0 || device >= simgpu_device_count()) return SIMGPU_INVALID_DEVICE;
  current = device;
  return SIMGPU_OK;
}

SIMGPU_EXPORT int simgpu_device_info(int device, struct simgpu_device_info *info) {
  if (device < 0 || device >= simgpu_device_count()) return SIMGPU_INVALID_DEVICE;
  memset(info, 0, sizeof *info);
  info->name = SIMGPU_DEVICE_NAME;
  simgpu_identity_pci(device, info->pci_bus_id, sizeof info->pci_bus_id);
  simgpu_identity_uuid(device, info->uuid);
  info->context_id = (uint32_t)device + 1;
  info->major = SIMGPU_COMPUTE_MAJOR;
  info->minor = SIMGPU_COMPUTE_MINOR;
  info->multiprocessors = SIMGPU_MULTIPROCESSORS;
  info->memory_total = memory_total;
  pthread_mutex_lock(&core_lock);
  info->memory_used = core_devices[device].memory_used;
  pthread_mutex_unlock(&core_lock);
  return SIMGPU_OK;
}

SIMGPU_EXPORT bool simgpu_device_has_context(int device) {
  return device >= 0 && device < MOST_DEVICES && core_devices[device].has_context;
}

/* The primary context comes with the first work, as in the real runtime. */
void device_open_context(int index) {
  struct device *device = &core_devices[index];
  if (device->has_context) return;
  device->has_context = true;
  device->next_stream_id = FIRST_STREAM_ID;
  device->legacy = stream_new(index, 0, 0, LEGACY_STREAM_ID);
  device->legacy->is_legacy = true;
  const struct simgpu_observer *observer = simgpu_observer();
  if (!observer) return;
  pthread_mutex_unlock(&core_lock);
  observer->context((uint32_t)index, (uint32_t)index + 1);
  observer->stream((uint32_t)index + 1, LEGACY_STREAM_ID, 0);
  pthread_mutex_lock(&core_lock);
}

void device_account(struct device *device, const struct simgpu_operation *operation) {
  if (operation->end_ns > device->tail_ns) device->tail_ns = operation->end_ns;
  if (board_operation) board_operation(operation);
}
