/*
 * Memory of the devices and pinned memory: ordinary memory of the process that is accounted, and
 * found again by any address in it.
 */
#include <search.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "internal.h"

enum {
  ALIGNMENT = 512,
  /* From here on mapped without commitment: 80 GiB may be asked for on any machine. */
  MAPPED_FROM = 1 << 20,
  PAGE = 4096,
};

struct block {
  struct simgpu_memory memory;
  size_t accounted;
  bool is_registered; /* the caller's own */
};

/* Guards the tree of blocks, which is ordered by address. Never taken inside core_lock. */
static pthread_mutex_t tree_lock = PTHREAD_MUTEX_INITIALIZER;
static void *tree;

/* Blocks do not overlap: an address within one counts as equal to it. */
static int compare(const void *left, const void *right) {
  const struct simgpu_memory *a = &((const struct block *)left)->memory;
  const struct simgpu_memory *b = &((const struct block *)right)->memory;
  if ((uintptr_t)a->base + a->size <= (uintptr_t)b->base) return -1;
  return (uintptr_t)b->base + b->size <= (uintptr_t)a->base;
}

static struct block *find(const void *pointer) {
  const struct block key = {.memory = {.base = (void *)pointer, .size = 1}};
  struct block **found = tfind(&key, &tree, compare);
  return found ? *found : NULL;
}

static bool add(struct block *block) {
  pthread_mutex_lock(&tree_lock);
  struct block **added = tsearch(block, &tree, compare);
  pthread_mutex_unlock(&tree_lock);
  return added && *added == block;
}

static size_t round_up(size_t bytes, size_t to) { return (bytes + to - 1) / to * to; }

static bool reserve(enum simgpu_memory_kind kind, int device, size_t bytes) {
  if (kind == SIMGPU_MEMORY_PINNED) return true;
  struct simgpu_device_info info;
  simgpu_device_info(device, &info);
  pthread_mutex_lock(&core_lock);
  uint64_t *used = &core_devices[device].memory_used;
  const bool fits = bytes <= info.memory_total && *used <= info.memory_total - bytes;
  if (fits) *used += bytes;
  if (fits && board_memory) board_memory(device, *used);
  pthread_mutex_unlock(&core_lock);
  return fits;
}

static void give_back(const struct block *block) {
  if (block->memory.kind == SIMGPU_MEMORY_PINNED) return;
  pthread_mutex_lock(&core_lock);
  uint64_t *used = &core_devices[block->memory.device].memory_used;
  *used -= block->accounted;
  if (board_memory) board_memory(block->memory.device, *used);
  pthread_mutex_unlock(&core_lock);
}

static void *obtain(size_t bytes) {
  if (bytes < MAPPED_FROM) {
    void *small = NULL;
    return posix_memalign(&small, ALIGNMENT, bytes) == 0 ? small : NULL;
  }
  void *mapped = mmap(NULL, round_up(bytes, PAGE), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return mapped == MAP_FAILED ? NULL : mapped;
}

static void release(struct block *block) {
  if (block->is_registered) {
  } else if (block->accounted < MAPPED_FROM) {
    free(block->memory.base);
  } else {
    munmap(block->memory.base, round_up(block->accounted, PAGE));
  }
  free(block);
}

static void tell(const struct block *block, bool is_free) {
  const struct simgpu_observer *observer = simgpu_observer();
  if (!observer) return;
  const struct simgpu_allocation allocation = {
      .is_free = is_free,
      .kind = block->memory.kind,
      .address = (uintptr_t)block->memory.base,
      .bytes = block->memory.size,
      .time_ns = simgpu_now_ns(),
      .correlation_id = call_correlation_id(),
      .device = (uint32_t)block->memory.device,
      .context = (uint32_t)block->memory.device + 1,
  };
  observer->allocation(&allocation);
}

SIMGPU_EXPORT int simgpu_memory_allocate(enum simgpu_memory_kind kind, size_t bytes,
                                         void **pointer) {
  if (!pointer) return SIMGPU_INVALID_VALUE;
  *pointer = NULL;
  if (bytes == 0) return SIMGPU_OK;
  const int device = simgpu_device_current();
  const size_t accounted = round_up(bytes, ALIGNMENT);
  if (accounted < bytes || !reserve(kind, device, accounted)) return SIMGPU_OUT_OF_MEMORY;
  struct block *block = malloc(sizeof *block);
  *block = (struct block){{kind, device, obtain(accounted), bytes}, accounted, false};
  if (!block->memory.base) {
    give_back(block);
    free(block);
    return SIMGPU_OUT_OF_MEMORY;
  }
  add(block);
  tell(block, false);
  *pointer = block->memory.base;
  return SIMGPU_OK;
}

static int remove_block(void *pointer, bool registered) {
  pthread_mutex_lock(&tree_lock);
  struct block *block = find(pointer);
  const bool ours =
      block && block->memory.base == pointer && block->is_registered == registered;
  if (ours) tdelete(block, &tree, compare);
  pthread_mutex_unlock(&tree_lock);
  if (!ours) return SIMGPU_INVALID_VALUE;
  tell(block, true);
  give_back(block);
  release(block);
  return SIMGPU_OK;
}

SIMGPU_EXPORT int simgpu_memory_free(void *pointer) {
  return pointer ? remove_block(pointer, false) : SIMGPU_OK;
}

SIMGPU_EXPORT int simgpu_memory_register(void *pointer, size_t bytes) {
  if (!pointer || !bytes) return SIMGPU_INVALID_VALUE;
  struct block *block = malloc(sizeof *block);
  *block = (struct block){
      {SIMGPU_MEMORY_PINNED, simgpu_device_current(), pointer, bytes}, bytes, true};
  if (add(block)) return SIMGPU_OK;
  free(block);
  return 712; /* cudaErrorHostMemoryAlreadyRegistered */
}

SIMGPU_EXPORT int simgpu_memory_unregister(void *pointer) {
  return remove_block(pointer, true) == SIMGPU_OK ? SIMGPU_OK : 713;
}

SIMGPU_EXPORT struct simgpu_memory simgpu_memory_of(const void *pointer) {
  struct simgpu_memory memory = {SIMGPU_MEMORY_PAGEABLE, -1, NULL, 0};
  pthread_mutex_lock(&tree_lock);
  const struct block *block = find(pointer);
  if (block) memory = block->memory;
  pthread_mutex_unlock(&tree_lock);
  return memory;
}
