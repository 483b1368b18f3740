/* The target's address space: mappings, and the ELF modules they belong to. */
#ifndef GPUTAP_MODULES_H
#define GPUTAP_MODULES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "elf_symbols.h"

enum module_kind {
  MODULE_OTHER,     /* application code: a thread that runs it is outside malloc and the loader */
  MODULE_RUNTIME,   /* libc, ld.so, libpthread, libdl, libgcc_s */
  MODULE_LOADER,    /* ld.so */
  MODULE_ALLOCATOR, /* anything else that exports malloc */
  MODULE_AGENT,     /* a copy of our own library */
};

struct module {
  char name[256]; /* path as in /proc/PID/maps */
  enum module_kind kind;
  bool is_libc, is_musl;
  struct elf_image image;
};

struct mapping {
  uint64_t start, end;
  char access[5];
  bool is_stack; /* the main thread's */
  bool is_vdso;
  bool is_named;
  int module; /* index, -1 if none */
};

struct modules {
  pid_t pid;
  struct mapping *mappings;
  size_t mapping_count;
  struct module *modules;
  size_t module_count;
  bool has_foreign_allocator;
};

/* Reads /proc/PID/maps and the modules' headers. 0 or a negative errno. */
int modules_read(struct modules *modules, pid_t pid);
void modules_free(struct modules *modules);

const struct mapping *modules_mapping(const struct modules *modules, uint64_t address);
/* Module that `address` lies in, its bss included; null if none. */
const struct module *modules_at(const struct modules *modules, uint64_t address);
const struct module *modules_libc(const struct modules *modules);
/* Address of a symbol in libc, or before glibc 2.34 in libpthread and libdl. 0 if none. */
uint64_t modules_runtime_symbol(const struct modules *modules, const char *name);

#endif
