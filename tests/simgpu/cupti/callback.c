/* The Callback API: one subscriber, told of enter and exit of the calls that it chose. */
#include <sched.h>
#include <stdatomic.h>
#include <string.h>

#include "tracer.h"

/* CUpti_CallbackData */
struct callback_data {
  int site; /* 0 enter, 1 exit */
  const char *function;
  const void *parameters;
  void *result;
  const char *symbol;
  void *context;
  uint32_t context_id;
  uint64_t *correlation_data;
  uint32_t correlation_id;
};

typedef void (*callback)(void *user, uint32_t domain, uint32_t cbid, const void *data);

static struct subscriber {
  callback function;
  void *user;
  atomic_bool taken;
  atomic_uchar enabled[DOMAINS][MOST_CBIDS];
} subscriber;

static atomic_uint running;
static _Thread_local unsigned running_here;

void callback_call(struct simgpu_call *call, int site, int *result) {
  if (!subscriber.taken || call->cbid >= MOST_CBIDS ||
      !subscriber.enabled[call->domain][call->cbid]) {
    return;
  }
  const struct callback_data data = {
      .site = site,
      .function = call->function,
      .parameters = call->parameters,
      .result = result,
      .symbol = call->symbol,
      .context = (void *)(uintptr_t)(simgpu_device_current() + 1),
      .context_id = (uint32_t)simgpu_device_current() + 1,
      .correlation_data = &call->correlation_data,
      .correlation_id = call->correlation_id,
  };
  running++;
  running_here++;
  /* Again, as it may be going: whoever unsubscribes waits for `running`. */
  if (subscriber.taken) subscriber.function(subscriber.user, call->domain, call->cbid, &data);
  running_here--;
  running--;
}

static void wait_for_others(void) {
  while (running > running_here) sched_yield();
}

static int subscribe(void **handle, callback function, void *user) {
  const int refused = tracer_enter();
  if (refused) return refused;
  if (!handle || !function) return CUPTI_ABI_RESULT_INVALID_PARAMETER;
  const int fault = (int)simgpu_fault("refuse_subscribe", 0);
  if (fault) return fault == 1 ? CUPTI_ABI_RESULT_MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED : fault;
  static atomic_flag busy = ATOMIC_FLAG_INIT;
  int result = CUPTI_ABI_RESULT_MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED;
  while (atomic_flag_test_and_set(&busy)) sched_yield();
  if (!subscriber.taken) {
    memset((void *)subscriber.enabled, 0, sizeof subscriber.enabled);
    subscriber.function = function;
    subscriber.user = user;
    subscriber.taken = true;
    *handle = &subscriber;
    result = CUPTI_ABI_RESULT_SUCCESS;
  }
  atomic_flag_clear(&busy);
  if (result == CUPTI_ABI_RESULT_SUCCESS) observer_attach();
  return result;
}

SIMGPU_EXPORT int cuptiSubscribe(void **handle, callback function, void *user) {
  return subscribe(handle, function, user);
}

void callback_reset(void) {
  subscriber.taken = false;
  wait_for_others();
}

static bool is_ours(const void *handle) { return handle == &subscriber && subscriber.taken; }

SIMGPU_EXPORT int cuptiUnsubscribe(void *handle) {
  const int refused = tracer_enter();
  if (refused) return refused;
  if (!is_ours(handle)) return CUPTI_ABI_RESULT_INVALID_PARAMETER;
  callback_reset();
  return CUPTI_ABI_RESULT_SUCCESS;
}

SIMGPU_EXPORT int cuptiEnableCallback(uint32_t on, void *handle, uint32_t domain, uint32_t cbid) {
  const int refused = tracer_enter();
  if (refused) return refused;
  if (!is_ours(handle) || domain == 0 || domain >= DOMAINS - 1 || cbid >= MOST_CBIDS) {
    return CUPTI_ABI_RESULT_INVALID_PARAMETER;
  }
  subscriber.enabled[domain][cbid] = on != 0;
  return CUPTI_ABI_RESULT_SUCCESS;
}

SIMGPU_EXPORT int cuptiEnableDomain(uint32_t on, void *handle, uint32_t domain) {
  const int refused = tracer_enter();
  if (refused) return refused;
  if (!is_ours(handle) || domain == 0 || domain >= DOMAINS - 1) {
    return CUPTI_ABI_RESULT_INVALID_PARAMETER;
  }
  for (uint32_t cbid = 0; cbid < MOST_CBIDS; cbid++) subscriber.enabled[domain][cbid] = on != 0;
  return CUPTI_ABI_RESULT_SUCCESS;
}

SIMGPU_EXPORT int cuptiEnableAllDomains(uint32_t on, void *handle) {
  int result = CUPTI_ABI_RESULT_SUCCESS;
  for (uint32_t domain = 1; domain < DOMAINS - 1 && result == CUPTI_ABI_RESULT_SUCCESS; domain++) {
    result = cuptiEnableDomain(on, handle, domain);
  }
  return result;
}

SIMGPU_EXPORT int cuptiGetCallbackState(uint32_t *on, void *handle, uint32_t domain,
                                        uint32_t cbid) {
  if (!on || !is_ours(handle) || domain >= DOMAINS || cbid >= MOST_CBIDS) {
    return CUPTI_ABI_RESULT_INVALID_PARAMETER;
  }
  *on = subscriber.enabled[domain][cbid];
  return CUPTI_ABI_RESULT_SUCCESS;
}

SIMGPU_EXPORT int cuptiSupportedDomains(size_t *count, const uint32_t **domains) {
  static const uint32_t known[] = {1, 2, 3, 4, 5, 6};
  if (!count || !domains) return CUPTI_ABI_RESULT_INVALID_PARAMETER;
  *count = tracer_version() >= 1206 ? 6 : 5;
  *domains = known;
  return CUPTI_ABI_RESULT_SUCCESS;
}

#if CUPTI_SONAME_VERSION >= 1300
/* CUpti_SubscriberParams, the part that every version has. */
struct subscriber_parameters {
  size_t size;
  const char *name;
  char *old_name;
  size_t old_size;
};

SIMGPU_EXPORT int cuptiSubscribe_v2(void **handle, callback function, void *user,
                                    struct subscriber_parameters *parameters) {
  static const char *owner;
  const int result = subscribe(handle, function, user);
  const bool refused = result == CUPTI_ABI_RESULT_MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED;
  if (parameters && refused && parameters->old_name && parameters->old_size && owner) {
    strncpy(parameters->old_name, owner, parameters->old_size - 1);
    parameters->old_name[parameters->old_size - 1] = 0;
  }
  if (result == CUPTI_ABI_RESULT_SUCCESS) owner = parameters ? parameters->name : NULL;
  return result;
}
#endif
