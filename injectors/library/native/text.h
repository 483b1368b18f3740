// Strings without libc: lengths, prefixes, hashes, and a bounded builder.
#ifndef GPUTAP_TEXT_H
#define GPUTAP_TEXT_H

#include <stddef.h>
#include <stdint.h>

namespace gputap {

inline size_t text_length(const char *text, size_t most) {
  size_t n = 0;
  while (n < most && text[n]) n++;
  return n;
}

inline bool text_starts(const char *text, size_t length, const char *prefix) {
  size_t n = __builtin_strlen(prefix);
  return length >= n && __builtin_memcmp(text, prefix, n) == 0;
}

inline bool text_ends(const char *text, size_t length, const char *suffix) {
  size_t n = __builtin_strlen(suffix);
  return length >= n && __builtin_memcmp(text + length - n, suffix, n) == 0;
}

inline uint64_t load_word(const char *at) {
  uint64_t word;
  __builtin_memcpy(&word, at, 8);
  return word;
}

// A multiply-and-fold step: every bit of `word` reaches every bit of the result.
inline uint64_t hash_step(uint64_t hash, uint64_t word) {
  unsigned __int128 product = (unsigned __int128)(hash ^ word) * 0x9e3779b97f4a7c15ull;
  return (uint64_t)product ^ (uint64_t)(product >> 64);
}

// Never 0, so that 0 can mean an empty slot.
inline uint64_t hash_text(const char *text, size_t length) {
  uint64_t hash = 0x2545f4914f6cdd1dull + length;
  size_t left = length;
  for (; left >= 8; left -= 8, text += 8) hash = hash_step(hash, load_word(text));
  uint64_t tail = 0;
  for (size_t i = 0; i < left; i++) tail |= (uint64_t)(uint8_t)text[i] << 8 * i;
  hash = hash_step(hash, tail + 0x632be59bd9b4e019ull);
  return hash ? hash : 1;
}

// Appends to a fixed buffer and stays silent when it is full; `end()` terminates.
class Text {
 public:
  Text(char *buffer, size_t capacity) : start_(buffer), at_(buffer), end_(buffer + capacity - 1) {}

  Text &operator<<(const char *text) {
    while (*text && at_ < end_) *at_++ = *text++;
    return *this;
  }

  Text &operator<<(int64_t number) {
    char digits[24];
    int n = 0;
    uint64_t rest = number < 0 ? -(uint64_t)number : (uint64_t)number;
    do digits[n++] = (char)('0' + rest % 10);
    while (rest /= 10);
    if (number < 0 && at_ < end_) *at_++ = '-';
    while (n && at_ < end_) *at_++ = digits[--n];
    return *this;
  }

  Text &bytes(const char *text, size_t length) {
    for (size_t i = 0; i < length && at_ < end_; i++) *at_++ = text[i];
    return *this;
  }

  size_t room() const { return (size_t)(end_ - at_); }
  size_t length() const { return (size_t)(at_ - start_); }

  const char *end() {
    *at_ = 0;
    return start_;
  }

 private:
  char *start_, *at_, *end_;
};

}  // namespace gputap

#endif
