#include "device_buffers.h"

#include "device_records.h"
#include "threads.h"

namespace gputap {

namespace {

// CUDA 12.8 and older crash when a request is refused, so there is always an answer: beyond the pool
// all get the same buffer, and what is written there is thrown away.
constexpr uint32_t kMostBuffers = 512, kFirstBuffers = 2;
constexpr size_t kBufferBytes = 1 << 20;

enum BufferState : uint32_t { kNone, kMaking, kIdle, kWithCupti };

struct Buffer {
  uint8_t *bytes;
  uint32_t state;
};

Buffer pool[kMostBuffers];
uint32_t out;
uint8_t *rubbish;

uint8_t *make() { return (uint8_t *)sys::map_private(kBufferBytes); }

uint8_t *take() {
  for (Buffer &buffer : pool) {
    uint32_t state = load(&buffer.state);
    if (state == kIdle && change(&buffer.state, kIdle, kWithCupti)) return buffer.bytes;
    if (state != kNone || !change(&buffer.state, kNone, kMaking)) continue;
    buffer.bytes = make();
    store_release(&buffer.state, buffer.bytes ? kWithCupti : kNone);
    return buffer.bytes;
  }
  return nullptr;
}

// The one of ours that CUPTI has with these bytes; null: not ours, or the common one.
Buffer *find(const uint8_t *bytes) {
  for (Buffer &buffer : pool)
    if (load_acquire(&buffer.state) == kWithCupti && buffer.bytes == bytes) return &buffer;
  return nullptr;
}

void count_lost(gputap_drop_cause cause) {
  Live *live = g_live;
  ThreadState *thread = thread_state();
  if (!thread) return;
  if (callback_enter_device(thread, live)) count_drop(live, cause);
  callback_leave(thread);
}

}  // namespace

void device_buffers_prepare() {
  if (!rubbish) rubbish = make();
  for (uint32_t i = 0; i < kFirstBuffers; i++) {
    Buffer &buffer = pool[i];
    if (load(&buffer.state) != kNone || !change(&buffer.state, kNone, kMaking)) continue;
    buffer.bytes = make();
    if (buffer.bytes)
      sys::call(sys::kMadvise, (long)buffer.bytes, kBufferBytes, sys::kMadvPopulateWrite);
    store_release(&buffer.state, buffer.bytes ? kIdle : kNone);
  }
}

bool device_buffer_is_ours(const uint8_t *buffer) { return buffer == rubbish || find(buffer); }

uint32_t device_buffers_out() { return load_acquire(&out); }

void device_buffer_request(uint8_t **buffer, size_t *size, size_t *most_records) {
  *most_records = 0; /* as many as there is room for */
  *size = kBufferBytes;
  *buffer = take();
  if (GPUTAP_LIKELY(*buffer != nullptr)) {
    add(&out, 1u);
    return;
  }
  *buffer = rubbish;
  count_lost(GPUTAP_DROP_CAUSE_DEVICE_NO_BUFFER);
}

void device_buffer_complete(void *, uint32_t, uint8_t *bytes, size_t size, size_t valid) {
  Buffer *buffer = find(bytes);
  if (!buffer) return;
  if (valid > size) valid = size;
  if (valid > kBufferBytes) valid = kBufferBytes;
  Live *live = g_live;
  ThreadState *thread = thread_state();
  if (thread) {
    if (callback_enter_device(thread, live)) device_records_copy(live, bytes, valid);
    callback_leave(thread);
  }
  // CUPTI was told that it gets zeroed buffers.
  __builtin_memset(bytes, 0, valid);
  store_release(&buffer->state, kIdle);
  __atomic_fetch_sub(&out, 1u, __ATOMIC_RELEASE);
}

}  // namespace gputap
