/* A stand-in for the agent: counts how often it is entered, and answers with the count. */
#include "../../injectors/library/native/enter.h"

#ifndef BUILD_ID
#define BUILD_ID 77
#endif
#define EXPORTED __attribute__((visibility("default")))

EXPORTED const uint64_t gputap_agent_abi[2] = {1, BUILD_ID};

EXPORTED int gputap_agent_enter(struct gputap_enter *enter) {
  static int entered;
#ifdef FAILS
  return -12;
#endif
  if (enter->size < sizeof *enter || !enter->dlopen || !enter->dlsym || !enter->pthread_create) {
    return -22;
  }
  enter->control_fd = 1000 + __atomic_add_fetch(&entered, 1, __ATOMIC_SEQ_CST);
  enter->control_fd += (int)enter->ring_count * 10000;
  return 0;
}
