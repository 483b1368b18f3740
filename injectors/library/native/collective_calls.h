// Collectives that libraries other than torch ask NCCL for: torch tells of its own.
#ifndef GPUTAP_COLLECTIVE_CALLS_H
#define GPUTAP_COLLECTIVE_CALLS_H

namespace gputap {

// Control thread: hooks are there while a window is open and NCCL is loaded, in libraries loaded
// meanwhile too.
void collective_calls_look_after(bool wanted);

void collective_calls_forget_after_fork();

}  // namespace gputap

#endif
