#include "torch_lock.h"

#include "atomics.h"
#include "fork.h"
#include "host.h"
#include "maps.h"

namespace gputap {

namespace {

constexpr int64_t kPatienceNs = 20000000;
constexpr uint64_t kMostEntries = 64;

// at::RecordFunctionCallbacksEntry.
struct Entry {
  RecordFunctionCallback callback;
  bool enabled;
  uint64_t handle;
};
static_assert(sizeof(Entry) == 56, "a callback, a flag, a handle");

// at::(anonymous)::GlobalCallbackManager of torch 1.12 to 2.15; std::mutex is a pthread mutex.
struct Manager {
  uint64_t version;
  Entry *begin, *end, *limit;
  uint32_t mutex[10];
};

struct Search {
  void *start;
  uint64_t handle;
  bool within; /* the last mapping was torch's: what follows it is its .bss */
  Manager *found;
};

int (*mutex_trylock)(void *);
int (*mutex_unlock)(void *);
void *lock_of_torch;
Manager *manager_of_torch;
uintptr_t taker; /* the thread that is forking and has it */

bool looks_right(const Manager *at) {
  uint64_t bytes = (uint64_t)at->end - (uint64_t)at->begin;
  return at->version && at->version < 1ull << 40 && at->begin && !((uint64_t)at->begin & 7) &&
         at->end > at->begin && at->limit >= at->end && bytes % sizeof(Entry) == 0 &&
         bytes / sizeof(Entry) <= kMostEntries;
}

// What looks like a pointer may not be one: the kernel reads through it for us.
bool holds_our_entry(const Manager *at, const Search *search) {
  Entry entries[kMostEntries];
  size_t bytes = (size_t)((char *)at->end - (char *)at->begin);
  struct {
    void *base;
    size_t length;
  } local = {entries, bytes}, remote = {at->begin, bytes};
  long got = sys::call(sys::kProcessVmReadv, sys::getpid(), (long)&local, 1, (long)&remote, 1);
  if (got != (long)bytes) return false;
  for (size_t i = 0; i < bytes / sizeof(Entry); i++)
    if (entries[i].handle == search->handle && (void *)entries[i].callback.start == search->start)
      return true;
  return false;
}

bool search_mapping(const Mapping &mapping, void *context) {
  Search *search = (Search *)context;
  bool is_torch = is_mapping_of(mapping, "libtorch_cpu");
  bool is_bss = search->within && mapping.path_length == 0;
  search->within = is_torch;
  if ((!is_torch && !is_bss) || !mapping.readable || !mapping.writable) return false;
  for (uint64_t at = mapping.start; at + sizeof(Manager) <= mapping.end; at += 8) {
    Manager *manager = (Manager *)at;
    if (!looks_right(manager) || !holds_our_entry(manager, search)) continue;
    search->found = manager;
    return true;
  }
  return false;
}

// Switching a callback off and on changes the list twice, and the version says so.
bool version_counts(const Manager *manager, uint64_t handle) {
  ForkGuard guard;
  if (!guard.allowed()) return false;
  uint64_t before = load(&manager->version);
  g_torch.disable(handle);
  g_torch.reenable(handle);
  return load(&manager->version) >= before + 2;
}

// A plain mutex: its kind is 0, and nobody keeps it for long.
bool mutex_is_sane(const Manager *manager) {
  for (int i = 0; i < 100; i++) {
    if (manager->mutex[4] != 0) return false; /* __kind */
    if (load(&manager->mutex[0]) == 0 && load(&manager->mutex[2]) == 0) return true;
    sys::sleep_ns(50000);
  }
  return false;
}

}  // namespace

void torch_lock_find(ContextPointer (*start)(const void *), uint64_t handle) {
  if (lock_of_torch || !handle) return;
  mutex_trylock = (int (*)(void *))host_symbol("pthread_mutex_trylock");
  mutex_unlock = (int (*)(void *))host_symbol("pthread_mutex_unlock");
  Search search = {(void *)start, handle, false, nullptr};
  if (!mutex_trylock || !mutex_unlock || !maps_find(search_mapping, &search)) return;
  if (!version_counts(search.found, handle) || !mutex_is_sane(search.found)) return;
  manager_of_torch = search.found;
  store_release(&lock_of_torch, (void *)search.found->mutex);
}

bool torch_lock_is_known() { return load(&lock_of_torch) != nullptr; }

bool torch_lock_take() {
  void *lock = load_acquire(&lock_of_torch);
  if (!lock) return false;
  int64_t deadline = sys::monotonic_ns() + kPatienceNs;
  while (mutex_trylock(lock) != 0) {
    if (sys::monotonic_ns() > deadline) return false;
    sys::yield();
  }
  taker = thread_pointer();
  return true;
}

void torch_lock_drop_entries(ContextPointer (*first)(const void *),
                             ContextPointer (*second)(const void *)) {
  if (load(&taker) != thread_pointer()) return;
  Manager *manager = manager_of_torch;
  Entry *kept = manager->begin;
  for (Entry *entry = manager->begin; entry != manager->end; entry++)
    if (entry->callback.start != first && entry->callback.start != second) *kept++ = *entry;
  if (kept == manager->end) return;
  manager->end = kept;
  store_release(&manager->version, manager->version + 1);
}

void torch_lock_give() {
  if (load(&taker) != thread_pointer()) return;
  store(&taker, 0);
  mutex_unlock(lock_of_torch);
}

}  // namespace gputap
