/* A parent in vfork for a second: state D, out of any tracer's reach. argv[1]: also an idle thread.
 */
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void *idle(void *nothing) {
  poll(NULL, 0, -1);
  return nothing;
}

int main(int argc, char **argv) {
  pthread_t thread;
  (void)argv;
  if (argc > 1) {
    pthread_create(&thread, NULL, idle, NULL);
  }
  puts("ready");
  fflush(stdout);
  const pid_t child = vfork();
  if (child == 0) {
    const struct timespec pause = {1, 500000000};
    syscall(SYS_nanosleep, &pause, NULL);
    _exit(7);
  }
  int status;
  waitpid(child, &status, 0);
  printf("%d\n", WEXITSTATUS(status));
  return 0;
}
