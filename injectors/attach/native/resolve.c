/* Everything that has to be known about the target's memory, and about the library, before the
 * stop. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "injection.h"
#include "process.h"
#include "report.h"

static void read_library(struct injection *injection) {
  struct stat info;
  const int fd = open(injection->agent, O_RDONLY | O_CLOEXEC);
  if (fd < 0 || fstat(fd, &info) != 0 || info.st_size == 0) {
    refuse("agent_missing", "the agent library %s cannot be read: %s", injection->agent,
           strerror(errno));
  }
  injection->library_size = (size_t)info.st_size;
  injection->library = mmap(NULL, injection->library_size, PROT_READ, MAP_PRIVATE, fd, 0);
  close(fd);
  struct elf_file file = {injection->library, injection->library_size};
  struct elf_image image;
  if (injection->library == MAP_FAILED || !elf_open(&image, elf_file_read, &file, 0)) {
    refuse("agent_missing", "%s is not a library for " ARCH_NAME, injection->agent);
  }
  const uint64_t abi = elf_find(&image, "gputap_agent_abi");
  if (!abi || !elf_file_read(&file, abi, injection->abi, sizeof injection->abi) ||
      !elf_find(&image, "gputap_agent_enter")) {
    refuse("agent_missing", "%s is not gputap's agent: it exports no gputap_agent_abi",
           injection->agent);
  }
}

static void find_libc(const struct injection *injection) {
  const struct module *libc = modules_libc(&injection->modules);
  if (!libc && !injection->has_interpreter) {
    refuse("static",
           "process %d runs a statically linked executable: it has no loader to take a library in",
           injection->pid);
  }
  if (!libc) {
    refuse("no_libc", "process %d has no C library mapped that we know", injection->pid);
  }
  if (libc->is_musl) {
    refuse("musl", "process %d runs on musl; gputap needs glibc", injection->pid);
  }
  /* clock_gettime moved into libc in 2.17, the oldest glibc that the agent is built for. */
  if (!elf_find(&libc->image, "clock_gettime")) {
    refuse("old_libc", "process %d runs on a glibc older than 2.17 (%s)", injection->pid,
           libc->name);
  }
}

static uint64_t need(const struct injection *injection, const char *name) {
  const uint64_t address = modules_runtime_symbol(&injection->modules, name);
  if (!address) {
    refuse("missing_symbol", "process %d has no %s: its program links no %s", injection->pid, name,
           strstr(name, "pthread") ? "libpthread" : "libdl");
  }
  return address;
}

static bool search_mapping(struct injection *injection, const struct mapping *mapping) {
  const size_t size = mapping->end - mapping->start;
  unsigned char *text = malloc(size);
  const bool found = text && read_memory(injection->pid, mapping->start, text, size) &&
                     arch_find_gadgets(text, size, mapping->start, &injection->gadgets);
  free(text);
  return found;
}

static void find_gadgets(struct injection *injection) {
  const struct modules *modules = &injection->modules;
  for (size_t i = 0; i < modules->mapping_count; i++) {
    const struct mapping *mapping = &modules->mappings[i];
    if (mapping->access[2] == 'x' && mapping->module >= 0 &&
        modules->modules[mapping->module].kind == MODULE_RUNTIME &&
        search_mapping(injection, mapping)) {
      return;
    }
  }
  refuse("no_libc", "the C library of process %d has no code that we can call", injection->pid);
}

/* A resident agent of our very build is called again; any other is left alone beside the new one.
 */
static void find_resident(struct injection *injection) {
  const struct modules *modules = &injection->modules;
  for (size_t i = 0; i < modules->module_count; i++) {
    const struct module *module = &modules->modules[i];
    uint64_t abi[2];
    const uint64_t at =
        module->kind == MODULE_AGENT ? elf_find(&module->image, "gputap_agent_abi") : 0;
    if (at && read_memory(injection->pid, at, abi, sizeof abi) &&
        memcmp(abi, injection->abi, sizeof abi) == 0) {
      injection->resident_enter = elf_find(&module->image, "gputap_agent_enter");
    }
  }
}

void resolve(struct injection *injection) {
  const uint64_t start = now_ns();
  if (injection->agent) {
    read_library(injection);
  }
  const int error = modules_read(&injection->modules, injection->pid);
  if (error) {
    refuse("no_process", "the memory map of process %d cannot be read: %s", injection->pid,
           strerror(-error));
  }
  find_libc(injection);
  find_gadgets(injection);
  injection->pthread_create = need(injection, "pthread_create");
  injection->pthread_detach = need(injection, "pthread_detach");
  injection->gadgets.raise = need(injection, "raise");
  injection->sleep = need(injection, "sleep");
  injection->munmap = need(injection, "munmap");
  injection->dlopen = need(injection, "dlopen");
  injection->dlsym = need(injection, "dlsym");
  injection->dlerror = need(injection, "dlerror");
  find_resident(injection);
  injection->resolve_ns = now_ns() - start;
}
