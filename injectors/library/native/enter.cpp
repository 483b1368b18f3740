// The agent's two exports.
#include "enter.h"

#include "build_id.h"
#include "clock.h"
#include "control.h"
#include "fork.h"
#include "session.h"
#include "threads.h"

#define GPUTAP_EXPORT extern "C" __attribute__((visibility("default")))

GPUTAP_EXPORT const uint64_t gputap_agent_abi[2] = {GPUTAP_ABI_VERSION, GPUTAP_BUILD_ID};

namespace gputap {

namespace {

constexpr long kEndNs = 4000000000;

// A gputap that attaches while another does: it gets the same memory, and fails to lock it.
bool belongs_to_a_living_gputap() { return !load_acquire(&g_session.lock_seen) || session_is_locked(); }

int attach(const gputap_enter *enter) {
  host_take(enter);
  clock_prepare();
  threads_prepare();
  fork_prepare();
  g_session.pid = (uint32_t)sys::getpid();
  int error = session_open(enter->ring_count, enter->ring_capacity);
  if (error) return error;
  store_release(&g_session.phase, kAttached);
  if (control_start()) return g_session.fd;
  session_close(true);
  return -EAGAIN_;
}

int take_turn(const gputap_enter *enter) {
  for (int attempt = 0; attempt < 3; attempt++) {
    if (change(&g_session.phase, (uint32_t)kDetached, (uint32_t)kEntering)) {
      int fd = attach(enter);
      if (fd < 0) store_release(&g_session.phase, kDetached);
      return fd;
    }
    if (load_acquire(&g_session.phase) == kAttached && belongs_to_a_living_gputap())
      return g_session.fd;
    if (!control_end_session(kEndNs)) break;
  }
  return -EBUSY_;
}

}  // namespace

}  // namespace gputap

GPUTAP_EXPORT int gputap_agent_enter(gputap_enter *enter) {
  using namespace gputap;
  if (enter->size < sizeof *enter || !enter->dlsym || !enter->dlopen || !enter->pthread_create)
    return -EINVAL_;
  // A child made by raw clone() ran no handler: it still believes in its parent's session.
  if (g_session.phase != kDetached && g_session.pid != (uint32_t)sys::getpid())
    session_forget_after_fork();
  int fd = take_turn(enter);
  enter->control_fd = fd;
  return fd < 0 ? fd : 0;
}
