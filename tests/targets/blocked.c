/* Blocks for SECONDS in one system call and prints "RESULT ERRNO MILLISECONDS". argv[1]: which. */
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { SECONDS = 3 };
static const struct timespec some_seconds = {SECONDS, 0};

static struct timespec later(void) {
  struct timespec at;
  clock_gettime(CLOCK_REALTIME, &at);
  at.tv_sec += SECONDS;
  return at;
}

static long do_nanosleep(void) { return nanosleep(&some_seconds, NULL); }
static long do_poll(void) { return poll(NULL, 0, SECONDS * 1000); }
static long do_ppoll(void) { return ppoll(NULL, 0, &some_seconds, NULL); }
static long do_pselect(void) { return pselect(0, NULL, NULL, NULL, &some_seconds, NULL); }

static long do_select(void) {
  struct timeval timeout = {SECONDS, 0};
  return select(0, NULL, NULL, NULL, &timeout);
}

static long do_condition(void) {
  pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
  const struct timespec at = later();
  pthread_mutex_lock(&mutex);
  const int result = pthread_cond_timedwait(&condition, &mutex, &at);
  return result == ETIMEDOUT ? 0 : -result;
}

static long do_semaphore(void) {
  sem_t semaphore;
  const struct timespec at = later();
  sem_init(&semaphore, 0, 0);
  return sem_timedwait(&semaphore, &at) == -1 && errno == ETIMEDOUT ? 0 : -1;
}

static long do_futex(void) {
  static int word;
  const long result = syscall(SYS_futex, &word, FUTEX_WAIT, 0, &some_seconds, NULL, 0);
  return result == -1 && errno == ETIMEDOUT ? 0 : -1;
}

static long do_waitpid(void) {
  const pid_t child = fork();
  if (child == 0) {
    sleep(SECONDS);
    _exit(0);
  }
  return waitpid(child, NULL, 0) == child ? 0 : -1;
}

static long read_after(int domain_socket) {
  int ends[2];
  char byte;
  if (domain_socket ? socketpair(AF_UNIX, SOCK_STREAM, 0, ends) : pipe(ends)) {
    return -1;
  }
  if (fork() == 0) {
    sleep(SECONDS);
    _exit(write(ends[1], "x", 1) != 1);
  }
  return (domain_socket ? recv(ends[0], &byte, 1, 0) : read(ends[0], &byte, 1)) == 1 ? 0 : -1;
}

static long do_read(void) { return read_after(0); }
static long do_recv(void) { return read_after(1); }

static long do_epoll(void) {
  struct epoll_event event;
  return epoll_wait(epoll_create1(0), &event, 1, SECONDS * 1000);
}

static long do_recv_timeout(void) {
  int ends[2];
  char byte;
  const struct timeval timeout = {SECONDS, 0};
  socketpair(AF_UNIX, SOCK_STREAM, 0, ends);
  setsockopt(ends[0], SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
  return recv(ends[0], &byte, 1, 0) == -1 && errno == EAGAIN ? 0 : -1;
}

static long do_sigtimedwait(void) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR2);
  sigprocmask(SIG_BLOCK, &set, NULL);
  return sigtimedwait(&set, NULL, &some_seconds) == -1 && errno == EAGAIN ? 0 : -1;
}

static long do_accept(void) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  const struct timeval timeout = {SECONDS, 0};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
  listen(fd, 1);
  return accept(fd, NULL, NULL) == -1 && errno == EAGAIN ? 0 : -1;
}

static const struct {
  const char *name;
  long (*call)(void);
} calls[] = {
    {"nanosleep", do_nanosleep},
    {"poll", do_poll},
    {"ppoll", do_ppoll},
    {"select", do_select},
    {"pselect", do_pselect},
    {"condition", do_condition},
    {"semaphore", do_semaphore},
    {"futex", do_futex},
    {"waitpid", do_waitpid},
    {"read", do_read},
    {"recv", do_recv},
    {"epoll", do_epoll},
    {"recv_timeout", do_recv_timeout},
    {"sigtimedwait", do_sigtimedwait},
    {"accept", do_accept},
};

int main(int argc, char **argv) {
  struct timespec start, end;
  for (size_t i = 0; argc > 1 && i < sizeof calls / sizeof *calls; i++) {
    if (strcmp(calls[i].name, argv[1]) == 0) {
      puts("ready");
      fflush(stdout);
      clock_gettime(CLOCK_MONOTONIC, &start);
      errno = 0;
      const long result = calls[i].call();
      const int error = errno;
      clock_gettime(CLOCK_MONOTONIC, &end);
      printf("%ld %d %ld\n", result, result ? error : 0,
             (end.tv_sec - start.tv_sec) * 1000 + (end.tv_nsec - start.tv_nsec) / 1000000);
      return 0;
    }
  }
  return 2;
}
