/* Runs on small stacks out of the heap, with guards around them that nobody may write to. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

enum { STACK = 8192, GUARD = 65536 };
static ucontext_t outside, inside;
static char *memory;

static void spin(void) {
  for (;;) {
    for (volatile int i = 0; i < 200000; i++) {
    }
    swapcontext(&inside, &outside);
  }
}

int main(void) {
  memory = malloc(GUARD + STACK + GUARD);
  memset(memory, 0x5a, GUARD + STACK + GUARD);
  getcontext(&inside);
  inside.uc_stack.ss_sp = memory + GUARD;
  inside.uc_stack.ss_size = STACK;
  makecontext(&inside, spin, 0);
  puts("ready");
  fflush(stdout);
  for (;;) {
    swapcontext(&outside, &inside);
    for (int i = 0; i < GUARD; i++) {
      if (memory[i] != 0x5a || memory[GUARD + STACK + i] != 0x5a) {
        puts("overwritten");
        return 3;
      }
    }
  }
}
