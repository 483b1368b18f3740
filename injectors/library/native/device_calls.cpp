#include "device_calls.h"

#include "call_event.h"
#include "clock.h"
#include "device_api.h"

namespace gputap {

namespace {

constexpr uint32_t kDriver = 1;

bool by_records; /* the way in use */

int choose(const cupti_abi_call &call, uint8_t on) {
  auto enable = call.domain == kDriver ? g_cupti.enable_driver_call : g_cupti.enable_runtime_call;
  return enable(call.cbid, on);
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
  if (!data->correlation_data) return;
  if (data->site == 0) {
    *data->correlation_data = call_event_begin();
    return;
  }
  uint64_t start = *data->correlation_data;
  if (!start || !data->function) return;
  call_event_write({GPUTAP_EVENT_KIND_CUDA_API, data->function, start, now_ticks(),
                    data->correlation_id, nullptr, 0});
}

}  // namespace gputap
