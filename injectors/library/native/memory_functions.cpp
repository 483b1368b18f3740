// The functions that a compiler may call even in freestanding code.
#include <stddef.h>
#include <stdint.h>

// Built without loop idiom recognition (see CMakeLists.txt): it would turn these into calls of
// themselves.
extern "C" {

void *memcpy(void *to, const void *from, size_t count) {
  char *out = (char *)to;
  const char *in = (const char *)from;
  for (; count >= 8; count -= 8, in += 8, out += 8) {
    uint64_t word;
    __builtin_memcpy(&word, in, 8);
    __builtin_memcpy(out, &word, 8);
  }
  while (count--) *out++ = *in++;
  return to;
}

void *memmove(void *to, const void *from, size_t count) {
  if ((uintptr_t)to - (uintptr_t)from >= count) return memcpy(to, from, count);
  char *out = (char *)to + count;
  const char *in = (const char *)from + count;
  while (count--) *--out = *--in;
  return to;
}

void *memset(void *to, int byte, size_t count) {
  char *out = (char *)to;
  uint64_t word = 0x0101010101010101ull * (uint8_t)byte;
  for (; count >= 8; count -= 8, out += 8) __builtin_memcpy(out, &word, 8);
  while (count--) *out++ = (char)byte;
  return to;
}

size_t strlen(const char *text) {
  size_t length = 0;
  while (text[length]) length++;
  return length;
}

int memcmp(const void *left, const void *right, size_t count) {
  const uint8_t *a = (const uint8_t *)left, *b = (const uint8_t *)right;
  for (size_t i = 0; i < count; i++)
    if (a[i] != b[i]) return a[i] - b[i];
  return 0;
}
}
