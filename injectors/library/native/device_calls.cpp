#include "device_calls.h"

#include "device_api.h"
#include "intern.h"
#include "ring.h"

namespace gputap {

namespace {

constexpr uint32_t kDriver = 1, kLongestCall = 128;

bool by_records; /* the way in use */

int choose(const cupti_abi_call &call, uint8_t on) {
  auto enable = call.domain == kDriver ? g_cupti.enable_driver_call : g_cupti.enable_runtime_call;
  return enable(call.cbid, on);
}

void write_event(Live *live, ThreadState *thread, const CuptiCallbackData *data, uint64_t start) {
  gputap_event_record *record = ring_reserve(thread, live);
  if (!record) return;
  *record = {};
  record->start_ticks = start;
  record->end_ticks = now_ticks();
  record->seq = data->correlation_id;
  record->name_id =
      intern_cached(live, thread, data->function, text_length(data->function, kLongestCall)).id;
  record->tid = thread->tid;
  uint32_t depth = thread_depth(thread);
  record->depth = (uint16_t)(depth < 0xffff ? depth : 0xffff);
  record->kind = GPUTAP_EVENT_KIND_CUDA_API;
  record->flags = GPUTAP_EVENT_FLAG_NO_STACK;
  if (!record->name_id) record->flags |= GPUTAP_EVENT_FLAG_NAME_LOST;
  ring_publish(thread);
}

}  // namespace

uint32_t device_calls_enable(void *subscriber) {
  by_records = g_cupti.enable_runtime_call && g_cupti.enable_driver_call;
  if (!by_records && !subscriber) return 0;
  uint32_t enabled = 0;
  for (const cupti_abi_call &call : cupti_abi_calls)
    // Ids that this version does not have yet are refused.
    enabled += (by_records ? choose(call, 1)
                           : g_cupti.enable_callback(1, subscriber, call.domain, call.cbid)) == 0;
  return enabled;
}

void device_calls_disable(void *subscriber) {
  // The driver's first, which come last: else a call under way would leave its inner half alone.
  for (uint32_t i = CUPTI_ABI_CALLS; i-- > 0;) {
    const cupti_abi_call &call = cupti_abi_calls[i];
    if (by_records)
      choose(call, 0);
    else if (subscriber)
      g_cupti.enable_callback(0, subscriber, call.domain, call.cbid);
  }
}

// `correlation_data` is a word that CUPTI keeps for us from the enter to the exit of one call.
void device_call(void *, uint32_t, uint32_t, const void *opaque) {
  const CuptiCallbackData *data = (const CuptiCallbackData *)opaque;
  Live *live = g_live;
  if (!data->correlation_data) return;
  if (data->site == 0) {
    *data->correlation_data = load(&live->window) ? now_ticks() : 0;
    return;
  }
  uint64_t start = *data->correlation_data;
  if (!start || !data->function) return;
  ThreadState *thread = thread_state();
  if (!thread) return;
  uint32_t window = callback_enter(thread, live);
  if (window) {
    if (window != thread->window) thread_enter_window(thread, live, 0);
    if (start >= live->header->window_start_ticks) write_event(live, thread, data, start);
  }
  callback_leave(thread);
}

}  // namespace gputap
