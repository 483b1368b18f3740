/* IEEE half and bfloat16 on a CPU that has neither; rounding is to nearest even. */
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
  if ((half & 0x7c00) == 0x7c00) {
    return float_of_bits(sign | magnitude | 0x7f800000);
  }
  /* The exponents' biases are 112 apart; a multiplication does the subnormal ones, too. */
  return float_of_bits(sign | bits_of_float(float_of_bits(magnitude) * 0x1p112f));
}

static inline uint16_t float_to_half(float value) {
  const uint32_t bits = bits_of_float(value);
  const uint16_t sign = bits >> 16 & 0x8000;
  uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude >= bits_of_float(65536)) {
    return sign | (magnitude > 0x7f800000 ? 0x7e00 : 0x7c00);
  }
  if (magnitude < bits_of_float(0x1p-14f)) { /* one half's last place is that of a float 0.5 */
    return sign | (bits_of_float(float_of_bits(magnitude) + 0.5f) - bits_of_float(0.5f));
  }
  magnitude += 0xfff + (magnitude >> 13 & 1);
  return sign | ((magnitude >> 13) - (112 << 10));
}

static inline float bfloat16_to_float(uint16_t bfloat16) {
  return float_of_bits((uint32_t)bfloat16 << 16);
}

static inline uint16_t float_to_bfloat16(float value) {
  const uint32_t bits = bits_of_float(value);
  if ((bits & 0x7fffffff) > 0x7f800000) {
    return (bits >> 16) | 0x40; /* rounding could make an infinity of a NaN */
  }
  return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

#endif
