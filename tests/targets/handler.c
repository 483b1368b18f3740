/* Signal handlers interrupt malloc a thousand times a second, and take their time: a thread in the
   handler is outside libc, and yet inside malloc. Between rounds it is outside of both for long
   enough that a stop can land there. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>

static void on_signal(int number) {
  (void)number;
  for (volatile int i = 0; i < 400000; i++) {
  }
}

int main(void) {
  const struct itimerval interval = {{0, 1000}, {0, 1000}};
  signal(SIGALRM, on_signal);
  setitimer(ITIMER_REAL, &interval, NULL);
  puts("ready");
  fflush(stdout);
  for (;;) {
    char *blocks[16];
    for (int i = 0; i < 16; i++) {
      blocks[i] = malloc(3000 + (size_t)i * 5000);
      blocks[i][0] = 1;
    }
    for (int i = 0; i < 16; i++) {
      free(blocks[i]);
    }
    for (volatile int i = 0; i < 40000; i++) {
    }
  }
}
