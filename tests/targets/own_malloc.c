/* A preloaded malloc, as jemalloc is: it notices when a thread enters it twice, and dies of it. */
#include <stdlib.h>
#include <string.h>

enum { LARGE = 2000, RECYCLED = 1 << 26, KEPT = 1 << 26 };
static __thread volatile int inside;
static char recycled[RECYCLED], kept[KEPT];
static size_t recycled_used, kept_used;

static void *take(size_t size) {
  if (inside) {
    abort();
  }
  inside = 1;
  for (volatile int i = 0; i < 20000; i++) { /* most of the time is spent in here */
  }
  char *block;
  if (size >= LARGE) { /* the busy loop's: nobody minds if they are given out twice */
    recycled_used = recycled_used + size < RECYCLED - 65536 ? recycled_used + size : 0;
    block = recycled + (recycled_used & ~63ul);
  } else {
    block = kept + kept_used;
    kept_used += (size + 63) & ~63ul;
  }
  inside = 0;
  return block;
}

void *malloc(size_t size) { return take(size); }
void free(void *block) { (void)block; }
void *calloc(size_t count, size_t size) { return memset(take(count * size), 0, count * size); }

void *memalign(size_t alignment, size_t size) {
  char *block = take(size + alignment);
  return block + (alignment - (size_t)block % alignment) % alignment;
}

void *aligned_alloc(size_t alignment, size_t size) { return memalign(alignment, size); }

void *realloc(void *block, size_t size) {
  char *larger = take(size);
  for (size_t i = 0; block && i < size; i++) {
    larger[i] = ((char *)block)[i];
  }
  return larger;
}
