#include "device_manners.h"

#include "device.h"
#include "device_api.h"
#include "device_buffers.h"
#include "got.h"
#include "host.h"

namespace gputap {

namespace {

constexpr int64_t kPatienceNs = 3000000000; /* a profiler that starts waits so long for us at most */
constexpr int64_t kIdleNs = 1000000000;

// What the target's own profiler has done since our hooks are in.
struct Other {
  uint32_t subscribed;
  uint64_t kinds;         /* enabled, by bit number */
  uint32_t is_fetching;   /* disabled, its last records not fetched yet */
  int64_t last_call_ns;
  CuptiRequest request;
  CuptiComplete complete;
};

Other other;

template <typename F>
F cupti(const char *name) {
  return (F)g_host.dlsym(g_cupti.library, name);
}

void noted() { store(&other.last_call_ns, sys::monotonic_ns()); }

void step_back() {
  noted();
  device_yield(kPatienceNs);
}

// ------------------------------------------------------------------------ in place of CUPTI's own

int subscribed(int result) {
  if (result == 0) store(&other.subscribed, 1);
  if (result != 0 && !load(&other.subscribed)) device_resume();
  return result;
}

int hook_subscribe(void **subscriber, CuptiCallback callback, void *user) {
  step_back();
  return subscribed(g_cupti.subscribe(subscriber, callback, user));
}

int hook_subscribe_v2(void **subscriber, CuptiCallback callback, void *user, void *parameters) {
  typedef int (*Function)(void **, CuptiCallback, void *, void *);
  step_back();
  Function function = cupti<Function>("cuptiSubscribe_v2");
  return subscribed(function ? function(subscriber, callback, user, parameters)
                             : CUPTI_ABI_RESULT_UNKNOWN);
}

int hook_unsubscribe(void *subscriber) {
  int result = g_cupti.unsubscribe(subscriber);
  if (result) return result;
  store(&other.subscribed, 0);
  store(&other.kinds, 0);
  noted();
  device_resume();
  return result;
}

void any_request(uint8_t **buffer, size_t *size, size_t *most_records) {
  if (CuptiRequest request = load_acquire(&other.request)) request(buffer, size, most_records);
}

// Buffers go back to whom they came from, whoever's turn it is by then: a profiler that is handed a
// buffer it does not know may crash.
void any_complete(void *context, uint32_t stream, uint8_t *buffer, size_t size, size_t valid) {
  if (device_buffer_is_ours(buffer)) return device_buffer_complete(context, stream, buffer, size, valid);
  if (CuptiComplete complete = load_acquire(&other.complete))
    complete(context, stream, buffer, size, valid);
}

int hook_register_callbacks(CuptiRequest request, CuptiComplete complete) {
  step_back();
  if (!request || !complete) return g_cupti.register_callbacks(request, complete);
  store_release(&other.request, request);
  store_release(&other.complete, complete);
  return g_cupti.register_callbacks(any_request, any_complete);
}

int enabled(uint32_t kind, int result) {
  if (result == 0) __atomic_fetch_or(&other.kinds, 1ull << (kind & 63), __ATOMIC_ACQ_REL);
  return result;
}

int hook_enable(uint32_t kind) {
  step_back();
  return enabled(kind, g_cupti.enable(kind));
}

int hook_enable_and_dump(uint32_t kind) {
  step_back();
  return enabled(kind, g_cupti.enable_and_dump(kind));
}

int hook_enable_context(void *context, uint32_t kind) {
  typedef int (*Function)(void *, uint32_t);
  step_back();
  Function function = cupti<Function>("cuptiActivityEnableContext");
  return enabled(kind, function ? function(context, kind) : CUPTI_ABI_RESULT_UNKNOWN);
}

int hook_disable(uint32_t kind) {
  int result = g_cupti.disable(kind);
  uint64_t bit = 1ull << (kind & 63);
  uint64_t before = __atomic_fetch_and(&other.kinds, ~bit, __ATOMIC_ACQ_REL);
  if (before & bit) store(&other.is_fetching, 1);
  noted();
  return result;
}

int hook_flush_all(uint32_t forced) {
  int result = g_cupti.flush_all(forced);
  store(&other.is_fetching, 0);
  noted();
  return result;
}

int hook_finalize() {
  typedef int (*Function)();
  step_back();
  Function function = cupti<Function>("cuptiFinalize");
  int result = function ? function() : CUPTI_ABI_RESULT_UNKNOWN;
  other = {};
  device_resume();
  return result;
}

const GotHook kHooks[] = {
    {"cuptiSubscribe", (void *)hook_subscribe},
    {"cuptiSubscribe_v2", (void *)hook_subscribe_v2},
    {"cuptiUnsubscribe", (void *)hook_unsubscribe},
    {"cuptiActivityRegisterCallbacks", (void *)hook_register_callbacks},
    {"cuptiActivityEnable", (void *)hook_enable},
    {"cuptiActivityEnableAndDump", (void *)hook_enable_and_dump},
    {"cuptiActivityEnableContext", (void *)hook_enable_context},
    {"cuptiActivityDisable", (void *)hook_disable},
    {"cuptiActivityFlushAll", (void *)hook_flush_all},
    {"cuptiFinalize", (void *)hook_finalize},
};

GotHooks hooks = {kHooks, sizeof kHooks / sizeof *kHooks, nullptr, {}, 0, 0, 0};

void put_hooks() { got_keep(&hooks, (const void *)g_cupti.subscribe); }

}  // namespace

void device_manners_begin() {
  if (g_cupti.library || cupti_find()) put_hooks();
}

void device_manners_look_after(bool wanted) {
  if (!wanted || !g_cupti.library) return;
  put_hooks();
  // A profiler that keeps its subscription for ever, as torch's does, but is done with this profile.
  if (!load(&other.subscribed) || load(&other.kinds) || load(&other.is_fetching)) return;
  if (sys::monotonic_ns() - load(&other.last_call_ns) > kIdleNs) device_resume();
}

bool device_manners_somebody_is_subscribed() { return load(&other.subscribed); }

bool device_manners_take_over_from_torch() {
  bool subscribes = false;
  for (uint32_t i = 0; i < hooks.count; i++) {
    if (!hooks.patches[i].of_torch) return false;
    subscribes |= hooks.patches[i].hook == &kHooks[0];
  }
  if (!subscribes || load(&other.kinds) || load(&other.last_call_ns)) return false;
  store(&other.subscribed, 1);
  return true;
}

int device_manners_take_buffers() {
  return g_cupti.register_callbacks(device_buffer_request, any_complete);
}

void device_manners_give_buffers_back() {
  if (load(&other.request)) g_cupti.register_callbacks(any_request, any_complete);
}

void device_manners_end() {
  got_give_up(&hooks, (const void *)g_cupti.subscribe);
  CuptiRequest request = other.request;
  CuptiComplete complete = other.complete;
  other = {};
  if (!request) return;
  other.request = request;
  other.complete = complete;
  // Directly only when the last buffer of ours is back: they must not see it.
  if (!device_buffers_out()) g_cupti.register_callbacks(request, complete);
}

void device_manners_forget_after_fork() {
  got_forget(&hooks);
  other = {};
}

}  // namespace gputap
