// The control thread: commands, clock samples, the life of gputap, housekeeping.
#ifndef GPUTAP_CONTROL_H
#define GPUTAP_CONTROL_H

namespace gputap {

// Starts the thread on the open session. False if there can be none.
bool control_start();

// Asks the thread to end the session as if gputap had gone, and waits for that.
bool control_end_session(long timeout_ns);

}  // namespace gputap

#endif
