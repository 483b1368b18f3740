// Strings, code objects and stacks get ids in the shared memory; equal ones mostly get one id.
#ifndef GPUTAP_INTERN_H
#define GPUTAP_INTERN_H

#include "text.h"
#include "threads.h"

namespace gputap {

// What the agent itself must know about a name.
enum NameClass : uint32_t {
  kPlainName,
  kOptimizerStep, /* Optimizer.step#...: its end is a step boundary */
  kLoaderNext,    /* enumerate(DataLoader)#...: its start is one where no optimizer runs */
  kCollective,    /* gloo:..., nccl:...: sizes are wanted always */
};

struct StringRef {
  uint32_t id; /* 0: the tables are full */
  uint32_t name_class;
};

// Finds `key`. Where it is new, `*vacant` is the slot that the caller must give its id to; null if
// the table is crowded or somebody else is writing it just now (then a duplicate is made).
uint32_t index_find(const Index &index, uint64_t key, Slot **vacant, uint32_t *extra);

inline void index_set(Slot *slot, uint32_t id, uint32_t extra) {
  if (!slot) return;
  slot->extra = extra;
  store_release(&slot->id, id);
}

// An index for `entries` ids; no slots if there is no memory.
Index index_make(uint32_t entries);
void index_free(Index *index);

// Copies bytes into the arena. False if it is full.
bool arena_put(Live *live, const void *bytes, uint32_t length, uint32_t *offset);

// Takes the next id below `capacity`, or 0.
uint32_t next_id(uint32_t *count, uint32_t capacity);

// The id of a string by its content, whose hash is given. Longer ones are cut.
constexpr uint32_t kLongestString = 4096;
StringRef intern_string(Live *live, const char *text, size_t length, uint64_t hash,
                        uint32_t longest = kLongestString);

inline StringRef intern_cached(Live *live, ThreadState *thread, const char *text, size_t length) {
  uint64_t hash = hash_text(text, length);
  CachedId *cached = &thread->caches.texts[hash & (kTextCache - 1)];
  if (GPUTAP_LIKELY(cached->key == hash)) return {cached->id, cached->extra};
  StringRef ref = intern_string(live, text, length, hash);
  if (ref.id) *cached = {hash, ref.id, ref.name_class};
  return ref;
}

}  // namespace gputap

#endif
