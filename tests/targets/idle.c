/* Waits, after having made things difficult. argv[1]: undumpable, no-new-code, no-threads, nothing.
 */
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>

int main(int argc, char **argv) {
  if (argc > 1 && strcmp(argv[1], "undumpable") == 0) {
    prctl(PR_SET_DUMPABLE, 0);
  }
  if (argc > 1 && strcmp(argv[1], "no-new-code") == 0 && prctl(65 /* PR_SET_MDWE */, 1, 0, 0, 0)) {
    puts("unknown");
    return 0;
  }
  if (argc > 1 && strcmp(argv[1], "no-threads") == 0) {
    setrlimit(RLIMIT_NPROC, &(struct rlimit){0, 0});
  }
  puts("ready");
  fflush(stdout);
  poll(NULL, 0, -1);
  return 0;
}
