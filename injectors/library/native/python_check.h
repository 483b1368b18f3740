// A trial of gputap's table of CPython's structures, before any thread of the job is read by it.
#ifndef GPUTAP_PYTHON_CHECK_H
#define GPUTAP_PYTHON_CHECK_H

#include "wire.h"

namespace gputap {

enum CheckResult : uint32_t {
  kCheckOpen,     /* not run yet */
  kCheckPassed,
  kCheckFailed,
  kCheckRefused,  /* memory cannot be read safely here: nothing is known */
};

void python_check_set(const gputap_python_layout &layout);

// On the Python thread, with the GIL: calls known functions and looks for them in our own frames.
void python_check_run();

CheckResult python_check_result();

}  // namespace gputap

#endif
