/* The Activity API: which kinds are on, whose clock, flushing. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "tracer.h"

typedef uint64_t (*timestamp_callback)(void);

static atomic_uchar kinds[MOST_KINDS];
static atomic_uchar traced[3][MOST_CBIDS]; /* calls, by domain */
static timestamp_callback _Atomic client_clock;
static atomic_int thread_id_type;
static atomic_bool overhead_told;

static void pause_ns(double ns) {
  struct timespec left = {(time_t)(ns / 1e9), (long)(ns - (double)(time_t)(ns / 1e9) * 1e9)};
  while (nanosleep(&left, &left) != 0 && errno == EINTR) {
  }
}

bool activity_is_on(uint32_t kind) { return kind < MOST_KINDS && kinds[kind]; }

uint32_t activity_admit(void) {
  static const struct {
    uint32_t kind, bit;
  } bits[] = {
      {CUPTI_ABI_KIND_KERNEL, ADMIT_KERNEL},
      {CUPTI_ABI_KIND_CONCURRENT_KERNEL, ADMIT_CONCURRENT_KERNEL},
      {CUPTI_ABI_KIND_MEMCPY, ADMIT_MEMCPY},
      {CUPTI_ABI_KIND_MEMCPY2, ADMIT_MEMCPY2},
      {CUPTI_ABI_KIND_MEMSET, ADMIT_MEMSET},
      {CUPTI_ABI_KIND_GRAPH_TRACE, ADMIT_GRAPH_TRACE},
  };
  uint32_t found = 0;
  for (size_t i = 0; i < sizeof bits / sizeof *bits; i++) {
    if (kinds[bits[i].kind]) found |= bits[i].bit;
  }
  return found;
}

bool activity_is_traced(uint32_t domain, uint32_t cbid) {
  return domain < 3 && cbid < MOST_CBIDS && traced[domain][cbid];
}

static bool exists(uint32_t kind) {
  const uint32_t version = tracer_version();
  const uint32_t last = version >= 1302 ? 58 : version >= 1300 ? 54 : version >= 1200 ? 52 : 51;
  return kind > 0 && kind <= last;
}

static void switch_calls(uint32_t kind, bool on) {
  const uint32_t domain = kind == CUPTI_ABI_KIND_DRIVER    ? SIMGPU_DRIVER
                          : kind == CUPTI_ABI_KIND_RUNTIME ? SIMGPU_RUNTIME
                                                           : 0;
  for (uint32_t cbid = 0; domain && cbid < MOST_CBIDS; cbid++) traced[domain][cbid] = on;
}

/* The first time that kernels are traced, the real one instruments every loaded module. */
static void instrument(void) {
  if (atomic_exchange(&overhead_told, true)) return;
  const uint64_t start_ns = activity_now_ns();
  pause_ns(simgpu_fault("slow_enable", 0));
  if (!activity_is_on(CUPTI_ABI_KIND_OVERHEAD)) return;
  struct record record;
  record_begin(&record, CUPTI_ABI_KIND_OVERHEAD);
  PUT(&record, OVERHEAD_OVERHEAD_KIND, CUPTI_ABI_OVERHEAD_CUPTI_INSTRUMENTATION);
  PUT(&record, OVERHEAD_OBJECT_KIND, 1); /* a process */
  PUT(&record, OVERHEAD_OBJECT_ID, getpid());
  PUT(&record, OVERHEAD_START, start_ns);
  PUT(&record, OVERHEAD_END, activity_now_ns());
  buffer_put(&record);
}

static void switch_on(void *kind) {
  kinds[*(uint32_t *)kind] = 1;
}

static void switch_off(void *kind) {
  kinds[*(uint32_t *)kind] = 0;
}

static int enable(uint32_t kind) {
  const int refused = tracer_enter();
  if (refused) return refused;
  if (!exists(kind)) return RESULT_INVALID_KIND;
  observer_attach();
  simgpu_between_operations(switch_on, &kind);
  switch_calls(kind, true);
  if (kind == CUPTI_ABI_KIND_CONCURRENT_KERNEL || kind == CUPTI_ABI_KIND_KERNEL) instrument();
  return CUPTI_ABI_RESULT_SUCCESS;
}

SIMGPU_EXPORT int cuptiActivityEnable(uint32_t kind) { return enable(kind); }

SIMGPU_EXPORT int cuptiActivityEnableAndDump(uint32_t kind) {
  const int result = enable(kind);
  if (result == CUPTI_ABI_RESULT_SUCCESS && buffer_has_client()) record_dump(kind);
  return result;
}

