#include "host.h"

#include "maps.h"
#include "text.h"

namespace gputap {

Host g_host;

namespace {

constexpr int kLazy = 1, kNoLoad = 4;

struct PathSearch {
  const char *stem;
  char path[1024];
};

bool take_path(const Mapping &mapping, void *context) {
  PathSearch *search = (PathSearch *)context;
  if (!is_mapping_of(mapping, search->stem) || mapping.path_length >= sizeof search->path)
    return false;
  __builtin_memcpy(search->path, mapping.path, mapping.path_length);
  search->path[mapping.path_length] = 0;
  return true;
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
  if (handle || !stem) return handle;
  // Libraries vendored by packagers carry a hash in the name (libtorch_cpu-1a2b.so): the soname is
  // not known, but the path is in the map.
  PathSearch search = {stem, {0}};
  return maps_find(take_path, &search) ? g_host.dlopen(search.path, kLazy | kNoLoad) : nullptr;
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
