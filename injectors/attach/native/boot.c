/*
 * The bootstrap: what the thread that gputap-inject created in the target does.
 *
 * This code is copied into the target, so it may call nothing but the pointers in
 * `struct gputap_boot` and the kernel, and may hold no constants outside its own instructions:
 * no string literals, no tables, no memset. tests/integration/test_inject_binary.py checks that.
 */
#include "boot.h"

#include "boot_arch.h"

enum {
  QUICK_TURNS = 500,
  QUICK_NS = 50000,
  PATIENT_NS = 1000000,
  MEMFD_CLOEXEC = 1,
  MEMFD_EXEC = 0x10,
  GET_DUPLICATE = 1030, /* F_DUPFD_CLOEXEC */
  LOAD_NOW = 2,
  LOAD_NODELETE = 0x1000,
  INVALID = 22,
  NOT_IMPLEMENTED = 38,
  TIMED_OUT = 110,
  CANCELLED = 125,
};

BOOT_TEXT static uint32_t state_of(struct gputap_boot *boot) {
  return __atomic_load_n(&boot->state, __ATOMIC_ACQUIRE);
}

BOOT_TEXT static void say(struct gputap_boot *boot, uint32_t state) {
  __atomic_store_n(&boot->state, state, __ATOMIC_RELEASE);
}

/* The state that follows `state`, or `state` itself when the injector seems to have died. */
BOOT_TEXT static uint32_t wait_while(struct gputap_boot *boot, uint32_t state) {
  volatile long pause[2];
  for (uint32_t turn = 0; turn < boot->patience && state_of(boot) == state; turn++) {
    pause[0] = 0;
    pause[1] = turn < QUICK_TURNS ? QUICK_NS : PATIENT_NS;
    boot_syscall(BOOT_NR_nanosleep, (long)pause, 0, 0, 0);
  }
  return state_of(boot);
}

/* A memfd with a number unlikely to be anyone else's, or a negative errno. */
BOOT_TEXT static int32_t make_memfd(struct gputap_boot *boot) {
  const long name = (long)boot->memfd_name;
  long fd = boot_syscall(BOOT_NR_memfd_create, name, MEMFD_CLOEXEC | MEMFD_EXEC, 0, 0);
  if (fd == -INVALID) { /* before Linux 6.3 there was no MFD_EXEC */
    fd = boot_syscall(BOOT_NR_memfd_create, name, MEMFD_CLOEXEC, 0, 0);
  }
  if (fd < 0) {
    return (int32_t)fd;
  }
  const long high = boot_syscall(BOOT_NR_fcntl, fd, GET_DUPLICATE, boot->lowest_fd, 0);
  if (high < 0) { /* the limit on open files is low: keep the number we have */
    return (int32_t)fd;
  }
  boot_syscall(BOOT_NR_close, fd, 0, 0, 0);
  return (int32_t)high;
}

BOOT_TEXT static void keep_error(struct gputap_boot *boot) {
  const char *text = boot->dlerror ? boot->dlerror() : 0;
  for (uint32_t i = 0; text && text[i] && i + 1 < sizeof boot->error; i++) {
    boot->error[i] = text[i];
    __asm__ volatile("" ::: "memory"); /* or the compiler makes this a call to strcpy */
  }
}

/* Handle of the agent. The injector offers one path after the other until one can be loaded. */
BOOT_TEXT static void *load(struct gputap_boot *boot) {
  uint32_t state = BOOT_NEEDS_FILE;
  for (;;) {
    say(boot, state);
    if (wait_while(boot, state) != BOOT_FILE_READY) {
      return 0;
    }
    void *handle = boot->enter.dlopen(boot->path, LOAD_NOW | LOAD_NODELETE);
    if (handle) {
      return handle;
    }
    keep_error(boot);
    state = BOOT_LOAD_FAILED;
  }
}

BOOT_TEXT static int32_t load_and_enter(struct gputap_boot *boot) {
  boot->tid = (int32_t)boot_syscall(BOOT_NR_gettid, 0, 0, 0, 0);
  boot->memfd = make_memfd(boot);
  void *handle = load(boot);
  if (boot->memfd >= 0) {
    boot_syscall(BOOT_NR_close, boot->memfd, 0, 0, 0);
  }
  if (!handle) {
    return state_of(boot) == BOOT_GIVE_UP ? -CANCELLED : -TIMED_OUT;
  }
  int (*enter)(struct gputap_enter *) =
      (int (*)(struct gputap_enter *))boot->enter.dlsym(handle, boot->enter_name);
  return enter ? enter(&boot->enter) : -NOT_IMPLEMENTED;
}

/* Called by gputap_boot_entry alone. */
BOOT_TEXT __attribute__((visibility("hidden"))) void gputap_boot_run(struct gputap_boot *boot) {
  uint64_t all = ~0ull;
  boot_syscall(BOOT_NR_rt_sigprocmask, 2 /* SIG_SETMASK */, (long)&all, 0, 8);
  boot->pthread_detach(boot->thread);
  boot->status = boot->resident_enter ? boot->resident_enter(&boot->enter) : load_and_enter(boot);
  say(boot, BOOT_DONE);
  /* The page goes when the answer has been read, or when nobody is left to read it. */
  wait_while(boot, BOOT_DONE);
}
