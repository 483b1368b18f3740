/* Initialization, devices and contexts. */
#include <string.h>

#include "driver.h"

int driver_begin(struct simgpu_call *call, uint32_t cbid, const char *function,
                 const void *parameters, const char *symbol, bool needs_context) {
  call->function = NULL;
  if (!simgpu_is_initialized()) return SIMGPU_INITIALIZATION_ERROR;
  if (needs_context && !simgpu_device_has_context(simgpu_device_current())) {
    return SIMGPU_INVALID_CONTEXT;
  }
  call->domain = SIMGPU_DRIVER;
  call->cbid = cbid;
  call->function = function;
  call->parameters = parameters;
  call->symbol = symbol;
  simgpu_call_begin(call);
  return SIMGPU_OK;
}

int driver_end(struct simgpu_call *call, int result) {
  if (call->function) simgpu_call_end(call, result);
  return result;
}

SIMGPU_EXPORT int cuInit(unsigned flags) {
  if (flags) return SIMGPU_INVALID_VALUE;
  const int result = simgpu_initialize();
  return result == SIMGPU_NO_DRIVER ? SIMGPU_NO_DEVICE : result;
}

SIMGPU_EXPORT int cuDriverGetVersion(int *version) {
  if (!version) return SIMGPU_INVALID_VALUE;
  *version = SIMGPU_DRIVER_VERSION;
  return SIMGPU_OK;
}

static int get_device(int *device, int ordinal) {
  if (!device) return SIMGPU_INVALID_VALUE;
  if (ordinal < 0 || ordinal >= simgpu_device_count()) return SIMGPU_INVALID_DEVICE;
  *device = ordinal;
  return SIMGPU_OK;
}

static int name_of(char *text, int size, int device) {
  struct simgpu_device_info info;
  const int result = simgpu_device_info(device, &info);
  if (result != SIMGPU_OK || !text || size <= 0) return result ? result : SIMGPU_INVALID_VALUE;
  strncpy(text, info.name, (size_t)size - 1);
  text[size - 1] = 0;
  return SIMGPU_OK;
}

static int bus_id_of(char *text, int size, int device) {
  struct simgpu_device_info info;
  const int result = simgpu_device_info(device, &info);
  if (result != SIMGPU_OK || !text || size <= 0) return result ? result : SIMGPU_INVALID_VALUE;
  strncpy(text, info.pci_bus_id, (size_t)size - 1);
  text[size - 1] = 0;
  return SIMGPU_OK;
}

static int uuid_of(void *uuid, int device) {
  struct simgpu_device_info info;
  const int result = simgpu_device_info(device, &info);
  if (result == SIMGPU_OK) memcpy(uuid, info.uuid, sizeof info.uuid);
  return result;
}

static int total_memory(size_t *bytes, int device) {
  struct simgpu_device_info info;
  const int result = simgpu_device_info(device, &info);
  if (result == SIMGPU_OK) *bytes = info.memory_total;
  return result;
}

/* The primary context is opened by a stream of it. */
static int retain(void **context, int device) {
  const int before = simgpu_device_current();
  const int result = simgpu_device_set_current(device);
  if (result != SIMGPU_OK) return result;
  simgpu_stream_of(NULL);
  simgpu_device_set_current(before);
  *context = CONTEXT_OF(device);
  return SIMGPU_OK;
}

static int primary_state(int device, unsigned *flags, int *active) {
  *flags = 0;
  *active = simgpu_device_has_context(device);
  return SIMGPU_OK;
}

/* What the thread has pushed, by device; the top is the current one. */
enum { DEEPEST = 64 };
static _Thread_local int stack[DEEPEST];
static _Thread_local int depth;

static int set_current(void *context) {
  return context ? simgpu_device_set_current((int)(uintptr_t)context - 1) : SIMGPU_OK;
}

static int push(void *context) {
  if (depth == DEEPEST) return SIMGPU_INVALID_VALUE;
  stack[depth++] = simgpu_device_current();
  return set_current(context);
}

static int pop(void **context) {
  if (depth == 0) return SIMGPU_INVALID_CONTEXT;
  if (context) *context = CONTEXT_OF(simgpu_device_current());
  return simgpu_device_set_current(stack[--depth]);
}

static int current(void **context) {
  const int device = simgpu_device_current();
  if (!context) return SIMGPU_INVALID_VALUE;
  *context = simgpu_device_has_context(device) ? CONTEXT_OF(device) : NULL;
  return SIMGPU_OK;
}

static int priority_range(int *least, int *greatest) {
  if (least) *least = 0;
  if (greatest) *greatest = -5;
  return SIMGPU_OK;
}

DEVICE_2(cuDeviceGet, 3, int *, device, int, ordinal, get_device(device, ordinal))
DEVICE_1(cuDeviceGetCount, 4, int *, count, (*count = simgpu_device_count(), SIMGPU_OK))
DEVICE_3(cuDeviceGetName, 5, char *, text, int, size, int, device, name_of(text, size, device))
DEVICE_3(cuDeviceGetAttribute, 9, int *, value, int, attribute, int, device,
         simgpu_device_attribute(value, attribute, device))
DEVICE_2(cuDeviceTotalMem_v2, 259, size_t *, bytes, int, device, total_memory(bytes, device))
DEVICE_3(cuDeviceGetPCIBusId, 332, char *, text, int, size, int, device,
         bus_id_of(text, size, device))
DEVICE_2(cuDeviceGetUuid, 482, void *, uuid, int, device, uuid_of(uuid, device))
DEVICE_2(cuDeviceGetUuid_v2, 647, void *, uuid, int, device, uuid_of(uuid, device))
DEVICE_3(cuDeviceCanAccessPeer, 312, int *, can, int, device, int, peer,
         (*can = device != peer, SIMGPU_OK))
DEVICE_2(cuDevicePrimaryCtxRetain, 386, void **, context, int, device, retain(context, device))
DEVICE_1(cuDevicePrimaryCtxRelease_v2, 544, int, device, ((void)device, SIMGPU_OK))
DEVICE_3(cuDevicePrimaryCtxGetState, 392, int, device, unsigned *, flags, int *, active,
         primary_state(device, flags, active))
DEVICE_1(cuCtxPushCurrent_v2, 323, void *, context, push(context))
DEVICE_1(cuCtxPopCurrent_v2, 324, void **, context, pop(context))
DEVICE_1(cuCtxSetCurrent, 303, void *, context, set_current(context))
DEVICE_1(cuCtxGetCurrent, 304, void **, context, current(context))
DRIVER_1(cuCtxGetDevice, 16, int *, device, (*device = simgpu_device_current(), SIMGPU_OK))
DRIVER_2(cuCtxGetStreamPriorityRange, 370, int *, least, int *, greatest,
         priority_range(least, greatest))
CALL_0(cuCtxSynchronize, 17, true, simgpu_device_synchronize(simgpu_device_current()))
