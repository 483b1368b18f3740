/* How long an operation takes where nobody says it: a fixed function of name and sizes. */
#include "internal.h"

enum {
  COPY_OVERHEAD_NS = 1500,
  SHORTEST_KERNEL_NS = 2000,
  KERNEL_SPREAD_NS = 30000,
};

static _Thread_local uint64_t next_duration_ns;

SIMGPU_EXPORT void simgpu_next_duration_ns(uint64_t duration_ns) { next_duration_ns = duration_ns; }

static _Thread_local const struct simgpu_open_kernel *next_open;
static _Thread_local void *next_open_user;

SIMGPU_EXPORT void simgpu_next_open(const struct simgpu_open_kernel *how, void *user) {
  next_open = how;
  next_open_user = user;
}

const struct simgpu_open_kernel *model_take_open(void **user) {
  const struct simgpu_open_kernel *how = next_open;
  *user = next_open_user;
  next_open = NULL;
  return how;
}

static uint64_t hash_name(const char *name) {
  uint32_t hash = 2166136261u; /* FNV-1a */
  for (; name && *name; name++) hash = (hash ^ (uint8_t)*name) * 16777619u;
  return hash;
}

/* Bytes per microsecond = MB/s: PCIe 5 x16 from pinned memory and from pageable, NVLink, HBM. */
static uint64_t bandwidth(const struct simgpu_operation *operation) {
  const bool pageable = operation->source_kind == SIMGPU_MEMORY_PAGEABLE ||
                        operation->destination_kind == SIMGPU_MEMORY_PAGEABLE;
  if (operation->kind == SIMGPU_MEMSET) return 3000000;
  switch (operation->copy_kind) {
  case SIMGPU_COPY_HTOD:
  case SIMGPU_COPY_DTOH:
    return pageable ? 12000 : 50000;
  case SIMGPU_COPY_PTOP:
    return 200000;
  case SIMGPU_COPY_HTOH:
    return 10000;
  default:
    return 1300000; /* read and written */
  }
}

static uint64_t by_model(const struct simgpu_operation *operation) {
  switch (operation->kind) {
  case SIMGPU_KERNEL:
    return SHORTEST_KERNEL_NS + hash_name(operation->name) % KERNEL_SPREAD_NS;
  case SIMGPU_MEMCPY:
  case SIMGPU_MEMSET:
    return COPY_OVERHEAD_NS + operation->bytes * 1000 / bandwidth(operation);
  default:
    return 0;
  }
}

uint64_t model_duration_ns(const struct simgpu_operation *operation) {
  if (operation->duration_ns || operation->kind > SIMGPU_MEMSET) return operation->duration_ns;
  const uint64_t told = next_duration_ns;
  next_duration_ns = 0;
  return told ? told : by_model(operation);
}
