// Collectives that libraries other than torch ask NCCL for: torch tells of its own.
#ifndef GPUTAP_NCCL_CALLS_H
#define GPUTAP_NCCL_CALLS_H

namespace gputap {

// Control thread: hooks are there while a window is open and NCCL is loaded, in libraries loaded
// meanwhile too.
void nccl_calls_look_after(bool wanted);

void nccl_calls_forget_after_fork();

}  // namespace gputap

#endif
