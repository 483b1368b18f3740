#include "error.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char last_error[1024];
static pthread_mutex_t error_lock = PTHREAD_MUTEX_INITIALIZER;

nccl_result fail(nccl_result result, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  pthread_mutex_lock(&error_lock);
  vsnprintf(last_error, sizeof last_error, format, arguments);
  const char *level = getenv("NCCL_DEBUG");
  if (level && (strcmp(level, "WARN") == 0 || strcmp(level, "INFO") == 0)) {
    fprintf(stderr, "simulated NCCL WARN [%d] %s\n", getpid(), last_error);
  }
  pthread_mutex_unlock(&error_lock);
  va_end(arguments);
  return result;
}

const char *ncclGetLastError(nccl_comm comm) {
  (void)comm; /* one for the process, as in NCCL */
  return last_error;
}

const char *ncclGetErrorString(nccl_result result) {
  static const char *const texts[] = {
      [NCCL_SUCCESS] = "no error",
      [NCCL_UNHANDLED_CUDA_ERROR] = "unhandled cuda error (run with NCCL_DEBUG=INFO for details)",
      [NCCL_SYSTEM_ERROR] = "unhandled system error (run with NCCL_DEBUG=INFO for details)",
      [NCCL_INTERNAL_ERROR] = "internal error - please report this issue to the NCCL developers",
      [NCCL_INVALID_ARGUMENT] = "invalid argument (run with NCCL_DEBUG=WARN for details)",
      [NCCL_INVALID_USAGE] = "invalid usage (run with NCCL_DEBUG=WARN for details)",
      [NCCL_REMOTE_ERROR] = "remote process exited or there was a network error",
      [NCCL_IN_PROGRESS] = "NCCL operation in progress",
  };
  return (unsigned)result <= NCCL_IN_PROGRESS ? texts[result] : "unknown result code";
}
