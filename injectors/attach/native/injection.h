/* One injection: what is asked, what is known, what came of it. */
#ifndef GPUTAP_INJECTION_H
#define GPUTAP_INJECTION_H

#include "arch.h"
#include "boot.h"
#include "modules.h"
#include "window.h"

enum {
  BOOT_PAGE = 4096,
  BOOT_SIZE = 2 * BOOT_PAGE, /* code, then data */
  MAX_THREADS = 8192,
  CALL_MS = 3000, /* for one call in the target; usually it takes 0.1 ms */
};

struct injection {
  /* asked */
  pid_t pid;
  const char *agent; /* path of the library, as we see it */
  unsigned timeout_ms;
  uint32_t ring_count, ring_capacity;
  bool dry_run, trust_seccomp;

  /* known */
  uint64_t deadline_ns;
  uint64_t abi[2];
  bool has_interpreter; /* the executable names a loader */
  const unsigned char *library;
  size_t library_size;
  struct modules modules;
  struct arch_gadgets gadgets;
  uint64_t dlopen, dlsym, dlerror, munmap, sleep, pthread_create, pthread_detach;
  uint64_t resident_enter; /* 0: the agent has to be loaded */
  long long filters;       /* seccomp filters that were found harmless */

  /* came of it */
  pid_t tid;       /* the thread that was stopped */
  uint64_t thread; /* pthread_t of the one that it made */
  uint64_t page;
  unsigned stops;
  uint64_t resolve_ns, pause_ns, load_ns;
  int control_fd;
};

/* Each step either succeeds or ends the helper through refuse(). In this order: */
void preflight(struct injection *injection); /* may it be tapped, is it of a kind that can be */
void resolve(struct injection *injection);   /* addresses; reads only */
void check_seccomp(
    struct injection *injection); /* stops a thread for a moment if there is a filter */
void create_thread(struct injection *injection); /* pauses one thread of the target */
void start_boot(struct injection *injection);    /* works on the new thread; the target runs */
void load_agent(struct injection *injection);    /* handshake with the bootstrap; the target runs */

#endif
