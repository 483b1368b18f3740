#include "device_records.h"

#include "device_api.h"
#include "device_ring.h"
#include "host.h"
#include "intern.h"

namespace gputap {

namespace {

constexpr uint32_t kMostInChunk = 2048, kNames = 256;
constexpr uint32_t kLongestName = 16384; /* kernels of template libraries */

// Ids of the names that this buffer has met, by address. An address means the same name only as long
// as the buffer is with us: when its module is unloaded, another's name may be put there.
struct Names {
  const char *at[kNames];
  uint32_t id[kNames];
};

struct Batch {
  uint8_t *first;
  uint32_t count;
  uint32_t offsets[kMostInChunk];
};

template <typename T>
T &field(uint8_t *record, uint32_t offset) {
  return *(T *)(record + offset);
}

uint32_t name_id(Live *live, Names *names, const char *name) {
  if (!name) return 0;
  uint32_t place = (uint32_t)((uintptr_t)name >> 3 ^ (uintptr_t)name >> 11) & (kNames - 1);
  if (names->at[place] == name) return names->id[place];
  size_t length = text_length(name, kLongestName);
  uint32_t id = intern_string(live, name, length, hash_text(name, length), kLongestName).id;
  names->at[place] = name;
  names->id[place] = id;
  return id;
}

// CUPTI leaves this one to be freed by its reader.
void free_overhead_data(uint64_t *pointer) {
  static void (*host_free)(void *);
  if (!*pointer) return;
  if (!host_free) host_free = (void (*)(void *))host_symbol("free");
  if (host_free) host_free((void *)*pointer);
  *pointer = 0;
}

uint64_t work_records;

void check_times(Live *live, uint64_t start, uint64_t end) {
  add(&work_records, (uint64_t)1);
  if (GPUTAP_UNLIKELY(!start || !end)) add(&live->header->device_zero_times, (uint64_t)1);
}

// Bytes up to the end of a field of 8.
constexpr uint32_t through(uint32_t offset) { return offset + 8; }

// What points into the process is of no use outside of it: strings become ids.
void rewrite(Live *live, Names *names, uint8_t *record, uint32_t size) {
  uint32_t kind = field<uint32_t>(record, 0), name = 0;
  switch (kind) {
    case CUPTI_ABI_KIND_KERNEL:
    case CUPTI_ABI_KIND_CONCURRENT_KERNEL:
      name = CUPTI_ABI_KERNEL_NAME;
      if (size >= through(CUPTI_ABI_KERNEL_END))
        check_times(live, field<uint64_t>(record, CUPTI_ABI_KERNEL_START),
                    field<uint64_t>(record, CUPTI_ABI_KERNEL_END));
      break;
    case CUPTI_ABI_KIND_MEMCPY:
    case CUPTI_ABI_KIND_MEMCPY2:
    case CUPTI_ABI_KIND_MEMSET: /* all three have them at the same place */
      if (size >= through(CUPTI_ABI_MEMCPY_END))
        check_times(live, field<uint64_t>(record, CUPTI_ABI_MEMCPY_START),
                    field<uint64_t>(record, CUPTI_ABI_MEMCPY_END));
      break;
    case CUPTI_ABI_KIND_DEVICE:
      name = CUPTI_ABI_DEVICE_NAME;
      break;
    case CUPTI_ABI_KIND_MEMORY2:
      name = CUPTI_ABI_MEMORY_NAME;
      break;
    case CUPTI_ABI_KIND_OVERHEAD:
      if (g_cupti.version >= 1204 && size >= through(CUPTI_ABI_OVERHEAD_OVERHEAD_DATA))
        free_overhead_data(&field<uint64_t>(record, CUPTI_ABI_OVERHEAD_OVERHEAD_DATA));
      break;
  }
  if (!name || size < through(name)) return;
  uint64_t &pointer = field<uint64_t>(record, name);
  pointer = name_id(live, names, (const char *)pointer);
}

void write_out(Live *live, Names *names, Batch *batch, const uint8_t *end) {
  if (!batch->count) return;
  uint32_t bytes = (uint32_t)(end - batch->first);
  for (uint32_t i = 0; i < batch->count; i++) {
    uint32_t next = i + 1 < batch->count ? batch->offsets[i + 1] : bytes;
    rewrite(live, names, batch->first + batch->offsets[i], next - batch->offsets[i]);
  }
  add(&live->header->device_records, (uint64_t)batch->count);
  gputap_device_chunk *chunk = device_ring_claim(live, bytes, batch->count);
  if (chunk) {
    chunk->version = g_cupti.version;
    __builtin_memcpy(chunk_data(chunk), batch->first, bytes);
    __builtin_memcpy(chunk_offsets(chunk), batch->offsets, batch->count * sizeof(uint32_t));
    device_ring_publish(chunk);
  }
  batch->count = 0;
}

}  // namespace

uint64_t device_work_records() { return load(&work_records); }

void device_records_copy(Live *live, uint8_t *buffer, size_t valid) {
  Names names;
  Batch batch;
  __builtin_memset(names.at, 0, sizeof names.at);
  batch.count = 0;
  uint8_t *record = nullptr;
  int result;
  add(&live->header->device_buffers, (uint64_t)1);
  // The size of a record is known only to the library that wrote it.
  while ((result = g_cupti.next_record(buffer, valid, (void **)&record)) == 0) {
    if (record < buffer || record + sizeof(uint64_t) > buffer + valid) break;
    if (batch.count == kMostInChunk) write_out(live, &names, &batch, record);
    if (!batch.count) batch.first = record;
    batch.offsets[batch.count++] = (uint32_t)(record - batch.first);
  }
  if (valid && result != CUPTI_ABI_RESULT_MAX_LIMIT_REACHED) {
    count_drop(live, GPUTAP_DROP_CAUSE_DEVICE_NONSENSE);
    // The last one that was found may be cut.
    if (batch.count) write_out(live, &names, &batch, batch.first + batch.offsets[--batch.count]);
    return;
  }
  write_out(live, &names, &batch, buffer + valid);
}

}  // namespace gputap
