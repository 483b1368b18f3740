// torch's RecordFunction callbacks: one for user scopes, one for everything else.
#ifndef GPUTAP_RECORD_FUNCTION_H
#define GPUTAP_RECORD_FUNCTION_H

#include <stdint.h>

#include "live.h"

namespace gputap {

// Finds torch. Null on success, else why not. Idempotent; nothing is registered yet.
const char *record_function_install();

// Takes both callbacks out. Ends of operators that are open now still arrive.
void record_function_remove();

// Idempotent and cheap when nothing changes. torch's threads follow at their next operator.
void record_function_enable_user(bool on);
void record_function_enable_operators(bool on);

// Whether operators hand over their inputs, from the next time that they are enabled.
void record_function_want_inputs(bool on);

bool record_function_user_enabled();
bool record_function_operators_enabled();

// In a forked child, by its only thread, while that holds torch's lock: the child has no callbacks.
void record_function_forget_after_fork();

}  // namespace gputap

#endif
