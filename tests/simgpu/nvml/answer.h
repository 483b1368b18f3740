/* Most questions of NVML have one number for an answer. */
#ifndef SIMGPU_NVML_ANSWER_H
#define SIMGPU_NVML_ANSWER_H
#include "machine.h"

/* Checks, then stores what `value` says with the device's index in `device`. */
#define ANSWER(handle, to, value)                                                                  \
  do {                                                                                             \
    int device;                                                                                    \
    const nvml_result result = machine_check((handle), &device);                                   \
    if (result != NVML_SUCCESS) {                                                                  \
      return result;                                                                               \
    }                                                                                              \
    if (!(to)) {                                                                                   \
      return NVML_INVALID_ARGUMENT;                                                                \
    }                                                                                              \
    (void)device;                                                                                  \
    *(to) = (__typeof__(*(to)))(value);                                                            \
    return NVML_SUCCESS;                                                                           \
  } while (0)

#endif
