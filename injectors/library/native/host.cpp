#include "host.h"

#include "text.h"

namespace gputap {

Host g_host;

namespace {

constexpr int kLazy = 1, kNoLoad = 4;

// Libraries vendored by packagers carry a hash in the file name (libtorch_cpu-1a2b.so), so the
// soname may be unknown: look for the path in the process's own maps.
bool mapped_path(const char *stem, char *path, size_t capacity) {
  int fd = (int)sys::call(sys::kOpenat, -100, (long)"/proc/self/maps", 0x80000 /* O_CLOEXEC */);
  if (fd < 0) return false;
  char buffer[4096];
  char line[1024];
  size_t length = 0;
  bool found = false;
  for (long got; !found && (got = sys::call(sys::kRead, fd, (long)buffer, sizeof buffer)) > 0;) {
    for (long i = 0; i < got && !found; i++) {
      if (buffer[i] != '\n') {
        if (length < sizeof line) line[length++] = buffer[i];
        continue;
      }
      size_t slash = length;
      size_t first = length;
      for (size_t k = 0; k < length; k++) {
        if (line[k] != '/') continue;
        if (first == length) first = k;
        slash = k;
      }
      if (slash < length && text_starts(line + slash + 1, length - slash - 1, stem) &&
          length - first < capacity) {
        __builtin_memcpy(path, line + first, length - first);
        path[length - first] = 0;
        found = true;
      }
      length = 0;
    }
  }
  sys::close(fd);
  return found;
}

}  // namespace

void host_take(const gputap_enter *enter) {
  g_host.dlsym = enter->dlsym;
  g_host.dlopen = enter->dlopen;
  g_host.pthread_create = enter->pthread_create;
  g_host.pthread_detach = (int (*)(unsigned long))host_symbol("pthread_detach");
  g_host.clock_gettime = (int (*)(int, Timespec *))host_symbol("clock_gettime");
}

void *host_symbol(const char *name) { return g_host.dlsym(nullptr, name); }

void *host_loaded_library(const char *soname, const char *stem) {
  void *handle = g_host.dlopen(soname, kLazy | kNoLoad);
  if (handle) return handle;
  char path[1024];
  return mapped_path(stem, path, sizeof path) ? g_host.dlopen(path, kLazy | kNoLoad) : nullptr;
}

const char *python_library_stem(uint32_t version, char *buffer, size_t capacity) {
  Text stem(buffer, capacity);
  stem << "libpython" << (int64_t)(version >> 8) << "." << (int64_t)(version & 255);
  return stem.end();
}

bool host_start_thread(void *(*body)(void *), const char *name) {
  unsigned long thread = 0;
  uint64_t mask = sys::block_signals();
  int error = g_host.pthread_create(&thread, nullptr, body, (void *)name);
  sys::set_signals(mask);
  if (!error && g_host.pthread_detach) g_host.pthread_detach(thread);
  return !error;
}

void host_name_thread(const char *name) { sys::call(sys::kPrctl, sys::kSetName, (long)name); }

}  // namespace gputap
