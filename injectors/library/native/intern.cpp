#include "intern.h"

namespace gputap {

namespace {

constexpr uint32_t kProbes = 16;

uint32_t name_class(const char *text, size_t length) {
  if (text_starts(text, length, "Optimizer.step#")) return kOptimizerStep;
  if (text_starts(text, length, "enumerate(DataLoader)#")) return kLoaderNext;
  if (text_starts(text, length, "gloo:") || text_starts(text, length, "nccl:")) return kCollective;
  return kPlainName;
}

}  // namespace

uint32_t index_find(const Index &index, uint64_t key, Slot **vacant, uint32_t *extra) {
  *vacant = nullptr;
  if (!index.slots) return 0;
  for (uint32_t i = 0; i < kProbes; i++) {
    Slot *slot = &index.slots[(key + i) & index.mask];
    uint64_t held = load_acquire(&slot->key);
    if (held == 0) {
      if (change(&slot->key, (uint64_t)0, key)) {
        *vacant = slot;
        return 0;
      }
      held = load_acquire(&slot->key);
    }
    if (held != key) continue;
    uint32_t id = load_acquire(&slot->id);
    if (id && extra) *extra = slot->extra;
    return id;
  }
  return 0;
}

Index index_make(uint32_t entries) {
  uint64_t slots = 1024;
  while (slots < 2ull * entries) slots *= 2;
  Index index = {(Slot *)sys::map_private(slots * sizeof(Slot)), slots - 1};
  return index;
}

void index_free(Index *index) {
  if (index->slots) sys::unmap(index->slots, (index->mask + 1) * sizeof(Slot));
  *index = {nullptr, 0};
}

uint32_t next_id(uint32_t *count, uint32_t capacity) {
  // Looked at first, so that a full table's counter does not run away.
  if (load(count) >= capacity) return 0;
  uint32_t id = add(count, 1u);
  return id < capacity ? id : 0;
}

bool arena_put(Live *live, const void *bytes, uint32_t length, uint32_t *offset) {
  gputap_control_header *header = live->header;
  uint32_t room = (length + 7) & ~7u;
  if (load(&header->arena_used) > header->arena_capacity - room) return false;
  uint32_t at = add(&header->arena_used, room);
  if (at > header->arena_capacity - room) return false;
  __builtin_memcpy(live->arena + at, bytes, length);
  *offset = at;
  return true;
}

StringRef intern_string(Live *live, const char *text, size_t length, uint64_t hash,
                        uint32_t longest) {
  if (length > longest) length = longest;
  Slot *slot;
  uint32_t known_class = 0;
  uint32_t id = index_find(live->string_index, hash, &slot, &known_class);
  if (id) return {id, known_class};
  uint32_t offset;
  if (arena_put(live, text, (uint32_t)length, &offset))
    id = next_id(&live->header->strings_count, live->header->strings_capacity);
  known_class = name_class(text, length);
  if (!id) {
    count_drop(live, GPUTAP_DROP_CAUSE_STRINGS_FULL);
    return {0, known_class};
  }
  gputap_string_entry *entry = &live->strings[id];
  entry->offset = offset;
  entry->length = (uint32_t)length;
  store_release(&entry->ready, 1);
  index_set(slot, id, known_class);
  return {id, known_class};
}

}  // namespace gputap
