#include "report.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

void print_json_string(const char *text) {
  putchar('"');
  for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
    if (*c == '"' || *c == '\\') {
      printf("\\%c", *c);
    } else if (*c < 0x20 || *c >= 0x7f) {
      /* Names in /proc are bytes, not text: keep the line valid JSON whatever they are. */
      printf("\\u%04x", *c);
    } else {
      putchar(*c);
    }
  }
  putchar('"');
}

void refuse(const char *code, const char *format, ...) {
  char detail[1024];
  va_list args;
  va_start(args, format);
  vsnprintf(detail, sizeof detail, format, args);
  va_end(args);
  printf("{\"error\":\"%s\",\"detail\":", code);
  print_json_string(detail);
  printf("}\n");
  fflush(stdout);
  exit(3);
}

uint64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void sleep_us(unsigned us) {
  const struct timespec pause = {us / 1000000, (long)(us % 1000000) * 1000};
  nanosleep(&pause, NULL);
}

size_t append(char *buffer, size_t size, size_t used, const char *format, ...) {
  va_list args;
  va_start(args, format);
  const int n = vsnprintf(buffer + used, size - used, format, args);
  va_end(args);
  if (n < 0) {
    return used;
  }
  return used + (size_t)n < size ? used + (size_t)n : size - 1;
}
