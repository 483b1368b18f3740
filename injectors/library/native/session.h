// One attach: the control memory from its making to its unmapping, and whose turn it is.
#ifndef GPUTAP_SESSION_H
#define GPUTAP_SESSION_H

#include <stddef.h>
#include <stdint.h>

#include "live.h"

namespace gputap {

enum Phase : uint32_t { kDetached, kEntering, kAttached, kEnding };

struct Session {
  uint32_t phase;
  uint32_t pid;       /* whose memory this is; a forked child finds its parent's */
  int fd;             /* the target may close it, and give its number to something else */
  uint32_t end_asked; /* the next gputap is waiting for this session to end */
  uint32_t lock_seen; /* gputap has held its lock at least once */
  uint32_t leaked;    /* sessions whose memory had to stay mapped */
  uint64_t file[2];   /* device and inode of the memory */
  size_t bytes;
  gputap_control_header *header;
};

extern Session g_session;

// Makes the memory and publishes it to the callbacks (the window stays closed). 0 or -errno.
int session_open(uint32_t ring_count, uint32_t ring_capacity);

// Unmaps and closes. The window must be closed and the callbacks drained; where that failed
// (`drained` false) the memory stays mapped.
void session_close(bool drained);

// True while somebody else holds a write lock on the memory: gputap is alive.
bool session_is_locked();

// False where the target has closed it.
bool session_has_descriptor();

// In a forked child: the memory is the parent's. No locks, no allocation.
void session_forget_after_fork();

void session_say(const char *text);

}  // namespace gputap

#endif
