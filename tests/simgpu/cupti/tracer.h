/*
 * The look-alike libcupti. It watches the virtual device through one `struct simgpu_observer`:
 *
 *   operation -> record -> pending (until its end has come) -> buffer of the client -> delivery
 *
 * and the records of calls, which have ended already, go straight into a buffer.
 */
#ifndef SIMGPU_TRACER_H
#define SIMGPU_TRACER_H
#include "core/simgpu.h"
#include "device_abi.h" /* injectors/library/native: CUPTI's kinds, sizes and offsets */

enum {
  LONGEST_RECORD = 256,
  MOST_KINDS = 64,
  DOMAINS = 8,
  MOST_CBIDS = 1024,
};

/* CUptiResult, beyond those in device_abi.h. */
enum {
  RESULT_INVALID_CONTEXT = 3,
  RESULT_INVALID_OPERATION = 7,
  RESULT_PARAMETER_SIZE_NOT_SUFFICIENT = 10,
  RESULT_QUEUE_EMPTY = 18,
  RESULT_INVALID_KIND = 21,
};

/* What is recorded of operations. */
enum {
  ADMIT_KERNEL = 1,
  ADMIT_CONCURRENT_KERNEL = 2,
  ADMIT_MEMCPY = 4,
  ADMIT_MEMCPY2 = 8,
  ADMIT_MEMSET = 16,
  ADMIT_GRAPH_TRACE = 32,
};

struct record {
  uint8_t bytes[LONGEST_RECORD];
  uint32_t size;
  uint8_t start_at, end_at; /* offsets of the times; 0: it has none that a forced flush may blank */
};

/* version.c */
uint32_t tracer_version(void); /* CUDA's: major * 100 + minor */
/* What every entry of the API begins with: CUPTI_ABI_RESULT_SUCCESS, or what to return. */
int tracer_enter(void);

/* activity.c */
uint32_t activity_admit(void); /* bits of ADMIT_..., for record_operation */
bool activity_is_on(uint32_t kind);
bool activity_is_traced(uint32_t domain, uint32_t cbid);
void activity_reset(void);
uint64_t activity_now_ns(void);
uint64_t activity_convert_ns(uint64_t time_ns); /* the device's clock to the client's */
void activity_reset_clock(void);
uint32_t activity_thread_id(void);

/* record.c: false if it was not admitted. */
bool record_operation(const struct simgpu_operation *operation, struct record *record);
void record_begin(struct record *record, uint32_t kind);
void record_dump(uint32_t kind);
#define PUT(record, FIELD, value)                                            \
  do {                                                                       \
    const CUPTI_ABI_##FIELD##_T it_ = (CUPTI_ABI_##FIELD##_T)(value);        \
    __builtin_memcpy((record)->bytes + CUPTI_ABI_##FIELD, &it_, sizeof it_); \
  } while (0)

/* pending.c */
void pending_add(uint64_t sequence, uint64_t end_ns, const struct record *record);
void pending_drain(uint64_t now_ns);
/* Into the client's buffers what has ended; by force, the rest too, as unfinished. */
void pending_deliver(bool force);
/* The same, and when it returns nobody else has a record in hand that was there before. */
void pending_flush(bool force);
/* Operations on their way here: until those who are on it now have arrived. */
unsigned pending_depart(void);
void pending_arrive(unsigned ticket);
void pending_open(uint64_t sequence, const struct record *record);
/* False if it was delivered unfinished: then it must not be again. */
bool pending_close(uint64_t sequence);

/* buffer.c */
void buffer_put(const struct record *record);
bool buffer_has_client(void);
void buffer_flush(void);
void buffer_reset(void);
void buffer_take_full_ones_every(uint32_t period_ms);

/* names.c */
struct name;
void names_move(struct record *record, struct name **names);
void names_free(struct name *names);

/* callback.c */
void callback_call(struct simgpu_call *call, int site, int *result);
void callback_reset(void);

/* external.c: the records that go before the call's. */
void external_put(uint32_t correlation_id);

/* observer.c */
void observer_attach(void);
void observer_detach(void);

#endif
