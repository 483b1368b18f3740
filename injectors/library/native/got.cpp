#include "got.h"

#include "atomics.h"
#include "fork.h"
#include "host.h"
#include "maps.h"
#include "text.h"

namespace gputap {

namespace {

constexpr int kLinkMapRequest = 2; /* RTLD_DI_LINKMAP */
constexpr uint64_t kMostRelocations = 1 << 22;
constexpr size_t kLongestPath = 4096;
constexpr uint64_t kLowest = 1ull << 32; /* libraries lie above, and no offset in one is so large */
constexpr uint32_t kSecondLooks = 20;

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

constexpr uint32_t kLoad = 1, kDynamic = 2, kGuarded = 0x6474e552; /* PT_GNU_RELRO */

constexpr uint32_t kMostInLibrary = 48;

// What is to be done with the slots of all libraries.
struct Everywhere {
  GotHooks *all;
  uint64_t itself;
  bool take_back; /* else hooks are put in */
  bool again;     /* search even if the list is as before */
  bool is_new;
  bool unready; /* a library was still being linked */
  GotPatch kept[GotHooks::kMost];
  uint32_t kept_count;
};

enum Access : uint8_t { kUnknown, kReadOnly, kWritable };

// The slots in one library.
struct Here {
  GotPatch slots[kMostInLibrary];
  Access access[kMostInLibrary]; /* of their pages, now */
  bool guarded[kMostInLibrary];  /* read-only from the moment that the library is linked */
  uint32_t count;
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

uint64_t page_of(uint64_t address) { return address & ~(uint64_t)(sys::kPage - 1); }

bool is_guarded(const Library *library, uint64_t address) {
  const ProgramHeader *headers = (const ProgramHeader *)library->headers;
  for (uint16_t i = 0; i < library->header_count; i++) {
    uint64_t start = library->bias + headers[i].address;
    if (headers[i].type == kGuarded && address >= page_of(start) &&
        address < page_of(start + headers[i].bytes))
      return true;
  }
  return false;
}

bool is_torchs(const char *path) {
  const char *name = path;
  for (const char *at = path; *at; at++)
    if (*at == '/') name = at + 1;
  size_t length = text_length(name, kLongestPath);
  return text_starts(name, length, "libtorch") || text_starts(name, length, "libkineto");
}

void collect(const Everywhere *search, Here *here, const Image &image, const Library *library,
             const Relocation *first, uint64_t count) {
  const GotHooks *all = search->all;
  for (uint64_t i = 0; first && i < count && i < kMostRelocations; i++) {
    uint32_t type = (uint32_t)first[i].info;
    if (type != kJumpSlot && type != kGlobalData) continue;
    const char *name = image.strings + image.symbols[first[i].info >> 32].name;
    for (uint32_t k = 0; k < all->hook_count && here->count < kMostInLibrary; k++) {
      if (!is_same(name, all->hooks[k].symbol)) continue;
      void **at = (void **)(image.bias + first[i].offset);
      void *value = load(at);
      here->guarded[here->count] = is_guarded(library, (uint64_t)at);
      here->slots[here->count++] = {{at, value},
                                    &all->hooks[k],
                                    is_torchs(library->name),
                                    contains(library, (uint64_t)value)};
    }
  }
}

struct Page {
  uint64_t address;
  Access access;
};

bool is_page(const Mapping &mapping, void *context) {
  Page *page = (Page *)context;
  if (page->address < mapping.start || page->address >= mapping.end) return false;
  page->access = mapping.writable ? kWritable : kReadOnly;
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
bool exchange_on_page(void **at, void *expected, void *value, Access access) {
  if (access == kUnknown) return false;
  uint64_t start = page_of((uint64_t)at);
  bool writable = access == kWritable;
  if (!writable && sys::failed(sys::call(sys::kMprotect, (long)start, sys::kPage,
                                         sys::kProtRead | sys::kProtWrite)))
    return false;
  bool written = change(at, expected, value);
  if (!writable) sys::call(sys::kMprotect, (long)start, sys::kPage, sys::kProtRead);
  return written;
}

bool write(void **at, void *expected, void *value) {
  Page page = {(uint64_t)at, kUnknown};
  WriteLock lock;
  maps_find(is_page, &page);
  return exchange_on_page(at, expected, value, page.access);
}

bool look_at_slots(const Mapping &mapping, void *context) {
  Here *here = (Here *)context;
  for (uint32_t i = 0; i < here->count; i++) {
    Page page = {(uint64_t)here->slots[i].slot.at, kUnknown};
    if (is_page(mapping, &page)) here->access[i] = page.access;
  }
  return false;
}

// The loader has not come to it yet: it holds an offset or nothing, and is added to, or written over,
// when it does; or its page is about to be made read-only.
bool is_being_linked(const GotSlot &slot, bool guarded, Access access) {
  if ((uint64_t)slot.at >= kLowest && (uint64_t)slot.original < kLowest) return true;
  return guarded && access == kWritable;
}

void put_hook(Everywhere *search, GotPatch patch, bool guarded, Access access) {
  GotHooks *all = search->all;
  void *function = patch.hook->function;
  if (patch.slot.original == function) {
    for (uint32_t k = 0; k < all->count; k++)
      if (all->patches[k].slot.at == patch.slot.at) patch = all->patches[k];
  } else if (is_being_linked(patch.slot, guarded, access)) {
    search->unready = true;
    return;
  } else if ((all->may && !all->may(patch)) ||
             !exchange_on_page(patch.slot.at, patch.slot.original, function, access)) {
    return;
  }
  if (search->kept_count < GotHooks::kMost) search->kept[search->kept_count++] = patch;
}

void take_hook_back(Everywhere *search, const GotPatch &patch, Access access) {
  const GotHooks *all = search->all;
  for (uint32_t k = 0; k < all->count; k++)
    if (all->patches[k].slot.at == patch.slot.at)
      exchange_on_page(patch.slot.at, patch.hook->function, all->patches[k].slot.original, access);
}

// The loader's lock is held: the library stays while its slots are written, and no function of the
// loader may be called.
int visit_library(const Library *library, size_t, void *context) {
  Everywhere *search = (Everywhere *)context;
  uint64_t generation = library->loads + library->unloads;
  if (!search->is_new && search->all->generation == generation && !search->again) return 1;
  search->is_new = true;
  search->all->generation = generation;
  if (contains(library, search->itself)) return 0;
  LinkMap map = {library->bias, library->name, dynamic_of(library)};
  if (!map.dynamic) return 0;
  Image image = read_image(&map);
  if (!image.strings || !image.symbols) return 0;
  Here here = {};
  collect(search, &here, image, library, image.plt, image.plt_count);
  collect(search, &here, image, library, image.rela, image.rela_count);
  if (!here.count) return 0;
  WriteLock lock;
  maps_find(look_at_slots, &here);
  for (uint32_t i = 0; i < here.count; i++) {
    if (search->take_back)
      take_hook_back(search, here.slots[i], here.access[i]);
    else
      put_hook(search, here.slots[i], here.guarded[i], here.access[i]);
  }
  return 0;
}

typedef int (*Visit)(const Library *, size_t, void *);

// False where the loader has no such function.
bool iterate_libraries(Visit visit, void *context) {
  typedef int (*Iterate)(Visit, void *);
  static Iterate iterate;
  if (!iterate) iterate = (Iterate)host_symbol("dl_iterate_phdr");
  if (!iterate) return false;
  LoaderGuard guard;
  iterate(visit, context);
  return true;
}

// The first library tells.
int take_generation(const Library *library, size_t, void *context) {
  *(uint64_t *)context = library->loads + library->unloads;
  return 1;
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

// What was patched in a library that has been unloaded is forgotten.
void got_keep(GotHooks *all, const void *itself) {
  uint64_t before = all->generation;
  Everywhere search = {all, (uint64_t)itself, false, all->second_looks != 0, false, false, {}, 0};
  if (!iterate_libraries(visit_library, &search) || !search.is_new) return;
  __builtin_memcpy(all->patches, search.kept, search.kept_count * sizeof *search.kept);
  all->count = search.kept_count;
  // A slot may stay empty for good, where the symbol is weak and nobody has it.
  if (!search.unready)
    all->second_looks = 0;
  else
    all->second_looks = all->generation != before ? kSecondLooks : all->second_looks - 1;
}

void got_give_up(GotHooks *all, const void *itself) {
  Everywhere search = {all, (uint64_t)itself, true, true, false, false, {}, 0};
  if (all->count) iterate_libraries(visit_library, &search);
  got_forget(all);
}

void got_forget(GotHooks *all) {
  all->count = all->second_looks = 0;
  all->generation = 0;
}

bool got_libraries_changed(uint64_t *generation) {
  uint64_t now = *generation;
  iterate_libraries(take_generation, &now);
  bool changed = now != *generation;
  *generation = now;
  return changed;
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
