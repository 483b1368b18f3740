/* Floating-point work whose result is known: exits with 3 the moment a register was lost. */
#include <math.h>
#include <stdio.h>

static double sum(void) {
  double total = 0, sign = 1;
  for (int i = 1; i < 20000; i++) {
    total += sin(i * 0.5) * sign;
    sign = -sign;
  }
  return total;
}

int main(void) {
  const double expected = sum();
  puts("ready");
  fflush(stdout);
  for (;;) {
    if (sum() != expected) {
      puts("wrong");
      return 3;
    }
  }
}
