// Python in the target, on a thread of the agent's own. Nothing else ever waits for the GIL.
#ifndef GPUTAP_PYTHON_RUN_H
#define GPUTAP_PYTHON_RUN_H

#include <stdint.h>

#include "live.h"
#include "python_source.h"

namespace gputap {

enum PythonJob : uint32_t {
  kRunSource = 1,   /* execute the source handed over by python_set_source */
  kSyncGc = 2,      /* make the garbage collector's callback be there or not, as wanted */
  kCheckLayout = 4, /* python_check.h */
  kSample = 8,      /* python_samples.h */
};

// Hands a job to the thread, which is started if need be. False: no thread can be had.
bool python_submit(PythonJob job);

// The same from a thread of the target's: one CAS and one wake. False: not this time.
bool python_poke(PythonJob job);

// Neither waiting nor running.
bool python_is_done(PythonJob job);

// Waits for it. False on time-out; the job stays.
bool python_wait(PythonJob job, int64_t timeout_ns);

// Copies the source. False if the last one is still being run, or there is no memory.
bool python_set_source(const char *source, uint32_t length);

// Of the last run; valid until the next source is set.
const PythonText &python_answer();

// Lets the thread end when it has nothing to do. It may stay for long in somebody else's lock.
void python_quit();

void python_forget_after_fork();

// Raised with every finished job; the control thread sleeps on another word and is told of this one.
void python_wake_on_done(uint32_t *word);

}  // namespace gputap

#endif
