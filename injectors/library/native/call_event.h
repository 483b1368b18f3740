// A call of a library, CUDA's or NCCL's, as a record in the calling thread's ring.
#ifndef GPUTAP_CALL_EVENT_H
#define GPUTAP_CALL_EVENT_H

#include <stddef.h>
#include <stdint.h>

namespace gputap {

struct CallEvent {
  uint8_t kind; /* enum gputap_event_kind */
  const char *name;
  uint64_t start_ticks, end_ticks;
  uint64_t seq;
  const char *arguments; /* null: none */
  size_t arguments_length;
};

// When a call begins: 0 where no window is open, and it is nobody's.
uint64_t call_event_begin();

// Writes it unless its window has closed. The thread is not marked as ours during the call itself,
// which may take long: a window that closes must not wait for it.
void call_event_write(const CallEvent &call);

}  // namespace gputap

#endif
