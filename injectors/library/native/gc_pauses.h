// Pauses of Python's garbage collector, told by its own list of callbacks.
#ifndef GPUTAP_GC_PAUSES_H
#define GPUTAP_GC_PAUSES_H

namespace gputap {

void gc_pauses_want(bool on);

// Nothing to do: the callback is there, or not, as wanted.
bool gc_pauses_are_in_sync();

// On the Python thread, with the GIL.
void gc_pauses_sync();

}  // namespace gputap

#endif
