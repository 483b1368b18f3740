#include "session.h"

#include "build_id.h"
#include "clock.h"
#include "collective_calls.h"
#include "device.h"
#include "intern.h"
#include "python_run.h"
#include "text.h"

namespace gputap {

Session g_session = {kDetached, 0, -1, 0, 0, 0, {0, 0}, 0, nullptr};

namespace {

constexpr uint32_t kRings = 256, kRingRecords = 131072, kFewestRings = 16;
constexpr uint32_t kClockSamples = 8192, kStrings = 1 << 18, kCodes = 1 << 16, kStacks = 1 << 18;
constexpr uint32_t kFrames = 1 << 22, kArena = 64 << 20, kRequest = 1 << 20, kResult = 32 << 20;
constexpr uint32_t kDeviceRing = 32 << 20, kDeviceClockSamples = 8192, kSamples = 512;
constexpr uint32_t kMostRings = 1 << 14, kMostRecords = 1 << 24;

uint32_t sessions; /* ever opened */

uint64_t pages(uint64_t bytes) { return (bytes + sys::kPage - 1) & ~(uint64_t)(sys::kPage - 1); }

uint64_t place(uint64_t *at, uint64_t bytes) {
  uint64_t offset = *at;
  *at += pages(bytes);
  return offset;
}

gputap_control_header layout(uint32_t ring_count, uint32_t ring_capacity) {
  gputap_control_header h;
  __builtin_memset(&h, 0, sizeof h);
  h.abi = GPUTAP_ABI_VERSION;
  h.header_bytes = sizeof h;
  h.build_id = GPUTAP_BUILD_ID;
  h.clock_capacity = kClockSamples;
  h.strings_capacity = kStrings;
  h.codes_capacity = kCodes;
  h.stacks_capacity = kStacks;
  h.frames_capacity = kFrames;
  h.arena_capacity = kArena;
  h.request_capacity = kRequest;
  h.result_capacity = kResult;
  uint64_t at = sizeof h;
  h.clock_offset = place(&at, (uint64_t)kClockSamples * sizeof(gputap_clock_sample));
  h.strings_offset = place(&at, (uint64_t)kStrings * sizeof(gputap_string_entry));
  h.codes_offset = place(&at, (uint64_t)kCodes * sizeof(gputap_code_entry));
  h.stacks_offset = place(&at, (uint64_t)kStacks * sizeof(gputap_stack_entry));
  h.frames_offset = place(&at, (uint64_t)kFrames * sizeof(gputap_stack_frame));
  h.arena_offset = place(&at, kArena);
  h.request_offset = place(&at, kRequest);
  h.result_offset = place(&at, kResult);
  h.device_ring_capacity = kDeviceRing;
  h.device_ring_offset = place(&at, sys::kPage + (uint64_t)kDeviceRing);
  h.device_clock_capacity = kDeviceClockSamples;
  h.device_clock_offset =
      place(&at, (uint64_t)kDeviceClockSamples * sizeof(gputap_device_clock_sample));
  h.samples_capacity = kSamples;
  h.samples_offset = place(&at, (uint64_t)kSamples * sizeof(gputap_python_sample));
  h.ring_count = ring_count;
  h.ring_capacity = ring_capacity;
  h.ring_data_offset = sys::kPage;
  h.ring_stride = sys::kPage + pages((uint64_t)ring_capacity * sizeof(gputap_event_record));
  h.rings_offset = place(&at, ring_count * h.ring_stride);
  h.total_bytes = at;
  h.strings_count = h.codes_count = h.stacks_count = 1;
  return h;
}

// A high number, so that a target that walks or reuses low descriptors does not meet it.
int move_up(int fd) {
  const int lowest_numbers[] = {500, 200, 64}; /* the limit on descriptors may be low */
  for (int lowest : lowest_numbers) {
    long high = sys::call(sys::kFcntl, fd, sys::kFcntlDupCloexec, lowest);
    if (sys::failed(high)) continue;
    sys::close(fd);
    return (int)high;
  }
  return fd;
}

int make_memfd(uint64_t bytes) {
  int flags = sys::kMfdCloexec | sys::kMfdAllowSealing;
  long fd = sys::call(sys::kMemfdCreate, (long)GPUTAP_CONTROL_MEMFD, flags | sys::kMfdNoexecSeal);
  if (fd == -EINVAL_) fd = sys::call(sys::kMemfdCreate, (long)GPUTAP_CONTROL_MEMFD, flags);
  if (sys::failed(fd)) return (int)fd;
  long status = sys::call(sys::kFtruncate, fd, (long)bytes);
  if (sys::failed(status)) {
    sys::close((int)fd);
    return (int)status;
  }
  // A reader that shrank the file would kill the target by SIGBUS.
  sys::call(sys::kFcntl, fd, sys::kFcntlAddSeals,
            sys::kSealShrink | sys::kSealGrow | sys::kSealSeal);
  return move_up((int)fd);
}

// Device and inode of what is open there.
bool identify(int fd, uint64_t *file) {
  uint64_t status[32];
  if (sys::failed(sys::call(sys::kFstat, fd, (long)status))) return false;
  file[0] = status[0];
  file[1] = status[1];
  return true;
}

void publish(gputap_control_header *header) {
  uint8_t *base = (uint8_t *)header;
  Live *live = g_live;
  live->recording = 0;
  live->first_window = 0;
  live->device = 0;
  live->device_capacity = header->device_ring_capacity;
  live->walk_stacks = live->want_shapes = live->want_gc = 0;
  live->pid = header->pid;
  live->header = header;
  live->strings = (gputap_string_entry *)(base + header->strings_offset);
  live->codes = (gputap_code_entry *)(base + header->codes_offset);
  live->stacks = (gputap_stack_entry *)(base + header->stacks_offset);
  live->frames = (gputap_stack_frame *)(base + header->frames_offset);
  live->arena = base + header->arena_offset;
  __builtin_memset(live->module_codes, 0, sizeof live->module_codes);
  live->string_index = index_make(kStrings);
  live->code_index = index_make(kCodes);
  live->stack_index = index_make(kStacks);
  store_release(&live->session, ++sessions);
}

}  // namespace

bool session_has_descriptor() {
  uint64_t file[2];
  return identify(g_session.fd, file) && file[0] == g_session.file[0] &&
         file[1] == g_session.file[1];
}

int session_open(uint32_t ring_count, uint32_t ring_capacity) {
  if (!ring_count) ring_count = kRings;
  if (!ring_capacity) ring_capacity = kRingRecords;
  if (ring_count > kMostRings || ring_capacity > kMostRecords ||
      (ring_capacity & (ring_capacity - 1)))
    return -EINVAL_;
  if (!live_prepare()) return -ENOMEM_;
  // The memory is sparse, but a limit on address space may still refuse it: then fewer rings do.
  for (;; ring_count /= 2) {
    gputap_control_header header = layout(ring_count, ring_capacity);
    int fd = make_memfd(header.total_bytes);
    if (fd < 0) return fd;
    void *at = sys::map(header.total_bytes, sys::kMapShared | sys::kMapNoReserve, fd);
    if (!at) {
      sys::close(fd);
      if (ring_count / 2 < kFewestRings) return -ENOMEM_;
      continue;
    }
    header.pid = (uint32_t)sys::getpid();
    header.clock_kind = g_clock.kind;
    header.session_id = hash_step((uint64_t)sys::clock_ns(sys::kClockRealtime), header.pid) >> 1;
    __builtin_memcpy(at, &header, sizeof header);
    g_session.header = (gputap_control_header *)at;
    g_session.bytes = header.total_bytes;
    g_session.fd = fd;
    identify(fd, g_session.file);
    g_session.lock_seen = g_session.end_asked = 0;
    publish(g_session.header);
    store_release(&g_session.header->magic, GPUTAP_MAGIC);
    return 0;
  }
}

void session_close(bool drained) {
  Live *live = g_live;
  store_release(&live->session, 0);
  if (drained) {
    index_free(&live->string_index);
    index_free(&live->code_index);
    index_free(&live->stack_index);
    sys::unmap(g_session.header, g_session.bytes);
    live->header = nullptr;
  } else {
    g_session.leaked++;
  }
  if (session_has_descriptor()) sys::close(g_session.fd);
  g_session.fd = -1;
  g_session.header = nullptr;
}

bool session_is_locked() {
  FileLock lock = {sys::kLockWrite, 0, 0, 1, 0};
  // Refused (an old kernel): better to stay on than to leave a living gputap.
  if (sys::failed(sys::call(sys::kFcntl, g_session.fd, sys::kFcntlOfdGetLock, (long)&lock)))
    return true;
  return lock.type != sys::kLockNone;
}

void session_forget_after_fork() {
  Live *live = g_live;
  store(&live->window, 0);
  store(&live->session, 0);
  store(&live->device, 0);
  live->header = nullptr;
  device_forget_after_fork();
  collective_calls_forget_after_fork();
  if (g_session.phase == kDetached) return;
  if (g_session.header) sys::unmap(g_session.header, g_session.bytes);
  if (session_has_descriptor()) sys::close(g_session.fd);
  g_session.header = nullptr;
  g_session.fd = -1;
  g_session.phase = kDetached;
  python_forget_after_fork();
}

void session_say(const char *text) {
  Text message((char *)g_session.header->message, sizeof g_session.header->message);
  (message << text).end();
}

}  // namespace gputap
