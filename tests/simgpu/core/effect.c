/* What copies and fills do to memory. Kernels do nothing: who wants their results computes them. */
#include <string.h>

#include "graph_internal.h"

static void fill_row(uint8_t *row, size_t bytes, uint32_t value, uint8_t element_size) {
  if (element_size <= 1) {
    memset(row, (int)value, bytes);
    return;
  }
  for (size_t at = 0; at + element_size <= bytes; at += element_size) {
    memcpy(row + at, &value, element_size); /* little endian: the low bytes come first */
  }
}

static void apply_rows(const struct simgpu_operation *operation) {
  uint8_t *to = operation->to.start;
  const uint8_t *from = operation->from.start;
  for (size_t row = 0; row < operation->height; row++) {
    if (operation->kind == SIMGPU_MEMCPY) {
      memmove(to, from, operation->width);
      from += operation->from.pitch;
    } else {
      fill_row(to, operation->width, operation->value, operation->element_size);
    }
    to += operation->to.pitch;
  }
}

void effect_apply(const struct simgpu_operation *operation) {
  switch (operation->kind) {
  case SIMGPU_MEMCPY:
  case SIMGPU_MEMSET:
    if (operation->to.start) apply_rows(operation);
    break;
  case SIMGPU_FREE:
    simgpu_memory_free(operation->payload);
    break;
  case SIMGPU_HOST: /* a node of a graph: at once, on the thread that resolves the launch */
    if (operation->payload) host_call_run(operation->payload);
    break;
  case SIMGPU_GRAPH:
    graph_perform(operation);
    break;
  default:
    break;
  }
}
