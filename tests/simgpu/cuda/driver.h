/*
 * How an export of libcuda is written; see cudart/api.h. DRIVER_n needs a current context, as most
 * calls do; DEVICE_n only cuInit. A context's handle is the number of its device, plus one.
 */
#ifndef SIMGPU_DRIVER_H
#define SIMGPU_DRIVER_H
#include "core/graph.h"
#include "core/kernel.h"
#include "core/simgpu.h"
#include "include/simgpu_abi.h"

typedef uint64_t device_pointer;
typedef struct simgpu_stream *stream_handle;
typedef struct simgpu_kernel *function_handle;

int driver_begin(struct simgpu_call *call, uint32_t cbid, const char *function,
                 const void *parameters, const char *symbol, bool needs_context);
int driver_end(struct simgpu_call *call, int result);

#define CONTEXT_OF(device) ((void *)(uintptr_t)((device) + 1))
#define BODY(name, cbid, symbol, needs_context, result_of)                                     \
  {                                                                                            \
    struct simgpu_call call_;                                                                  \
    int result_ = driver_begin(&call_, cbid, #name, &parameters_, symbol, needs_context);      \
    if (result_ == SIMGPU_OK) result_ = (result_of);                                           \
    return driver_end(&call_, result_);                                                        \
  }
#define PACK(...) struct { __VA_ARGS__ } parameters_

#define CALL_0(n, cbid, need, x) \
  SIMGPU_EXPORT int n(void) { PACK(int none;) = {0}; BODY(n, cbid, NULL, need, x) }
#define CALL_1(n, cbid, need, A, a, x) \
  SIMGPU_EXPORT int n(A a) { PACK(A a;) = {a}; BODY(n, cbid, NULL, need, x) }
#define CALL_2(n, cbid, need, A, a, B, b, x) \
  SIMGPU_EXPORT int n(A a, B b) { PACK(A a; B b;) = {a, b}; BODY(n, cbid, NULL, need, x) }
#define CALL_3(n, cbid, need, A, a, B, b, C, c, x) \
  SIMGPU_EXPORT int n(A a, B b, C c) \
  { PACK(A a; B b; C c;) = {a, b, c}; BODY(n, cbid, NULL, need, x) }
#define CALL_4(n, cbid, need, A, a, B, b, C, c, D, d, x) \
  SIMGPU_EXPORT int n(A a, B b, C c, D d) \
  { PACK(A a; B b; C c; D d;) = {a, b, c, d}; BODY(n, cbid, NULL, need, x) }
#define CALL_5(n, cbid, need, A, a, B, b, C, c, D, d, E, e, x) \
  SIMGPU_EXPORT int n(A a, B b, C c, D d, E e) \
  { PACK(A a; B b; C c; D d; E e;) = {a, b, c, d, e}; BODY(n, cbid, NULL, need, x) }

#define DRIVER_1(n, cbid, ...) CALL_1(n, cbid, true, __VA_ARGS__)
#define DRIVER_2(n, cbid, ...) CALL_2(n, cbid, true, __VA_ARGS__)
#define DRIVER_3(n, cbid, ...) CALL_3(n, cbid, true, __VA_ARGS__)
#define DRIVER_4(n, cbid, ...) CALL_4(n, cbid, true, __VA_ARGS__)
#define DRIVER_5(n, cbid, ...) CALL_5(n, cbid, true, __VA_ARGS__)
#define DEVICE_1(n, cbid, ...) CALL_1(n, cbid, false, __VA_ARGS__)
#define DEVICE_2(n, cbid, ...) CALL_2(n, cbid, false, __VA_ARGS__)
#define DEVICE_3(n, cbid, ...) CALL_3(n, cbid, false, __VA_ARGS__)

#endif
