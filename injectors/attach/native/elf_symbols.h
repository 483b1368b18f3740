/* Exported symbols of an ELF image, found through its dynamic section: in another process's memory,
   or in a file. No section headers, no debug files, no file access for a mapped library, so a
   deleted library or one of another mount namespace is as good as any. */
#ifndef GPUTAP_ELF_SYMBOLS_H
#define GPUTAP_ELF_SYMBOLS_H

#include <elf.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef bool elf_read_fn(void *context, uint64_t address, void *to, size_t size);

struct elf_image {
  elf_read_fn *read;
  void *context;
  uint64_t bias;
  bool has_dynamic;
  uint64_t strings, symbols, gnu_hash, sysv_hash;
  uint64_t soname; /* offset in strings, 0 if none */
};

/* False if there is no 64-bit ELF header for our machine at `base`. */
bool elf_open(struct elf_image *image, elf_read_fn *read, void *context, uint64_t base);

/* Address of the defined symbol `name`, 0 if there is none. */
uint64_t elf_find(const struct elf_image *image, const char *name);

/* Copies the soname, or "" where there is none. */
void elf_soname(const struct elf_image *image, char *to, size_t size);

/* Reader of a file that is mapped whole: translates addresses through the program headers. */
struct elf_file {
  const unsigned char *bytes;
  size_t size;
};
elf_read_fn elf_file_read;

#endif
