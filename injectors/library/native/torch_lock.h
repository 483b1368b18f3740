// The lock of torch's list of global callbacks, held across forks.
//
// torch itself does not do that: a child forked while another thread reads the list inherits the lock
// locked, and hangs at its first operator. Without callbacks the moment is too short to matter; with
// ours in the list, and switched on and off, it is not. The lock has no symbol, so it is found by what
// lies before it: the list with our own entry in it, and before that a version that counts changes.
#ifndef GPUTAP_TORCH_LOCK_H
#define GPUTAP_TORCH_LOCK_H

#include <stdint.h>

#include "torch_api.h"

namespace gputap {

// Looks for the lock, once, by an entry of ours. Takes some milliseconds of the control thread.
void torch_lock_find(ContextPointer (*start)(const void *), uint64_t handle);

bool torch_lock_is_known();

// False if the lock is not known, or was not to be had in good time.
bool torch_lock_take();

// In a child, by the thread that took the lock: takes the entries that start so out of the list. Does
// nothing where that thread does not have it.
void torch_lock_drop_entries(ContextPointer (*first)(const void *),
                             ContextPointer (*second)(const void *));

// In parent and child: by the thread that took it, if it did.
void torch_lock_give();

}  // namespace gputap

#endif
