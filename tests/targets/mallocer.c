/* Inside malloc nearly all of the time, on every thread. argv[1]: threads beside the main one. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

static void *work(void *seed) {
  unsigned state = (unsigned)(long)seed;
  char *blocks[64] = {0};
  for (;;) {
    const int i = rand_r(&state) & 63;
    free(blocks[i]);
    blocks[i] = malloc(2000 + rand_r(&state) % 60000);
    if (blocks[i]) {
      *blocks[i] = 1;
    }
  }
  return NULL;
}

int main(int argc, char **argv) {
  const long threads = argc > 1 ? atol(argv[1]) : 0;
  for (long i = 0; i < threads; i++) {
    pthread_t thread;
    pthread_create(&thread, NULL, work, (void *)(i + 2));
  }
  puts("ready");
  fflush(stdout);
  work((void *)1);
}
