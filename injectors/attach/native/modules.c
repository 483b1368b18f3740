#include "modules.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arch.h"
#include "process.h"

enum { MAX_LINE = 4400 };

static bool read_target(void *context, uint64_t address, void *to, size_t size) {
  return read_memory((pid_t)(intptr_t)context, address, to, size);
}

static void *grown(void *array, size_t count, size_t size) {
  if (count & (count - 1)) { /* capacity doubles at powers of two */
    return array;
  }
  void *larger = realloc(array, (count ? 2 * count : 1) * size);
  if (!larger) {
    abort(); /* before any stop: nothing is lost but ourselves */
  }
  return larger;
}

static bool starts_with(const char *text, const char *start) {
  return strncmp(text, start, strlen(start)) == 0;
}

static bool is_agent(const char *path, const char *file) {
  return starts_with(path, "/memfd:gputap-agent") || starts_with(file, ".gputap-agent-");
}

static bool is_loader(const char *name) {
  return starts_with(name, "ld-linux") || starts_with(name, "ld-2.") ||
         starts_with(name, "ld-musl");
}

static bool is_libc(const char *name) {
  return starts_with(name, "libc.so") || starts_with(name, "libc-2.") ||
         starts_with(name, "libc.musl-") || starts_with(name, "ld-musl");
}

static bool is_runtime(const char *name) {
  return is_libc(name) || is_loader(name) || starts_with(name, "libpthread") ||
         starts_with(name, "libdl.so") || starts_with(name, "libdl-2.") ||
         starts_with(name, "libgcc_s");
}

static bool is_allocator(const struct module *module, const char *file) {
  return strstr(file, "jemalloc") || strstr(file, "tcmalloc") || strstr(file, "mimalloc") ||
         elf_find(&module->image, "malloc") != 0;
}

/* By soname and by file name: either may be missing or unusual. */
static void classify(struct module *module) {
  const char *slash = strrchr(module->name, '/');
  const char *file = slash ? slash + 1 : module->name;
  char soname[64];
  elf_soname(&module->image, soname, sizeof soname);
  module->is_libc = is_libc(soname) || is_libc(file);
  module->is_musl = strstr(soname, "musl") || starts_with(file, "ld-musl");
  if (is_agent(module->name, file)) {
    module->kind = MODULE_AGENT;
  } else if (is_loader(soname) || is_loader(file)) {
    module->kind = MODULE_LOADER;
  } else if (is_runtime(soname) || is_runtime(file)) {
    module->kind = MODULE_RUNTIME;
  } else if (is_allocator(module, file)) {
    module->kind = MODULE_ALLOCATOR;
  }
}

/* Index of the module that begins at `start`, or -1 if no ELF image does. */
static int add_module(struct modules *all, uint64_t start, const char *name) {
  struct module module = {.kind = MODULE_OTHER};
  if (!elf_open(&module.image, read_target, (void *)(intptr_t)all->pid, start)) {
    return -1;
  }
  snprintf(module.name, sizeof module.name, "%s", name);
  all->modules = grown(all->modules, all->module_count, sizeof module);
  all->modules[all->module_count] = module;
  return (int)all->module_count++;
}

/* A file's later mappings belong to its module, and so does the bss: anonymous, writable, adjacent.
 */
static int continued_module(const struct modules *all, const struct mapping *mapping,
                            const char *name) {
  if (all->mapping_count == 0) {
    return -1;
  }
  const struct mapping *before = &all->mappings[all->mapping_count - 1];
  if (before->module < 0) {
    return -1;
  }
  if (mapping->is_named) {
    return strcmp(all->modules[before->module].name, name) == 0 ? before->module : -1;
  }
  return !*name && before->end == mapping->start && before->access[1] == 'w' &&
                 mapping->access[1] == 'w' && before->is_named
             ? before->module
             : -1;
}

static void take_line(struct modules *all, char *line) {
  struct mapping mapping = {.module = -1};
  unsigned long long start, end, offset;
  int name_at = 0;
  line[strcspn(line, "\n")] = '\0';
  if (sscanf(line, "%llx-%llx %4s %llx %*s %*s %n", &start, &end, mapping.access, &offset,
             &name_at) < 4) {
    return;
  }
  const char *name = name_at ? line + name_at : "";
  char short_name[sizeof all->modules->name];
  snprintf(short_name, sizeof short_name, "%s", name);
  mapping.start = start;
  mapping.end = end;
  mapping.is_named = name[0] == '/';
  mapping.is_stack = strcmp(name, "[stack]") == 0;
  mapping.is_vdso = strcmp(name, "[vdso]") == 0;
  if (mapping.is_named && offset == 0 && mapping.access[0] == 'r' && mapping.access[1] != 'w') {
    mapping.module = add_module(all, start, short_name);
  } else {
    mapping.module = continued_module(all, &mapping, short_name);
  }
  all->mappings = grown(all->mappings, all->mapping_count, sizeof mapping);
  all->mappings[all->mapping_count++] = mapping;
}

/* A library mapped only to be read (by a debugger, by torch's own tools) is no code of the target.
 */
static void forget_unexecutable(struct modules *all) {
  bool *executable = calloc(all->module_count + 1, sizeof *executable);
  if (!executable) {
    abort();
  }
  for (size_t i = 0; i < all->mapping_count; i++) {
    if (all->mappings[i].module >= 0 && all->mappings[i].access[2] == 'x') {
      executable[all->mappings[i].module] = true;
    }
  }
  for (size_t i = 0; i < all->module_count; i++) {
    if (executable[i]) {
      classify(&all->modules[i]);
      all->has_foreign_allocator |= all->modules[i].kind == MODULE_ALLOCATOR;
    } else {
      all->modules[i].image.has_dynamic = false;
      all->modules[i].image.strings = 0;
    }
  }
  free(executable);
}

int modules_read(struct modules *all, pid_t pid) {
  char path[64], line[MAX_LINE];
  *all = (struct modules){.pid = pid};
  snprintf(path, sizeof path, "/proc/%d/maps", pid);
  FILE *maps = fopen(path, "re");
  if (!maps) {
    return -errno;
  }
  errno = 0;
  while (fgets(line, sizeof line, maps)) {
    take_line(all, line);
  }
  const int error = ferror(maps) ? errno : 0;
  fclose(maps);
  forget_unexecutable(all);
  return -error;
}

void modules_free(struct modules *all) {
  free(all->mappings);
  free(all->modules);
  *all = (struct modules){0};
}

const struct mapping *modules_mapping(const struct modules *all, uint64_t address) {
  size_t low = 0, high = all->mapping_count;
  while (low < high) {
    const size_t middle = (low + high) / 2;
    if (address >= all->mappings[middle].end) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low < all->mapping_count && address >= all->mappings[low].start ? &all->mappings[low]
                                                                         : NULL;
}

const struct module *modules_at(const struct modules *all, uint64_t address) {
  const struct mapping *mapping = modules_mapping(all, address);
  return mapping && mapping->module >= 0 ? &all->modules[mapping->module] : NULL;
}

const struct module *modules_libc(const struct modules *all) {
  for (size_t i = 0; i < all->module_count; i++) {
    if (all->modules[i].is_libc) {
      return &all->modules[i];
    }
  }
  return NULL;
}

uint64_t modules_runtime_symbol(const struct modules *all, const char *name) {
  for (size_t i = 0; i < all->module_count; i++) {
    if (all->modules[i].kind == MODULE_RUNTIME) {
      const uint64_t address = elf_find(&all->modules[i].image, name);
      if (address) {
        return address;
      }
    }
  }
  return 0;
}
