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
};

// The slots through which any loaded library calls one of `hooks`, but for the library that `itself`
// lies in: its calls to itself are its own affair. Returns how many were found, at
// most `capacity`. `*generation` changes when a library is loaded; where it is as before, nothing is
// searched and -1 returned.
int32_t got_find_everywhere(const GotHook *hooks, uint32_t count, const void *itself,
                            GotPatch *found, uint32_t capacity, uint64_t *generation);

// Puts `function` into the slot. False if that cannot be written.
bool got_put(GotSlot *slot, void *function);

// Puts back what was there, unless somebody else has changed the slot meanwhile.
void got_take_back(const GotSlot &slot, void *function);

}  // namespace gputap

#endif
