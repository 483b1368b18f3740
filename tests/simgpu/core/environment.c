/* What the environment asks for, and the start of the virtual devices. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

enum state { STATE_NEW, STATE_READY, STATE_FORKED };

static _Atomic enum state state;
static pthread_mutex_t start_lock = PTHREAD_MUTEX_INITIALIZER;

uint64_t environment_number(const char *name, uint64_t otherwise) {
  const char *text = getenv(name);
  return text && *text ? strtoull(text, NULL, 0) : otherwise;
}

/* Read once: programs may change their environment while our other threads ask. */
static pthread_once_t faults_once = PTHREAD_ONCE_INIT;
static const char *faults;

static void read_faults(void) {
  const char *text = getenv("SIMGPU_FAULTS");
  faults = text && *text ? strdup(text) : NULL;
}

static const char *find_fault(const char *name) {
  pthread_once(&faults_once, read_faults);
  if (!faults) return NULL;
  const size_t length = strlen(name);
  const char *at = faults;
  while (at && *at) {
    if (strncmp(at, name, length) == 0 && (!at[length] || strchr("=,", at[length]))) {
      return at + length;
    }
    at = strchr(at, ',');
    at = at ? at + 1 : NULL;
  }
  return NULL;
}

SIMGPU_EXPORT double simgpu_fault(const char *name, double otherwise) {
  static const struct {
    const char *unit;
    double factor;
  } units[] = {{"ns", 1}, {"us", 1e3}, {"ms", 1e6}, {"s", 1e9}};
  const char *text = find_fault(name);
  if (!text) return otherwise;
  if (*text != '=') return 1; /* bare: it is on */
  char *end;
  const double value = strtod(text + 1, &end);
  for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
    const size_t length = strlen(units[i].unit);
    if (strncmp(end, units[i].unit, length) == 0 && (!end[length] || end[length] == ',')) {
      return value * units[i].factor;
    }
  }
  return value;
}

SIMGPU_EXPORT const char *simgpu_fault_text(const char *name, char *text, size_t size) {
  const char *value = find_fault(name);
  if (!value || size == 0) return NULL;
  value += *value == '=';
  const size_t length = strcspn(value, ",");
  snprintf(text, size, "%.*s", (int)length, value);
  return text;
}

/* The device does not survive a fork, and none of its locks may be trusted in the child. */
static void forked_child(void) {
  if (state != STATE_READY) return;
  state = STATE_FORKED;
  observer_forget();
  truth_log_forget();
  if (board_forget) board_forget();
}

static int start(void) {
  if (simgpu_fault("no_driver", 0) != 0) return SIMGPU_NO_DRIVER;
  if (simgpu_device_count() == 0) return SIMGPU_NO_DEVICE;
  pthread_mutex_lock(&start_lock);
  if (state == STATE_NEW) {
    clock_start();
    truth_log_open();
    if (board_open) board_open();
    pthread_atfork(NULL, NULL, forked_child);
    state = STATE_READY;
  }
  pthread_mutex_unlock(&start_lock);
  return SIMGPU_OK;
}

SIMGPU_EXPORT int simgpu_initialize(void) {
  switch (state) {
  case STATE_READY:
    return SIMGPU_OK;
  case STATE_FORKED:
    return SIMGPU_INITIALIZATION_ERROR;
  default:
    return start();
  }
}

SIMGPU_EXPORT bool simgpu_is_initialized(void) { return state == STATE_READY; }
