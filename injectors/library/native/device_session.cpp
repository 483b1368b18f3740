#include "device_session.h"

#include "clock.h"
#include "device_api.h"
#include "device_buffers.h"
#include "device_calls.h"
#include "device_manners.h"
#include "host.h"
#include "text.h"

namespace gputap {

namespace {

constexpr uint32_t kZeroedBuffers = 5; /* CUPTI_ACTIVITY_ATTR_ZEROED_OUT_ACTIVITY_BUFFER */
constexpr uint32_t kSystemThreadIds = 1;
constexpr uint32_t kKinds = 64;
constexpr int64_t kPauseNs = 5000000, kQuietNs = 150000000;
constexpr int kClockAttempts = 5;

struct Holding {
  void *subscriber;
  uint64_t kinds;
  bool calls;
  uint32_t thread_ids; /* the type that was set before */
  uint64_t on_since_ticks;
};

Holding g;
int64_t inside_since;

// Around everything that may take a while in CUPTI.
class Inside {
 public:
  Inside() { store_release(&inside_since, sys::monotonic_ns()); }
  ~Inside() { store_release(&inside_since, (int64_t)0); }
};

void say_failure(Live *live, const char *call, int result) {
  Text text((char *)live->header->device_message, sizeof live->header->device_message);
  (text << call << " returned " << (int64_t)result).end();
  store(&live->header->device_error, (uint32_t)result);
}

gputap_device_state refused(Live *live, int result) {
  say_failure(live, "cuptiSubscribe", result);
  if (result == CUPTI_ABI_RESULT_MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED) return GPUTAP_DEVICE_STATE_HELD;
  if (result == CUPTI_ABI_RESULT_NOT_INITIALIZED || result == CUPTI_ABI_RESULT_UNKNOWN)
    return GPUTAP_DEVICE_STATE_NO_DRIVER;
  return GPUTAP_DEVICE_STATE_FAILED;
}

void set_zeroed_buffers(uint8_t on) {
  size_t size = sizeof on;
  g_cupti.set_attribute(kZeroedBuffers, &size, &on);
}

// Both are the process's, not the subscriber's: the next one must find them as they were.
void set_manner_of_records() {
  g.thread_ids = 0;
  if (g_cupti.get_thread_ids) g_cupti.get_thread_ids(&g.thread_ids);
  if (g_cupti.set_thread_ids) g_cupti.set_thread_ids(kSystemThreadIds);
  set_zeroed_buffers(1);
}

void restore_manner_of_records() {
  set_zeroed_buffers(0);
  if (g_cupti.set_thread_ids) g_cupti.set_thread_ids(g.thread_ids);
}

void unsubscribe() {
  if (g.subscriber) g_cupti.unsubscribe(g.subscriber);
  g.subscriber = nullptr;
}

bool is_replayed(uint32_t kind) {
  return kind == CUPTI_ABI_KIND_DEVICE || kind == CUPTI_ABI_KIND_CONTEXT ||
         kind == CUPTI_ABI_KIND_STREAM;
}

// What was there before us is told by these kinds only if it is asked for.
int enable(uint32_t kind) {
  return is_replayed(kind) ? g_cupti.enable_and_dump(kind) : g_cupti.enable(kind);
}

void enable_kinds(Live *live) {
  uint64_t wanted = live->header->device_kinds;
  for (uint32_t kind = 1; kind < kKinds; kind++)
    if ((wanted >> kind & 1) && enable(kind) == 0) g.kinds |= 1ull << kind;
  store(&live->header->device_enabled, g.kinds);
}

void disable_kinds() {
  for (uint32_t kind = 1; kind < kKinds; kind++)
    if (g.kinds >> kind & 1) g_cupti.disable(kind);
  g.kinds = 0;
}

void take_clock_sample(Live *live) {
  gputap_control_header *header = live->header;
  gputap_device_clock_sample best = {0, 0, ~0ull, 0};
  for (int i = 0; i < kClockAttempts; i++) {
    uint64_t device_ns = 0, before = now_ticks();
    if (g_cupti.timestamp(&device_ns)) return;
    uint64_t width = now_ticks() - before;
    if (width < best.width_ticks) best = {before + width / 2, device_ns, width, 0};
  }
  put_round(header, header->device_clock_offset, header->device_clock_capacity,
            &header->device_clock_count, best);
}

// A kernel that runs for minutes keeps its buffer; it is not waited for.
void drain(Live *live, int64_t drain_ns) {
  int64_t start = sys::monotonic_ns(), last_news = start;
  uint64_t records = live->header->device_records;
  for (;;) {
    g_cupti.flush_all(0);
    int64_t now = sys::monotonic_ns();
    if (live->header->device_records != records) last_news = now;
    records = live->header->device_records;
    if (!device_buffers_out() || now - start >= drain_ns || now - last_news >= kQuietNs) return;
    sys::sleep_ns(kPauseNs);
  }
}

void count_what_cupti_dropped(Live *live) {
  size_t dropped = 0;
  if (g_cupti.dropped(nullptr, 0, &dropped) == 0 && dropped)
    count_drop(live, GPUTAP_DROP_CAUSE_DEVICE_BY_CUPTI, dropped);
}

gputap_device_state begin(Live *live) {
  gputap_control_header *header = live->header;
  g = {};
  int result = 0;
  if (!device_manners_somebody_is_subscribed()) {
    result = g_cupti.subscribe(&g.subscriber, device_call, nullptr);
    bool is_held = result == CUPTI_ABI_RESULT_MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED;
    bool may_go_without = is_held && load(&header->device_torch_is_idle);
    if (result && !(may_go_without && device_manners_take_over_from_torch()))
      return refused(live, result);
  }
  set_manner_of_records();
  device_buffers_prepare();
  result = device_manners_take_buffers();
  if (result) {
    say_failure(live, "cuptiActivityRegisterCallbacks", result);
    restore_manner_of_records();
    unsubscribe();
    return GPUTAP_DEVICE_STATE_FAILED;
  }
  store_release(&live->device, 1);
  take_clock_sample(live);
  enable_kinds(live);
  g.calls = header->device_calls != 0;
  if (g.calls && !device_calls_enable(g.subscriber)) g.calls = false;
  g.on_since_ticks = now_ticks();
  device_say(live, "");
  return GPUTAP_DEVICE_STATE_ON;
}

}  // namespace

void device_say(Live *live, const char *text) {
  Text message((char *)live->header->device_message, sizeof live->header->device_message);
  (message << text).end();
}

int64_t device_inside_since() { return load_acquire(&inside_since); }

gputap_device_state device_session_begin(Live *live) {
  gputap_control_header *header = live->header;
  store(&header->device_error, 0);
  if (!cupti_find()) {
    device_say(live, "no libcupti is loaded in the process");
    return GPUTAP_DEVICE_STATE_NO_CUPTI;
  }
  store(&header->device_api_version, g_cupti.api_version);
  store(&header->device_version, g_cupti.version);
  if (!cuda_is_up()) {
    device_say(live, "the process has not initialised CUDA");
    return GPUTAP_DEVICE_STATE_NO_DRIVER;
  }
  Inside inside;
  // The threads that CUPTI starts stay, and have the name of the one that made it start them.
  host_name_thread("cupti");
  gputap_device_state state = begin(live);
  host_name_thread(kDeviceThread);
  return state;
}

void device_session_tick(Live *live) {
  Inside inside;
  g_cupti.flush_all(0);
  take_clock_sample(live);
  count_what_cupti_dropped(live);
}

void device_session_end(Live *live, int64_t drain_ns) {
  Inside inside;
  if (g.calls) device_calls_disable(g.subscriber);
  disable_kinds();
  take_clock_sample(live);
  drain(live, drain_ns);
  count_what_cupti_dropped(live);
  restore_manner_of_records();
  device_manners_give_buffers_back();
  unsubscribe();
  if (uint32_t out = device_buffers_out())
    count_drop(live, GPUTAP_DROP_CAUSE_DEVICE_AT_CLOSE, out);
  add(&live->header->device_on_ticks, now_ticks() - g.on_since_ticks);
  store(&live->header->device_enabled, 0);
  store_release(&live->device, 0);
}

}  // namespace gputap
