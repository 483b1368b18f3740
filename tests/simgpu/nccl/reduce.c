#include "reduce.h"

#include <math.h>
#include <string.h>

#include "half.h"

enum { STEPS = 4 }; /* sum, prod, max, min */

typedef void (*step)(void *into, const void *from, size_t count);
typedef void (*scaling)(void *values, uint64_t scalar, size_t count);
typedef void (*division)(void *values, int ranks, size_t count);

struct arithmetic {
  step steps[STEPS];
  scaling scale;
  division divide; /* integers' average; floats are scaled by 1/n before instead, as NCCL does */
};

#define STEP(name, stored, load, store, expression)                                                \
  static void name(void *into, const void *from, size_t count) {                                   \
    stored *restrict values = into;                                                                \
    const stored *restrict others = from;                                                          \
    for (size_t i = 0; i < count; i++) {                                                           \
      const __typeof__(load(values[i])) a = load(values[i]), b = load(others[i]);                  \
      values[i] = store(expression);                                                               \
    }                                                                                              \
  }

#define SCALE(name, stored, load, store)                                                           \
  static void name(void *into, uint64_t scalar, size_t count) {                                    \
    stored *values = into, by;                                                                     \
    memcpy(&by, &scalar, sizeof by);                                                               \
    for (size_t i = 0; i < count; i++) {                                                           \
      values[i] = store(load(values[i]) * load(by));                                               \
    }                                                                                              \
  }

#define DIVIDE(name, stored)                                                                       \
  static void name(void *into, int ranks, size_t count) {                                          \
    stored *values = into;                                                                         \
    for (size_t i = 0; i < count; i++) {                                                           \
      values[i] = (stored)(values[i] / (stored)ranks);                                             \
    }                                                                                              \
  }

/* Sums and products in the unsigned type: they wrap around, as on the device. */
#define INTEGER(tag, type, wide)                                                                   \
  STEP(tag##_sum, type, (wide), (type), a + b)                                                     \
  STEP(tag##_prod, type, (wide), (type), a *b)                                                     \
  STEP(tag##_max, type, (type), (type), a > b ? a : b)                                             \
  STEP(tag##_min, type, (type), (type), a < b ? a : b)                                             \
  SCALE(tag##_scale, type, (wide), (type))                                                         \
  DIVIDE(tag##_divide, type)

#define FLOATING(tag, stored, load, store, largest, smallest)                                      \
  STEP(tag##_sum, stored, load, store, a + b)                                                      \
  STEP(tag##_prod, stored, load, store, a *b)                                                      \
  STEP(tag##_max, stored, load, store, largest(a, b))                                              \
  STEP(tag##_min, stored, load, store, smallest(a, b))                                             \
  SCALE(tag##_scale, stored, load, store)

INTEGER(i8, int8_t, uint32_t)
INTEGER(u8, uint8_t, uint32_t)
INTEGER(i32, int32_t, uint32_t)
INTEGER(u32, uint32_t, uint32_t)
INTEGER(i64, int64_t, uint64_t)
INTEGER(u64, uint64_t, uint64_t)
FLOATING(f16, uint16_t, half_to_float, float_to_half, fmaxf, fminf)
FLOATING(bf16, uint16_t, bfloat16_to_float, float_to_bfloat16, fmaxf, fminf)
FLOATING(f32, float, (float), (float), fmaxf, fminf)
FLOATING(f64, double, (double), (double), fmax, fmin)

#define ROW(tag) {{tag##_sum, tag##_prod, tag##_max, tag##_min}, tag##_scale, NULL}
#define INTEGER_ROW(tag) {{tag##_sum, tag##_prod, tag##_max, tag##_min}, tag##_scale, tag##_divide}

static const struct arithmetic kinds[NCCL_TYPE_COUNT] = {
    [NCCL_INT8] = INTEGER_ROW(i8),   [NCCL_UINT8] = INTEGER_ROW(u8),
    [NCCL_INT32] = INTEGER_ROW(i32), [NCCL_UINT32] = INTEGER_ROW(u32),
    [NCCL_INT64] = INTEGER_ROW(i64), [NCCL_UINT64] = INTEGER_ROW(u64),
    [NCCL_FLOAT16] = ROW(f16),       [NCCL_FLOAT32] = ROW(f32),
    [NCCL_FLOAT64] = ROW(f64),       [NCCL_BFLOAT16] = ROW(bf16),
};

size_t reduce_type_size(nccl_type type) {
  static const uint8_t sizes[NCCL_TYPE_COUNT] = {1, 1, 4, 4, 8, 8, 2, 4, 8, 2, 1, 1};
  return (unsigned)type < NCCL_TYPE_COUNT ? sizes[type] : 0;
}

bool reduce_is_possible(nccl_type type) {
  return (unsigned)type < NCCL_TYPE_COUNT && kinds[type].scale;
}

/* 1/n in the type of the data. */
static uint64_t reciprocal(nccl_type type, int ranks) {
  const double value = 1.0 / ranks;
  const float narrow = (float)value;
  uint64_t bits = 0;
  switch (type) {
  case NCCL_FLOAT16:
    return float_to_half(narrow);
  case NCCL_BFLOAT16:
    return float_to_bfloat16(narrow);
  case NCCL_FLOAT32:
    return bits_of_float(narrow);
  default:
    memcpy(&bits, &value, sizeof bits);
    return bits;
  }
}

void reduce(const struct reduction *reduction, void *into, const void *const *from, int ranks,
            size_t count) {
  const struct arithmetic *kind = &kinds[reduction->type];
  const size_t size = reduce_type_size(reduction->type);
  const bool is_average = reduction->op == NCCL_AVG;
  const bool scales = reduction->scales || (is_average && !kind->divide);
  uint64_t scalar = reduction->scalar;
  if (is_average) {
    scalar = reciprocal(reduction->type, ranks);
  } else if (reduction->scalar_there) {
    memcpy(&scalar, reduction->scalar_there, size);
  }
  const step step = kind->steps[is_average ? NCCL_SUM : reduction->op];
  memcpy(into, from[0], count * size);
  if (scales) {
    kind->scale(into, scalar, count);
  }
  uint64_t scaled[512]; /* the others' are not ours to change */
  const size_t most = scales ? sizeof scaled / size : count;
  for (int rank = 1; rank < ranks; rank++) {
    for (size_t done = 0; done < count; done += most) {
      const size_t n = count - done < most ? count - done : most;
      const void *others = (const char *)from[rank] + done * size;
      if (scales) {
        memcpy(scaled, others, n * size);
        kind->scale(scaled, scalar, n);
        others = scaled;
      }
      step((char *)into + done * size, others, n);
    }
  }
  if (is_average && kind->divide) {
    kind->divide(into, ranks, count);
  }
}
