// Calls between libraries go through slots of the calling library's global offset table. A slot that
// holds our function instead sends those calls through us: one store, no code is changed.
#ifndef GPUTAP_GOT_H
#define GPUTAP_GOT_H

#include <stdint.h>

namespace gputap {

struct GotSlot {
  void **at;      /* null: not found */
  void *original; /* what it held: the function, or the stub that finds it at the first call */
};

// The slot through which the loaded library with this handle calls `symbol`.
GotSlot got_find(void *library, const char *symbol);

struct GotHook {
  const char *symbol;
  void *function; /* to be called in its place */
};

struct GotPatch {
  GotSlot slot;
  const GotHook *hook;
  bool of_torch; /* the calling library is one of torch's own */
  bool is_stub;  /* it was never called yet: the slot leads to the calling library itself */
};

// Hooks in every library that calls one of them, those loaded later too. One thread uses it at a time.
struct GotHooks {
  static constexpr uint32_t kMost = 128;
  const GotHook *hooks;
  uint32_t hook_count;
  bool (*may)(const GotPatch &); /* null: every slot */
  GotPatch patches[kMost];
  uint32_t count;
  uint64_t generation; /* of the list of libraries */
  uint32_t second_looks; /* still to be taken at it: some library was not linked yet */
};

// Puts the hooks where they are not yet, but for the library that `itself` lies in: its calls to
// itself are its own affair. Where no library came or went since the last time, nothing is searched.
void got_keep(GotHooks *all, const void *itself);

// Puts back what was there, in slots that are still there.
void got_give_up(GotHooks *all, const void *itself);

// Knows of no hook that is in. They stay where they are.
void got_forget(GotHooks *all);

// Whether a library came or went since the last time that this was asked with the same word.
bool got_libraries_changed(uint64_t *generation);

void got_forget_after_fork();

// Puts `function` into the slot. False if that cannot be written.
bool got_put(GotSlot *slot, void *function);

// Puts back what was there, unless somebody else has changed the slot meanwhile.
void got_take_back(const GotSlot &slot, void *function);

}  // namespace gputap

#endif
