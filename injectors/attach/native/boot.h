/* What gputap-inject and the bootstrap thread in the target share: one data page. */
#ifndef GPUTAP_BOOT_H
#define GPUTAP_BOOT_H

#include <stddef.h>
#include <stdint.h>

#include "../../library/native/enter.h"

/* Whose turn it is. Each side waits only for the other's states, and never for ever. */
enum gputap_boot_state {
  BOOT_STARTED = 1,     /* set before the thread runs */
  BOOT_NEEDS_FILE = 2,  /* thread: fill my memfd, or give me a path */
  BOOT_FILE_READY = 3,  /* injector: `path` can be loaded */
  BOOT_LOAD_FAILED = 4, /* thread: dlopen refused, see `error` */
  BOOT_GIVE_UP = 5,     /* injector: no other way left, end */
  BOOT_DONE = 6,        /* thread: `status` is the answer */
  BOOT_READ = 7,        /* injector: answer read, the page may go */
};

struct gputap_boot {
  /* Offsets 0, 8, 16 are known to the assembly of the entry. */
  void *page;
  uint64_t page_size;
  int (*munmap)(void *, size_t);

  int (*pthread_detach)(uint64_t);
  char *(*dlerror)(void);
  int (*resident_enter)(struct gputap_enter *); /* null: load the agent first */
  uint64_t thread;                              /* pthread_t of the thread itself */
  uint32_t state;                               /* enum gputap_boot_state */
  uint32_t patience; /* turns that the thread waits for the injector, about a millisecond each */
  int32_t memfd;     /* of the thread; negative errno if the kernel gave none */
  int32_t lowest_fd; /* the memfd's number is moved to here or above */
  int32_t tid;       /* of the thread, in the target's pid namespace */
  int32_t status;    /* gputap_agent_enter's answer, or a negative errno */
  struct gputap_enter enter;
  char memfd_name[32];
  char enter_name[32];
  char path[192];
  char error[256];
};

_Static_assert(offsetof(struct gputap_boot, page) == 0, "known to gputap_boot_entry");
_Static_assert(offsetof(struct gputap_boot, page_size) == 8, "known to gputap_boot_entry");
_Static_assert(offsetof(struct gputap_boot, munmap) == 16, "known to gputap_boot_entry");
_Static_assert(sizeof(struct gputap_boot) <= 4096, "one page");

/* The bootstrap's code lies in one section, which is copied into the target as it is. */
#define BOOT_TEXT __attribute__((section("gputap_boot"), used, noinline))

void gputap_boot_run(struct gputap_boot *boot);
extern const unsigned char __start_gputap_boot[], __stop_gputap_boot[];
extern const unsigned char gputap_boot_entry[]; /* takes a struct gputap_boot * */

#endif
