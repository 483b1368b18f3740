/* What the device tells us, and what becomes of it. */
#include <string.h>
#include <unistd.h>

#include "resource.h"
#include "tracer.h"

static void on_enter(struct simgpu_call *call) { callback_call(call, 0, NULL); }

static void put_call(const struct simgpu_call *call, int result, uint64_t end_ns) {
  struct record record;
  external_put(call->correlation_id);
  record_begin(&record, call->domain == SIMGPU_DRIVER ? CUPTI_ABI_KIND_DRIVER
                                                      : CUPTI_ABI_KIND_RUNTIME);
  PUT(&record, API_CBID, call->cbid);
  PUT(&record, API_START, activity_convert_ns(call->start_ns));
  PUT(&record, API_END, activity_convert_ns(end_ns));
  PUT(&record, API_PROCESS_ID, getpid());
  PUT(&record, API_THREAD_ID, activity_thread_id());
  PUT(&record, API_CORRELATION_ID, call->correlation_id);
  PUT(&record, API_RETURN_VALUE, result);
  buffer_put(&record);
}

static void on_leave(struct simgpu_call *call, int result, uint64_t end_ns) {
  callback_call(call, 1, &result);
  if (activity_is_traced(call->domain, call->cbid)) put_call(call, result, end_ns);
}

static void on_operation(const struct simgpu_operation *operation) {
  struct record record;
  if (!pending_close(operation->sequence) || !record_operation(operation, &record)) return;
  pending_add(operation->sequence, operation->end_ns, &record);
  pending_drain(simgpu_now_ns());
}

static void on_started(const struct simgpu_operation *operation) {
  struct record record;
  if (record_operation(operation, &record)) pending_open(operation->sequence, &record);
}

static void on_sync(const struct simgpu_sync *sync) {
  struct record record;
  if (!activity_is_on(CUPTI_ABI_KIND_SYNCHRONIZATION)) return;
  record_begin(&record, CUPTI_ABI_KIND_SYNCHRONIZATION);
  PUT(&record, SYNCHRONIZATION_TYPE, sync->type);
  PUT(&record, SYNCHRONIZATION_START, activity_convert_ns(sync->start_ns));
  PUT(&record, SYNCHRONIZATION_END, activity_convert_ns(sync->end_ns));
  PUT(&record, SYNCHRONIZATION_CORRELATION_ID, sync->correlation_id);
  PUT(&record, SYNCHRONIZATION_CONTEXT_ID, sync->context);
  PUT(&record, SYNCHRONIZATION_STREAM_ID, sync->stream);
  PUT(&record, SYNCHRONIZATION_CUDA_EVENT_ID, sync->event_id);
  if (tracer_version() >= 1208) PUT(&record, SYNCHRONIZATION_CUDA_EVENT_SYNC_ID, sync->event_id);
  buffer_put(&record);
}

static const struct simgpu_observer observer = {
    .admit = activity_admit,
    .depart = pending_depart,
    .arrive = pending_arrive,
    .enter = on_enter,
    .leave = on_leave,
    .operation = on_operation,
    .started = on_started,
    .sync = on_sync,
    .allocation = resource_put_allocation,
    .stream = resource_put_stream,
    .context = resource_put_context,
};

void observer_attach(void) { simgpu_observe(&observer); }

void observer_detach(void) { simgpu_observe(NULL); }
