/* IEEE half and bfloat16 on a CPU that has neither, rounded to nearest even. Without branches, so
   that compilers make vector code of loops. */
#ifndef SIMGPU_HALF_H
#define SIMGPU_HALF_H
#include <stdint.h>
#include <string.h>

static inline float float_of_bits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

static inline uint32_t bits_of_float(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

static inline float half_to_float(uint16_t half) {
  const uint32_t sign = (uint32_t)(half & 0x8000) << 16;
  const uint32_t magnitude = (uint32_t)(half & 0x7fff) << 13;
  /* The exponents' biases are 112 apart; a multiplication does the subnormal ones, too. */
  const uint32_t finite = bits_of_float(float_of_bits(magnitude) * 0x1p112f);
  const uint32_t infinite = magnitude | 0x7f800000;
  return float_of_bits(sign | ((half & 0x7c00) == 0x7c00 ? infinite : finite));
}

static inline uint16_t float_to_half(float value) {
  const uint32_t bits = bits_of_float(value);
  const uint32_t magnitude = bits & 0x7fffffff;
  const uint32_t infinite = magnitude > 0x7f800000 ? 0x7e00 : 0x7c00;
  /* Of a subnormal one, the last place is that of a float between 0.5 and 1. */
  const uint32_t subnormal = bits_of_float(float_of_bits(magnitude) + 0.5f) - 0x3f000000;
  const uint32_t normal = ((magnitude + 0xfff + (magnitude >> 13 & 1)) >> 13) - (112 << 10);
  const uint32_t finite = magnitude < 0x38800000 ? subnormal : normal;          /* 2^-14 */
  return (bits >> 16 & 0x8000) | (magnitude >= 0x47800000 ? infinite : finite); /* 2^16 */
}

static inline float bfloat16_to_float(uint16_t bfloat16) {
  return float_of_bits((uint32_t)bfloat16 << 16);
}

static inline uint16_t float_to_bfloat16(float value) {
  const uint32_t bits = bits_of_float(value);
  const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  const uint32_t not_a_number = bits >> 16 | 0x40; /* rounding could make an infinity of it */
  return (bits & 0x7fffffff) > 0x7f800000 ? not_a_number : rounded;
}

#endif
