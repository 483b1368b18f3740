/* The fault `names_freed`: a kernel's name lives as long as the buffer of its record, no longer. */
#include <stdlib.h>
#include <string.h>

#include "tracer.h"

struct name {
  struct name *next;
  char text[];
};

void names_free(struct name *name) {
  while (name) {
    struct name *next = name->next;
    memset(name->text, '?', strlen(name->text)); /* as if another module had moved in */
    free(name);
    name = next;
  }
}

void names_move(struct record *record, struct name **names) {
  uint32_t kind;
  uint64_t text;
  memcpy(&kind, record->bytes, sizeof kind);
  if (kind != CUPTI_ABI_KIND_CONCURRENT_KERNEL && kind != CUPTI_ABI_KIND_KERNEL) return;
  memcpy(&text, record->bytes + CUPTI_ABI_KERNEL_NAME, sizeof text);
  if (!text || simgpu_fault("names_freed", 0) == 0) return;
  const size_t size = strlen((const char *)(uintptr_t)text) + 1;
  struct name *name = malloc(sizeof *name + size);
  memcpy(name->text, (const char *)(uintptr_t)text, size);
  name->next = *names;
  *names = name;
  PUT(record, KERNEL_NAME, (uintptr_t)name->text);
}
