/* Counts queued realtime signals and checks that each arrives once, in order, with its value. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static volatile int expected, failed;

static void on_signal(int number, siginfo_t *info, void *context) {
  (void)number;
  (void)context;
  failed |= info->si_value.sival_int != expected++;
}

int main(int argc, char **argv) {
  const int total = argc > 1 ? atoi(argv[1]) : 0;
  struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_RESTART};
  sigaction(SIGRTMIN, &action, NULL);
  puts("ready");
  fflush(stdout);
  for (volatile double x = 0; expected < total; x = x + 1) {
  }
  puts(failed ? "out of order" : "all in order");
  fflush(stdout);
  pause();
  return 0;
}
