#include "elf_symbols.h"

#include <string.h>

#include "arch.h"

enum { MAX_HEADERS = 64, MAX_DYNAMIC = 128, MAX_CHAIN = 4096, MAX_NAME = 64 };

static bool read_at(const struct elf_image *image, uint64_t address, void *to, size_t size) {
  return image->read(image->context, address, to, size);
}

/* The loader relocates pointers of the dynamic section in place; a file's are still relative. */
static uint64_t relocated(const struct elf_image *image, uint64_t pointer) {
  return pointer < image->bias ? pointer + image->bias : pointer;
}

static void take_dynamic(struct elf_image *image, const Elf64_Dyn *entry) {
  const uint64_t value = entry->d_un.d_val;
  switch (entry->d_tag) {
  case DT_STRTAB:
    image->strings = relocated(image, value);
    break;
  case DT_SYMTAB:
    image->symbols = relocated(image, value);
    break;
  case DT_GNU_HASH:
    image->gnu_hash = relocated(image, value);
    break;
  case DT_HASH:
    image->sysv_hash = relocated(image, value);
    break;
  case DT_SONAME:
    image->soname = value;
    break;
  default:
    break;
  }
}

static void read_dynamic(struct elf_image *image, uint64_t address, uint64_t size) {
  Elf64_Dyn entries[MAX_DYNAMIC];
  uint64_t count = size / sizeof *entries;
  if (count > MAX_DYNAMIC) {
    count = MAX_DYNAMIC;
  }
  if (!read_at(image, address, entries, count * sizeof *entries)) {
    return;
  }
  image->has_dynamic = true;
  for (uint64_t i = 0; i < count && entries[i].d_tag != DT_NULL; i++) {
    take_dynamic(image, &entries[i]);
  }
}

static bool is_ours(const Elf64_Ehdr *header) {
  return memcmp(header->e_ident, ELFMAG, SELFMAG) == 0 && header->e_ident[EI_CLASS] == ELFCLASS64 &&
         header->e_machine == ARCH_ELF_MACHINE && header->e_phentsize == sizeof(Elf64_Phdr);
}

bool elf_open(struct elf_image *image, elf_read_fn *read, void *context, uint64_t base) {
  *image = (struct elf_image){.read = read, .context = context, .bias = base};
  Elf64_Ehdr header;
  Elf64_Phdr segments[MAX_HEADERS];
  if (!read_at(image, base, &header, sizeof header) || !is_ours(&header)) {
    return false;
  }
  const unsigned count = header.e_phnum < MAX_HEADERS ? header.e_phnum : MAX_HEADERS;
  if (!read_at(image, base + header.e_phoff, segments, count * sizeof *segments)) {
    return false;
  }
  for (unsigned i = 0; i < count; i++) {
    if (segments[i].p_type == PT_LOAD) {
      image->bias = base - (segments[i].p_vaddr & ~0xfffull);
      break;
    }
  }
  for (unsigned i = 0; i < count; i++) {
    if (segments[i].p_type == PT_DYNAMIC) {
      read_dynamic(image, image->bias + segments[i].p_vaddr, segments[i].p_memsz);
    }
  }
  return true;
}

static bool name_is(const struct elf_image *image, const Elf64_Sym *symbol, const char *name) {
  char found[MAX_NAME];
  const size_t size = strlen(name) + 1;
  return size <= sizeof found && read_at(image, image->strings + symbol->st_name, found, size) &&
         memcmp(found, name, size) == 0;
}

static bool match(const struct elf_image *image, uint32_t index, const char *name,
                  uint64_t *address) {
  Elf64_Sym symbol;
  if (!read_at(image, image->symbols + (uint64_t)index * sizeof symbol, &symbol, sizeof symbol)) {
    return false;
  }
  if (symbol.st_shndx == SHN_UNDEF || symbol.st_value == 0 || !name_is(image, &symbol, name)) {
    return false;
  }
  *address = image->bias + symbol.st_value;
  return true;
}

static uint32_t gnu_hash_of(const char *name) {
  uint32_t hash = 5381;
  for (const unsigned char *c = (const unsigned char *)name; *c; c++) {
    hash = hash * 33 + *c;
  }
  return hash;
}

static uint32_t sysv_hash_of(const char *name) {
  uint32_t hash = 0;
  for (const unsigned char *c = (const unsigned char *)name; *c; c++) {
    hash = (hash << 4) + *c;
    hash ^= (hash & 0xf0000000u) >> 24;
    hash &= 0x0fffffffu;
  }
  return hash;
}

