#include "fault.h"

#include <stdlib.h>
#include <string.h>

#include "../core/simgpu.h"

/* What comes after "RANK:", or NULL: another rank's, or none. */
static const char *own_fault(const char *name, int rank, char *text, size_t size) {
  char *end;
  if (!simgpu_fault_text(name, text, size) || strtol(text, &end, 10) != rank || end == text) {
    return NULL;
  }
  return *end == ':' ? end + 1 : end;
}

bool fault_is_missing(int rank, uint64_t launches) {
  char text[32];
  const char *from = own_fault("nccl_missing", rank, text, sizeof text);
  return from && launches >= strtoull(from, NULL, 10);
}

static uint64_t parse_ns(const char *text) {
  char *unit;
  const double value = strtod(text, &unit);
  const double factor = strcmp(unit, "s") == 0    ? 1e9
                        : strcmp(unit, "ms") == 0 ? 1e6
                        : strcmp(unit, "us") == 0 ? 1e3
                                                  : 1;
  return (uint64_t)(value * factor);
}

void fault_be_late(int rank) {
  char text[32];
  const char *by = own_fault("nccl_late", rank, text, sizeof text);
  if (by) {
    simgpu_sleep_until(simgpu_now_ns() + parse_ns(by));
  }
}
