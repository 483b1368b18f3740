// torch's RecordFunction callbacks: one for user scopes, one for everything else.
#ifndef GPUTAP_RECORD_FUNCTION_H
#define GPUTAP_RECORD_FUNCTION_H

#include <stdint.h>

#include "live.h"

namespace gputap {

// Finds torch and registers both callbacks, disabled. Null on success, else why not. Idempotent.
const char *record_function_install();

// Removes them. Ends of operators that are open now still arrive.
void record_function_remove();

bool record_function_installed();

// Idempotent and cheap when nothing changes. torch's threads follow at their next operator.
void record_function_enable_user(bool on);
void record_function_enable_operators(bool on);

// Whether operators hand over their inputs; registers the callback anew if that changes.
void record_function_want_inputs(bool on);

bool record_function_user_enabled();
bool record_function_operators_enabled();

}  // namespace gputap

#endif
