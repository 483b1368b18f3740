/* Copies and fills, as runtime and driver both ask for them. */
#ifndef SIMGPU_COPY_H
#define SIMGPU_COPY_H
#include "simgpu.h"

enum simgpu_direction {
  SIMGPU_BY_POINTERS,
  SIMGPU_TO_DEVICE,
  SIMGPU_FROM_DEVICE,
  SIMGPU_ON_DEVICE,
  SIMGPU_ON_HOST,
};

/* Blocks where the real one does: for pageable memory; with `wait`, for what touches the host. */
int simgpu_copy(struct simgpu_rows to, struct simgpu_rows from, size_t width, size_t height,
                enum simgpu_direction direction, bool wait, struct simgpu_stream *stream);
int simgpu_fill(struct simgpu_rows to, size_t width, size_t height, uint32_t value,
                uint8_t element_size, bool asynchronous, struct simgpu_stream *stream);
/* The operation that simgpu_copy and simgpu_fill would enqueue, for nodes of graphs. */
int simgpu_copy_describe(struct simgpu_rows to, struct simgpu_rows from, size_t width,
                         size_t height, enum simgpu_direction direction,
                         struct simgpu_operation *operation);
int simgpu_fill_describe(struct simgpu_rows to, size_t width, size_t height, uint32_t value,
                         uint8_t element_size, struct simgpu_operation *operation);

#endif