static bool bloom_admits(const struct elf_image *image, const uint32_t table[4], uint32_t hash) {
  uint64_t word;
  if (table[2] == 0) {
    return true;
  }
  const uint64_t at = image->gnu_hash + 16 + 8 * (uint64_t)((hash / 64) % table[2]);
  if (!read_at(image, at, &word, sizeof word)) {
    return false;
  }
  return (word >> (hash % 64)) & (word >> ((hash >> (table[3] & 31)) % 64)) & 1;
}

static uint64_t find_gnu(const struct elf_image *image, const char *name) {
  uint32_t table[4]; /* buckets, first symbol, bloom words, bloom shift */
  uint32_t index, entry;
  const uint32_t hash = gnu_hash_of(name);
  if (!read_at(image, image->gnu_hash, table, sizeof table) || table[0] == 0 ||
      !bloom_admits(image, table, hash)) {
    return 0;
  }
  const uint64_t buckets = image->gnu_hash + 16 + 8 * (uint64_t)table[2];
  const uint64_t chains = buckets + 4 * (uint64_t)table[0];
  if (!read_at(image, buckets + 4 * (uint64_t)(hash % table[0]), &index, 4) || index < table[1]) {
    return 0;
  }
  for (int steps = 0; steps < MAX_CHAIN; steps++, index++) {
    uint64_t address;
    if (!read_at(image, chains + 4 * (uint64_t)(index - table[1]), &entry, 4)) {
      return 0;
    }
    if ((entry | 1) == (hash | 1) && match(image, index, name, &address)) {
      return address;
    }
    if (entry & 1) {
      return 0;
    }
  }
  return 0;
}

static uint64_t find_sysv(const struct elf_image *image, const char *name) {
  uint32_t table[2]; /* buckets, chains */
  uint32_t index;
  if (!read_at(image, image->sysv_hash, table, sizeof table) || table[0] == 0) {
    return 0;
  }
  const uint64_t buckets = image->sysv_hash + 8;
  const uint64_t chains = buckets + 4 * (uint64_t)table[0];
  if (!read_at(image, buckets + 4 * (uint64_t)(sysv_hash_of(name) % table[0]), &index, 4)) {
    return 0;
  }
  for (int steps = 0; index != 0 && steps < MAX_CHAIN; steps++) {
    uint64_t address;
    if (match(image, index, name, &address)) {
      return address;
    }
    if (!read_at(image, chains + 4 * (uint64_t)index, &index, 4)) {
      return 0;
    }
  }
  return 0;
}

uint64_t elf_find(const struct elf_image *image, const char *name) {
  if (!image->strings || !image->symbols) {
    return 0;
  }
  if (image->gnu_hash) {
    return find_gnu(image, name);
  }
  return image->sysv_hash ? find_sysv(image, name) : 0;
}

void elf_soname(const struct elf_image *image, char *to, size_t size) {
  to[0] = '\0';
  if (!image->strings || !image->soname) {
    return;
  }
  for (size_t i = 0; i + 1 < size; i += 16) {
    const size_t chunk = size - i < 16 ? size - i : 16;
    if (!read_at(image, image->strings + image->soname + i, to + i, chunk)) {
      to[i] = '\0';
      return;
    }
    if (memchr(to + i, '\0', chunk)) {
      return;
    }
  }
  to[size - 1] = '\0';
}

bool elf_file_read(void *context, uint64_t address, void *to, size_t size) {
  const struct elf_file *file = context;
  const Elf64_Ehdr *header = (const Elf64_Ehdr *)file->bytes;
  if (file->size < sizeof *header ||
      header->e_phoff + (uint64_t)header->e_phnum * sizeof(Elf64_Phdr) > file->size) {
    return false;
  }
  const Elf64_Phdr *segments = (const Elf64_Phdr *)(file->bytes + header->e_phoff);
  for (unsigned i = 0; i < header->e_phnum; i++) {
    const Elf64_Phdr *segment = &segments[i];
    const uint64_t offset = address - segment->p_vaddr + segment->p_offset;
    if (segment->p_type == PT_LOAD && address >= segment->p_vaddr &&
        address + size <= segment->p_vaddr + segment->p_filesz && offset + size <= file->size) {
      memcpy(to, file->bytes + offset, size);
      return true;
    }
  }
  return false;
}
