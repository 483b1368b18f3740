/*
 * How an export of libcudart is written: one line with its name, CUPTI's ids, its arguments, and
 * what it does.
 *
 *   API_2(cudaMalloc, 20, void **, pointer, size_t, bytes, allocate(pointer, bytes))
 *
 * becomes a function that tells the observer, with the arguments in a structure as CUPTI's own, and
 * that keeps the error for cudaGetLastError. STREAM_API_n takes a stream as its last argument, and
 * makes the _ptsz twin, for which stream 0 is the thread's own.
 */
#ifndef SIMGPU_CUDART_API_H
#define SIMGPU_CUDART_API_H
#include "core/graph.h"
#include "core/kernel.h"
#include "core/simgpu.h"
#include "include/simgpu_abi.h"

struct runtime_call {
  struct simgpu_call runtime, driver;
  bool has_driver;
};

/* SIMGPU_OK if the body is to run, else what to return. */
int runtime_begin(struct runtime_call *call, uint32_t cbid, const char *function,
                  const void *parameters, const char *symbol);
int runtime_end(struct runtime_call *call, int result);
int runtime_last_error(bool clear);

/* The driver call within a runtime call, by the latter's id; NULL for none. */
struct driver_twin {
  uint16_t runtime_cbid, cbid;
  const char *function;
};
const struct driver_twin *runtime_driver_twin(uint32_t runtime_cbid);

static inline void *per_thread_stream(void *stream) { return stream ? stream : (void *)2; }

#define BODY(name, cbid, symbol, result_of)                                    \
  {                                                                            \
    struct runtime_call call_;                                                 \
    int result_ = runtime_begin(&call_, cbid, #name, &parameters_, symbol);    \
    if (result_ == SIMGPU_OK) result_ = (result_of);                           \
    return runtime_end(&call_, result_);                                       \
  }
#define PACK(...) struct { __VA_ARGS__ } parameters_

#define API_0(name, cbid, x) \
  SIMGPU_EXPORT int name(void) { PACK(int none;) = {0}; BODY(name, cbid, NULL, x) }
#define API_1(name, cbid, A, a, x) \
  SIMGPU_EXPORT int name(A a) { PACK(A a;) = {a}; BODY(name, cbid, NULL, x) }
#define API_2(name, cbid, A, a, B, b, x) \
  SIMGPU_EXPORT int name(A a, B b) { PACK(A a; B b;) = {a, b}; BODY(name, cbid, NULL, x) }
#define API_3(name, cbid, A, a, B, b, C, c, x) \
  SIMGPU_EXPORT int name(A a, B b, C c) \
  { PACK(A a; B b; C c;) = {a, b, c}; BODY(name, cbid, NULL, x) }
#define API_4(name, cbid, A, a, B, b, C, c, D, d, x) \
  SIMGPU_EXPORT int name(A a, B b, C c, D d) \
  { PACK(A a; B b; C c; D d;) = {a, b, c, d}; BODY(name, cbid, NULL, x) }
#define API_5(name, cbid, A, a, B, b, C, c, D, d, E, e, x) \
  SIMGPU_EXPORT int name(A a, B b, C c, D d, E e) \
  { PACK(A a; B b; C c; D d; E e;) = {a, b, c, d, e}; BODY(name, cbid, NULL, x) }
#define API_6(name, cbid, A, a, B, b, C, c, D, d, E, e, F, f, x) \
  SIMGPU_EXPORT int name(A a, B b, C c, D d, E e, F f) \
  { PACK(A a; B b; C c; D d; E e; F f;) = {a, b, c, d, e, f}; BODY(name, cbid, NULL, x) }
#define API_7(name, cbid, A, a, B, b, C, c, D, d, E, e, F, f, G, g, x) \
  SIMGPU_EXPORT int name(A a, B b, C c, D d, E e, F f, G g) \
  { PACK(A a; B b; C c; D d; E e; F f; G g;) = {a, b, c, d, e, f, g}; BODY(name, cbid, NULL, x) }

/* `stream` in the expression is the handle after the twin's change. */
#define PTSZ stream = per_thread_stream(stream);
#define STREAM_API_1(name, cbid, cbid_ptsz, x) \
  API_1(name, cbid, void *, stream, x) \
  SIMGPU_EXPORT int name##_ptsz(void *stream) \
  { PACK(void *stream;) = {stream}; PTSZ BODY(name, cbid_ptsz, NULL, x) }
#define STREAM_API_2(name, cbid, cbid_ptsz, A, a, x) \
  API_2(name, cbid, A, a, void *, stream, x) \
  SIMGPU_EXPORT int name##_ptsz(A a, void *stream) \
  { PACK(A a; void *stream;) = {a, stream}; PTSZ BODY(name, cbid_ptsz, NULL, x) }
#define STREAM_API_3(name, cbid, cbid_ptsz, A, a, B, b, x) \
  API_3(name, cbid, A, a, B, b, void *, stream, x) \
  SIMGPU_EXPORT int name##_ptsz(A a, B b, void *stream) \
  { PACK(A a; B b; void *stream;) = {a, b, stream}; PTSZ BODY(name, cbid_ptsz, NULL, x) }
#define STREAM_API_4(name, cbid, cbid_ptsz, A, a, B, b, C, c, x) \
  API_4(name, cbid, A, a, B, b, C, c, void *, stream, x) \
  SIMGPU_EXPORT int name##_ptsz(A a, B b, C c, void *stream) \
  { PACK(A a; B b; C c; void *stream;) = {a, b, c, stream}; PTSZ BODY(name, cbid_ptsz, NULL, x) }
#define STREAM_API_5(name, cbid, cbid_ptsz, A, a, B, b, C, c, D, d, x) \
  API_5(name, cbid, A, a, B, b, C, c, D, d, void *, stream, x) \
  SIMGPU_EXPORT int name##_ptsz(A a, B b, C c, D d, void *stream) \
  { PACK(A a; B b; C c; D d; void *stream;) = {a, b, c, d, stream}; \
    PTSZ BODY(name, cbid_ptsz, NULL, x) }
#define STREAM_API_6(name, cbid, cbid_ptsz, A, a, B, b, C, c, D, d, E, e, x) \
  API_6(name, cbid, A, a, B, b, C, c, D, d, E, e, void *, stream, x) \
  SIMGPU_EXPORT int name##_ptsz(A a, B b, C c, D d, E e, void *stream) \
  { PACK(A a; B b; C c; D d; E e; void *stream;) = {a, b, c, d, e, stream}; \
    PTSZ BODY(name, cbid_ptsz, NULL, x) }

#endif
