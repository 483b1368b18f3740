// What the callbacks read: the open window, the shared memory, the layouts. One page, written by the
// control thread while no callback is inside.
#ifndef GPUTAP_LIVE_H
#define GPUTAP_LIVE_H

#include "atomics.h"
#include "wire.h"

namespace gputap {

struct Slot {
  uint64_t key;   /* 0 = empty */
  uint32_t id;    /* 0 = being written */
  uint32_t extra; /* the finder's own */
};

// A lock-free table from hashes to ids, private to the target.
struct Index {
  Slot *slots;
  uint64_t mask;
};

constexpr uint32_t kModuleCodes = 4;

// Into a section of the shared memory that is written round and round.
template <typename T>
inline void put_round(gputap_control_header *header, uint64_t offset, uint32_t capacity,
                      uint32_t *count, const T &entry) {
  uint32_t number = *count;
  ((T *)((uint8_t *)header + offset))[number % capacity] = entry;
  store_release(count, number + 1);
}

struct Live {
  uint32_t window; /* number of the open window; 0: every callback returns at once */
  uint32_t recording;    /* operators are recorded, not only user scopes */
  uint32_t session;      /* number of the attach; 0 = none */
  uint32_t first_window; /* of this session; earlier ones are another gputap's */
  uint32_t walk_stacks;
  uint32_t want_shapes;
  uint32_t want_gc;
  uint32_t pid;
  uint32_t mode; /* enum gputap_capture_mode */
  uint32_t device; /* records of CUPTI may be written to the shared memory */
  uint64_t device_capacity; /* of their ring; the header's own could be changed under us */
  gputap_control_header *header;
  gputap_string_entry *strings;
  gputap_code_entry *codes;
  gputap_stack_entry *stacks;
  gputap_stack_frame *frames;
  uint8_t *arena;
  uint64_t module_codes[kModuleCodes]; /* code objects that call an nn.Module */
  Index string_index;
  Index code_index;
  Index stack_index;
  gputap_torch_layout torch;
  gputap_python_layout python;
};

// Lives in a page that the kernel wipes in forked children (MADV_WIPEONFORK), those included that
// raw clone() made and that no atfork handler sees: there `window` reads 0 and the agent is off.
extern Live *g_live;

// Makes the page on first use. False if there is no memory.
bool live_prepare();

inline void count_drop(Live *live, gputap_drop_cause cause, uint64_t events = 1) {
  add(&live->header->dropped[cause], events);
}

}  // namespace gputap

#endif
