/* Finding functions by name, and texts of errors. */
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "driver.h"

enum { LONGEST_NAME = 128, FLAG_PER_THREAD = 2, STATUS_OK = 0, STATUS_NO_SYMBOL = 1 };

static void *own_handle(void) {
  static void *handle;
  Dl_info info;
  if (!handle && dladdr((void *)own_handle, &info)) {
    handle = dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
  }
  return handle;
}

/* A name means its newest version, which bears a number where there was an older one. */
static void *find(const char *name, bool per_thread) {
  static const char *const suffixes[] = {"_v2_ptsz", "_ptsz", "_v2", ""};
  char versioned[LONGEST_NAME];
  for (size_t i = per_thread ? 0 : 2; i < sizeof suffixes / sizeof *suffixes; i++) {
    snprintf(versioned, sizeof versioned, "%s%s", name, suffixes[i]);
    void *found = dlsym(own_handle(), versioned);
    if (found) return found;
  }
  return NULL;
}

SIMGPU_EXPORT int cuGetProcAddress_v2(const char *name, void **function, int version,
                                      uint64_t flags, int *status) {
  (void)version;
  if (!name || !function) return SIMGPU_INVALID_VALUE;
  *function = find(name, flags & FLAG_PER_THREAD);
  if (status) *status = *function ? STATUS_OK : STATUS_NO_SYMBOL;
  return *function ? SIMGPU_OK : SIMGPU_SYMBOL_NOT_FOUND;
}

SIMGPU_EXPORT int cuGetProcAddress(const char *name, void **function, int version,
                                   uint64_t flags) {
  return cuGetProcAddress_v2(name, function, version, flags, NULL);
}

static int text_of(int error, const char **text, bool want_name) {
  const struct simgpu_error *found = simgpu_error_text(error);
  if (!text) return SIMGPU_INVALID_VALUE;
  const bool known = found->code == error && found->driver_name;
  *text = !known ? NULL : want_name ? found->driver_name : found->text;
  return known ? SIMGPU_OK : SIMGPU_INVALID_VALUE;
}

SIMGPU_EXPORT int cuGetErrorString(int error, const char **text) {
  return text_of(error, text, false);
}

SIMGPU_EXPORT int cuGetErrorName(int error, const char **text) {
  return text_of(error, text, true);
}
