/* How the injector's bootstrap thread calls the agent. Plain C, shared by both sides. */
#ifndef GPUTAP_ENTER_H
#define GPUTAP_ENTER_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct gputap_enter {
  uint64_t size; /* sizeof this struct, for growth */
  void *(*dlsym)(void *, const char *);
  void *(*dlopen)(const char *, int);
  int (*pthread_create)(void *, const void *, void *(*)(void *), void *);
  uint32_t ring_count;    /* 0 = default */
  uint32_t ring_capacity; /* records, a power of two; 0 = default */
  int32_t control_fd;     /* out: the control memfd in the target, or a negative errno */
  int32_t reserved;
};

/* {GPUTAP_ABI_VERSION, build id}: a resident agent with other numbers is not reused. */
extern const uint64_t gputap_agent_abi[2];

/* 0 or a negative errno; starts the control thread and returns. */
int gputap_agent_enter(struct gputap_enter *enter);

#ifdef __cplusplus
}
#endif

#endif
