// What the agent borrows from the process it lives in: functions found by dlsym, never linked.
#ifndef GPUTAP_HOST_H
#define GPUTAP_HOST_H

#include <stdint.h>

#include "enter.h"
#include "sys.h"

namespace gputap {

struct Host {
  void *(*dlsym)(void *, const char *);
  void *(*dlopen)(const char *, int);
  int (*pthread_create)(void *, const void *, void *(*)(void *), void *);
  int (*pthread_detach)(unsigned long);
  int (*clock_gettime)(int, Timespec *);
};

extern Host g_host;

void host_take(const gputap_enter *enter);

// Searches the libraries that everybody sees. dlsym(RTLD_DEFAULT).
void *host_symbol(const char *name);

// A handle of a library that the process has loaded, even where its symbols are local to somebody
// else; null if it is not loaded. Never loads anything. `stem` is the start of the file name, null where the soname is
// sure.
void *host_loaded_library(const char *soname, const char *stem);

// "libpython3.11", written into `buffer`: how the file name of that Python's library starts.
const char *python_library_stem(uint32_t version, char *buffer, size_t capacity);

// Starts a detached thread with every signal blocked, so that the job's signals never land on it.
bool host_start_thread(void *(*body)(void *), const char *name);

// To be called first by a thread started so.
void host_name_thread(const char *name);

}  // namespace gputap

#endif
