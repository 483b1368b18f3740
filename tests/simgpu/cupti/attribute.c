/* Attributes: kept and given back; none changes what the simulated device does. */
#include <string.h>

#include "tracer.h"

enum { ATTRIBUTES = 11, ATTRIBUTE_SIZE = 8 };

static const uint8_t SIZES[ATTRIBUTES] = {8, 8, 8, 8, 8, 1, 8, 8, 1, 1, 8};
static uint64_t values[ATTRIBUTES] = {3200000, 8388608, 250, 25000, 500, 0, 3, 3, 0, 1, 6400000};

static int check(uint32_t attribute, const size_t *size, const void *value) {
  const int refused = tracer_enter();
  if (refused) return refused;
  if (!size || !value || attribute >= ATTRIBUTES) return CUPTI_ABI_RESULT_INVALID_PARAMETER;
  return *size < SIZES[attribute] ? RESULT_PARAMETER_SIZE_NOT_SUFFICIENT
                                  : CUPTI_ABI_RESULT_SUCCESS;
}

SIMGPU_EXPORT int cuptiActivitySetAttribute(uint32_t attribute, size_t *size, void *value) {
  const int result = check(attribute, size, value);
  if (result == CUPTI_ABI_RESULT_SUCCESS) memcpy(&values[attribute], value, SIZES[attribute]);
  return result;
}

SIMGPU_EXPORT int cuptiActivityGetAttribute(uint32_t attribute, size_t *size, void *value) {
  const int result = check(attribute, size, value);
  if (result == CUPTI_ABI_RESULT_SUCCESS) {
    memcpy(value, &values[attribute], SIZES[attribute]);
    *size = SIZES[attribute];
  }
  return result;
}
