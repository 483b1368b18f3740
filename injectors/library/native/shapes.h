// Input shapes and dtypes of an operator, as JSON: [[[8,64],"float"],...].
#ifndef GPUTAP_SHAPES_H
#define GPUTAP_SHAPES_H

#include "live.h"
#include "threads.h"

namespace gputap {

// Id of the JSON text; 0 if there are no inputs or they cannot be read. Allocates inside torch: only
// for what was asked for.
uint32_t shapes_of(Live *live, ThreadState *thread, const void *record_function);

}  // namespace gputap

#endif
