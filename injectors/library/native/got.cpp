#include "got.h"

#include "atomics.h"
#include "host.h"
#include "maps.h"
#include "text.h"

namespace gputap {

namespace {

constexpr int kLinkMapRequest = 2; /* RTLD_DI_LINKMAP */
constexpr uint64_t kMostRelocations = 1 << 22;
constexpr size_t kLongestPath = 4096;

#if defined(__x86_64__)
constexpr uint32_t kJumpSlot = 7, kGlobalData = 6;
#elif defined(__aarch64__)
constexpr uint32_t kJumpSlot = 1026, kGlobalData = 1025;
#endif

enum Tag : int64_t { kEnd = 0, kPltSize = 2, kStrings = 5, kSymbols = 6, kRela = 7, kRelaSize = 8, kPlt = 23 };

struct LinkMap { /* the public part of glibc's and musl's */
  uint64_t bias;
  const char *name;
  const int64_t (*dynamic)[2];
};

struct Symbol {
  uint32_t name;
  uint8_t info, other;
  uint16_t section;
  uint64_t value, size;
};

struct Relocation {
  uint64_t offset, info;
  int64_t addend;
};

struct Image {
  uint64_t bias;
  const char *strings;
  const Symbol *symbols;
  const Relocation *plt, *rela;
  uint64_t plt_count, rela_count;
};

const void *pointer(const LinkMap *map, int64_t value) {
  // glibc has relocated these in place, others have not.
  return (const void *)((uint64_t)value >= map->bias ? (uint64_t)value : map->bias + (uint64_t)value);
}

Image read_image(const LinkMap *map) {
  Image image = {map->bias, nullptr, nullptr, nullptr, nullptr, 0, 0};
  for (const int64_t(*tag)[2] = map->dynamic; (*tag)[0] != kEnd; tag++) {
    int64_t value = (*tag)[1];
    switch ((*tag)[0]) {
      case kStrings:
        image.strings = (const char *)pointer(map, value);
        break;
      case kSymbols:
        image.symbols = (const Symbol *)pointer(map, value);
        break;
      case kPlt:
        image.plt = (const Relocation *)pointer(map, value);
        break;
      case kRela:
        image.rela = (const Relocation *)pointer(map, value);
        break;
      case kPltSize:
        image.plt_count = (uint64_t)value / sizeof(Relocation);
        break;
      case kRelaSize:
        image.rela_count = (uint64_t)value / sizeof(Relocation);
        break;
    }
  }
  return image;
}

bool is_same(const char *a, const char *b) {
  while (*a && *a == *b) a++, b++;
  return *a == *b;
}

void **search(const Image &image, const Relocation *first, uint64_t count, const char *symbol) {
  for (uint64_t i = 0; first && i < count && i < kMostRelocations; i++) {
    uint32_t type = (uint32_t)first[i].info;
    if (type != kJumpSlot && type != kGlobalData) continue;
    const Symbol &found = image.symbols[first[i].info >> 32];
    if (is_same(image.strings + found.name, symbol)) return (void **)(image.bias + first[i].offset);
  }
  return nullptr;
}

// What dl_iterate_phdr tells of a library.
struct Library {
  uint64_t bias;
  const char *name;
  const uint8_t *headers;
  uint16_t header_count;
  unsigned long long loads, unloads; /* ever, of all libraries */
};

struct ProgramHeader {
  uint32_t type, flags;
  uint64_t offset, address, physical, file_bytes, bytes, align;
};

constexpr uint32_t kLoad = 1, kDynamic = 2;

struct Everywhere {
  const GotHook *hooks;
  uint32_t hook_count;
  uint64_t itself;
  GotPatch *found;
  uint32_t capacity, count;
  uint64_t *generation;
  bool is_new;
};

const int64_t (*dynamic_of(const Library *library))[2] {
  const ProgramHeader *headers = (const ProgramHeader *)library->headers;
  for (uint16_t i = 0; i < library->header_count; i++)
    if (headers[i].type == kDynamic)
      return (const int64_t(*)[2])(library->bias + headers[i].address);
  return nullptr;
}

bool contains(const Library *library, uint64_t address) {
  const ProgramHeader *headers = (const ProgramHeader *)library->headers;
  for (uint16_t i = 0; i < library->header_count; i++)
    if (headers[i].type == kLoad && address - library->bias - headers[i].address < headers[i].bytes)
      return true;
  return false;
}

bool is_torchs(const char *path) {
  const char *name = path;
  for (const char *at = path; *at; at++)
    if (*at == '/') name = at + 1;
  size_t length = text_length(name, kLongestPath);
  return text_starts(name, length, "libtorch") || text_starts(name, length, "libkineto");
}

void take_slots(Everywhere *all, const Image &image, const char *path, const Relocation *first,
                uint64_t count) {
  for (uint64_t i = 0; first && i < count && i < kMostRelocations; i++) {
    uint32_t type = (uint32_t)first[i].info;
    if (type != kJumpSlot && type != kGlobalData) continue;
    const char *name = image.strings + image.symbols[first[i].info >> 32].name;
    for (uint32_t k = 0; k < all->hook_count && all->count < all->capacity; k++) {
      if (!is_same(name, all->hooks[k].symbol)) continue;
      void **at = (void **)(image.bias + first[i].offset);
      all->found[all->count++] = {{at, load(at)}, &all->hooks[k], is_torchs(path)};
    }
  }
}

// The loader's lock is held: nothing is written here, and no function of the loader called.
int visit_library(const Library *library, size_t, void *context) {
  Everywhere *all = (Everywhere *)context;
  uint64_t generation = library->loads + library->unloads;
  if (!all->is_new && *all->generation == generation) return 1;
  all->is_new = true;
  *all->generation = generation;
  if (contains(library, all->itself)) return 0;
  LinkMap map = {library->bias, library->name, dynamic_of(library)};
  if (!map.dynamic) return 0;
  Image image = read_image(&map);
  if (!image.strings || !image.symbols) return 0;
  take_slots(all, image, library->name, image.plt, image.plt_count);
  take_slots(all, image, library->name, image.rela, image.rela_count);
  return 0;
}

struct Page {
  uint64_t address;
  bool writable;
};

bool is_page(const Mapping &mapping, void *context) {
  Page *page = (Page *)context;
  if (page->address < mapping.start || page->address >= mapping.end) return false;
  page->writable = mapping.writable;
  return true;
}

// Two slots may share a page, and two threads of ours may write.
uint32_t writing;

class WriteLock {
 public:
  WriteLock() {
    while (!change(&writing, 0u, 1u)) sys::yield();
  }
  ~WriteLock() { store_release(&writing, 0u); }
};

// Exchanges the slot's value if it is `expected`. Its page is read-only where the library was linked
// with full RELRO.
bool write(void **at, void *expected, void *value) {
  uint64_t start = (uint64_t)at & ~(uint64_t)(sys::kPage - 1);
  Page page = {start, false};
  WriteLock lock;
  if (!maps_find(is_page, &page)) return false;
  if (!page.writable && sys::failed(sys::call(sys::kMprotect, (long)start, sys::kPage,
                                              sys::kProtRead | sys::kProtWrite)))
    return false;
  bool written = change(at, expected, value);
  if (!page.writable) sys::call(sys::kMprotect, (long)start, sys::kPage, sys::kProtRead);
  return written;
}

typedef int (*Visit)(const Library *, size_t, void *);

// False where the loader has no such function.
bool iterate_libraries(Visit visit, Everywhere *all) {
  typedef int (*Iterate)(Visit, void *);
  static Iterate iterate;
  if (!iterate) iterate = (Iterate)host_symbol("dl_iterate_phdr");
  if (!iterate) return false;
  iterate(visit, all);
  return true;
}

// The first library tells.
int count_libraries(const Library *library, size_t, void *context) {
  Everywhere *all = (Everywhere *)context;
  uint64_t generation = library->loads + library->unloads;
  all->is_new = *all->generation != generation;
  *all->generation = generation;
  return 1;
}

// Returns how many slots there are, or -1 where the list of libraries is as before.
int32_t find_everywhere(GotHooks *all, const void *itself, GotPatch *found) {
  Everywhere search = {all->hooks, all->hook_count, (uint64_t)itself, found, GotHooks::kMost,
                       0, &all->generation, false};
  if (!iterate_libraries(visit_library, &search)) return 0;
  return search.is_new ? (int32_t)search.count : -1;
}

}  // namespace

GotSlot got_find(void *library, const char *symbol) {
  typedef int (*Dlinfo)(void *, int, void *);
  Dlinfo dlinfo = (Dlinfo)host_symbol("dlinfo");
  LinkMap *map = nullptr;
  if (!dlinfo || !library || dlinfo(library, kLinkMapRequest, &map) != 0 || !map) return {};
  Image image = read_image(map);
  if (!image.strings || !image.symbols) return {};
  void **at = search(image, image.plt, image.plt_count, symbol);
  if (!at) at = search(image, image.rela, image.rela_count, symbol);
  return {at, at ? load(at) : nullptr};
}

// A slot whose library was unloaded would be written to where something else may be by now; those are
// forgotten with every change of the list of libraries, and found again if they are still there.
void got_keep(GotHooks *all, const void *itself) {
  GotPatch found[GotHooks::kMost];
  int32_t count = find_everywhere(all, itself, found);
  if (count < 0) return;
  uint32_t kept = 0;
  for (int32_t i = 0; i < count; i++) {
    GotPatch patch = found[i];
    void *function = patch.hook->function;
    if (load(patch.slot.at) == function) {
      for (uint32_t k = 0; k < all->count; k++)
        if (all->patches[k].slot.at == patch.slot.at) patch = all->patches[k];
    } else if ((all->may && !all->may(patch)) || !got_put(&patch.slot, function)) {
      continue;
    }
    found[kept++] = patch;
  }
  __builtin_memcpy(all->patches, found, kept * sizeof *found);
  all->count = kept;
}

void got_give_up(GotHooks *all, const void *itself) {
  GotPatch found[GotHooks::kMost];
  all->generation = 0;
  int32_t count = all->count ? find_everywhere(all, itself, found) : 0;
  for (int32_t i = 0; i < count; i++)
    for (uint32_t k = 0; k < all->count; k++)
      if (all->patches[k].slot.at == found[i].slot.at)
        got_take_back(all->patches[k].slot, all->patches[k].hook->function);
  all->count = 0;
  all->generation = 0;
}

bool got_libraries_changed(uint64_t *generation) {
  Everywhere nothing = {nullptr, 0, 0, nullptr, 0, 0, generation, false};
  iterate_libraries(count_libraries, &nothing);
  return nothing.is_new;
}

void got_forget_after_fork() { store(&writing, 0); }

bool got_put(GotSlot *slot, void *function) {
  if (!slot->at) return false;
  void *now = load(slot->at);
  if (now == function) return true;
  slot->original = now; /* the loader may have put the function in place of its stub */
  return write(slot->at, now, function);
}

void got_take_back(const GotSlot &slot, void *function) {
  if (slot.at && load(slot.at) == function) write(slot.at, function, slot.original);
}

}  // namespace gputap
