/* Which CUPTI this is: by soname, or as SIMGPU_CUPTI_VERSION=13.4 says. */
#include <stdatomic.h>
#include <stdlib.h>

#include "tracer.h"

/* CUPTI_SONAME_VERSION comes from CMake: 1108, 1208 or 1300. */
static uint32_t chosen;

uint32_t tracer_version(void) {
  if (chosen) return chosen;
  const char *text = getenv("SIMGPU_CUPTI_VERSION");
  uint32_t version = 0;
  if (text) {
    char *rest;
    version = (uint32_t)strtoul(text, &rest, 10) * 100;
    if (*rest == '.') version += (uint32_t)strtoul(rest + 1, NULL, 10);
  }
  /* A process may load several: the choice is for the one of its major version. */
  chosen = version / 100 == CUPTI_SONAME_VERSION / 100 ? version : CUPTI_SONAME_VERSION;
  return chosen;
}

static uint32_t api_version(uint32_t version) {
  static const uint32_t known[][2] = {
      {1305, 130500}, {1304, 130401}, {1303, 130301}, {1302, 130202}, {1301, 130101},
      {1300, 130001}, {1209, 28},     {1208, 26},     {1206, 24},     {1205, 23},
      {1204, 22},     {1203, 21},     {1202, 20},     {0, 18},
  };
  size_t i = 0;
  while (known[i][0] > version) i++;
  return known[i][1];
}

SIMGPU_EXPORT int cuptiGetVersion(uint32_t *version) {
  if (!version) return CUPTI_ABI_RESULT_INVALID_PARAMETER;
  *version = api_version(tracer_version());
  return CUPTI_ABI_RESULT_SUCCESS;
}

/* Up to 12.x they say what is wrong, from 13.0 on they do not (13.0 and 13.1 measured). */
static int refusal(void) {
  return tracer_version() >= 1300 ? CUPTI_ABI_RESULT_UNKNOWN : CUPTI_ABI_RESULT_NOT_INITIALIZED;
}

int tracer_enter(void) {
  static atomic_long calls;
  const double failing_after = simgpu_fault("fail_after", -1);
  if (failing_after >= 0 && ++calls > (long)failing_after) return CUPTI_ABI_RESULT_UNKNOWN;
  return simgpu_initialize() == SIMGPU_OK ? CUPTI_ABI_RESULT_SUCCESS : refusal();
}
