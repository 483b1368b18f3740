/* Waits, in many ways out of the ordinary. argv[1]: undumpable, or nothing. */
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>

int main(int argc, char **argv) {
  if (argc > 1 && strcmp(argv[1], "undumpable") == 0) {
    prctl(PR_SET_DUMPABLE, 0);
  }
  puts("ready");
  fflush(stdout);
  poll(NULL, 0, -1);
  return 0;
}
