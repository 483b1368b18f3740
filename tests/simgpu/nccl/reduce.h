/* The arithmetic of the collectives. */
#ifndef SIMGPU_REDUCE_H
#define SIMGPU_REDUCE_H
#include <stdbool.h>
#include <stdint.h>

#include "abi.h"

struct reduction {
  nccl_type type;
  nccl_op op;               /* a built-in one; NCCL_SUM for a pre-multiplied sum */
  bool scales;              /* each contribution is multiplied by `scalar` first */
  const void *scalar_there; /* device memory, read when the collective runs; or NULL */
  uint64_t scalar;          /* a value of `type` in the low bytes */
};

/* 0 for what is no type. */
size_t reduce_type_size(nccl_type type);
/* False for types that only move (8-bit floats). */
bool reduce_is_possible(nccl_type type);

/*
 * into[i] = from[0][i] op from[1][i] ..., in the order of ranks and rounded to the type at each
 * step: all ranks get the same bits. `into` may lie over none of `from`.
 */
void reduce(const struct reduction *reduction, void *into, const void *const *from, int ranks,
            size_t count);

#endif
