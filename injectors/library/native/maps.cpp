#include "maps.h"

#include "sys.h"
#include "text.h"

namespace gputap {

namespace {

constexpr size_t kLongestLine = 1024;

uint64_t take_hex(const char **at) {
  uint64_t value = 0;
  for (;; ++*at) {
    char c = **at;
    if (c >= '0' && c <= '9')
      value = value << 4 | (uint64_t)(c - '0');
    else if (c >= 'a' && c <= 'f')
      value = value << 4 | (uint64_t)(c - 'a' + 10);
    else
      return value;
  }
}

// "7f00-7f10 rw-p 00000000 08:01 1234    /path". The line is terminated.
Mapping parse(const char *line, size_t length) {
  Mapping mapping = {0, 0, false, false, line + length, 0};
  const char *at = line;
  mapping.start = take_hex(&at);
  if (*at++ != '-') return mapping;
  mapping.end = take_hex(&at);
  if (*at++ != ' ') return mapping;
  mapping.readable = at[0] == 'r';
  mapping.writable = at[0] && at[1] == 'w';
  for (size_t i = (size_t)(at - line); i < length; i++) {
    if (line[i] != '/' && line[i] != '[') continue;
    mapping.path = line + i;
    mapping.path_length = length - i;
    break;
  }
  return mapping;
}

}  // namespace

bool maps_find(bool (*visit)(const Mapping &, void *), void *context) {
  int fd = (int)sys::call(sys::kOpenat, -100, (long)"/proc/self/maps", 0x80000 /* O_CLOEXEC */);
  if (fd < 0) return false;
  char buffer[4096], line[kLongestLine];
  size_t length = 0;
  bool found = false;
  for (long got; !found && (got = sys::call(sys::kRead, fd, (long)buffer, sizeof buffer)) > 0;) {
    for (long i = 0; i < got && !found; i++) {
      if (buffer[i] != '\n') {
        if (length < kLongestLine - 1) line[length++] = buffer[i];
        continue;
      }
      line[length] = 0;
      found = visit(parse(line, length), context);
      length = 0;
    }
  }
  sys::close(fd);
  return found;
}

bool is_mapping_of(const Mapping &mapping, const char *stem) {
  size_t name = mapping.path_length;
  while (name && mapping.path[name - 1] != '/') name--;
  return name && text_starts(mapping.path + name, mapping.path_length - name, stem);
}

}  // namespace gputap