SIMGPU_EXPORT int cuptiActivityDisable(uint32_t kind) {
  const int refused = tracer_enter();
  if (refused) return refused;
  if (!exists(kind)) return RESULT_INVALID_KIND;
  const double hang = simgpu_fault("hang_disable", 0);
  if (hang == 1) {
    for (;;) pause();
  }
  pause_ns(hang);
  simgpu_between_operations(switch_off, &kind);
  switch_calls(kind, false);
  return CUPTI_ABI_RESULT_SUCCESS;
}

static int trace_call(uint32_t domain, uint32_t cbid, uint8_t on) {
  const int refused = tracer_enter();
  if (refused) return refused;
  if (cbid == 0 || cbid >= MOST_CBIDS) return CUPTI_ABI_RESULT_INVALID_PARAMETER;
  observer_attach();
  traced[domain][cbid] = on != 0;
  return CUPTI_ABI_RESULT_SUCCESS;
}

#if CUPTI_SONAME_VERSION >= 1200
static int enable_runtime_api(uint32_t cbid, uint8_t on) {
  return trace_call(SIMGPU_RUNTIME, cbid, on);
}

static int enable_driver_api(uint32_t cbid, uint8_t on) {
  return trace_call(SIMGPU_DRIVER, cbid, on);
}

/* Before 12.5 there is no such symbol: the resolver says null, and so does dlsym then. No sanitizer
   runtime is up when the dynamic linker calls a resolver. */
typedef int (*trace_function)(uint32_t, uint8_t);
__attribute__((no_sanitize("address", "undefined"), used)) static trace_function
resolve_runtime_api(void) {
  return tracer_version() >= 1205 ? enable_runtime_api : NULL;
}
__attribute__((no_sanitize("address", "undefined"), used)) static trace_function
resolve_driver_api(void) {
  return tracer_version() >= 1205 ? enable_driver_api : NULL;
}
SIMGPU_EXPORT int cuptiActivityEnableRuntimeApi(uint32_t cbid, uint8_t on)
    __attribute__((ifunc("resolve_runtime_api")));
SIMGPU_EXPORT int cuptiActivityEnableDriverApi(uint32_t cbid, uint8_t on)
    __attribute__((ifunc("resolve_driver_api")));
#else
int unused_before_12(void);
int unused_before_12(void) { return trace_call(0, 0, 0); }
#endif

/* ---- clock and threads -------------------------------------------------------------------- */

uint64_t activity_now_ns(void) {
  const timestamp_callback clock = client_clock;
  return clock ? clock() : simgpu_record_ns(simgpu_now_ns());
}

uint64_t activity_convert_ns(uint64_t time_ns) {
  const timestamp_callback clock = client_clock;
  return clock ? clock() + time_ns - simgpu_now_ns() : simgpu_record_ns(time_ns);
}

SIMGPU_EXPORT int cuptiGetTimestamp(uint64_t *timestamp) {
  if (!timestamp) return CUPTI_ABI_RESULT_INVALID_PARAMETER;
  *timestamp = activity_now_ns();
  return CUPTI_ABI_RESULT_SUCCESS;
}

SIMGPU_EXPORT int cuptiActivityRegisterTimestampCallback(timestamp_callback clock) {
  if (!clock) return CUPTI_ABI_RESULT_INVALID_PARAMETER;
  client_clock = clock;
  return CUPTI_ABI_RESULT_SUCCESS;
}

void activity_reset_clock(void) { client_clock = NULL; }

enum { THREAD_ID_DEFAULT, THREAD_ID_SYSTEM };

SIMGPU_EXPORT int cuptiSetThreadIdType(uint32_t type) {
  if (type > THREAD_ID_SYSTEM) return CUPTI_ABI_RESULT_INVALID_PARAMETER;
  thread_id_type = (int)type;
  return CUPTI_ABI_RESULT_SUCCESS;
}

SIMGPU_EXPORT int cuptiGetThreadIdType(uint32_t *type) {
  if (!type) return CUPTI_ABI_RESULT_INVALID_PARAMETER;
  *type = (uint32_t)thread_id_type;
  return CUPTI_ABI_RESULT_SUCCESS;
}

uint32_t activity_thread_id(void) {
  static _Thread_local uint32_t tid;
  if (thread_id_type == THREAD_ID_DEFAULT) return (uint32_t)(uintptr_t)pthread_self();
  if (!tid) tid = (uint32_t)syscall(SYS_gettid);
  return tid;
}

void activity_reset(void) {
  for (uint32_t kind = 0; kind < MOST_KINDS; kind++) kinds[kind] = 0;
  switch_calls(CUPTI_ABI_KIND_DRIVER, false);
  switch_calls(CUPTI_ABI_KIND_RUNTIME, false);
  overhead_told = false;
  thread_id_type = THREAD_ID_DEFAULT;
}
