/* cudaMemcpy and cudaMemset, and their families. */
#include "api.h"
#include "core/copy.h"

enum { INVALID_DIRECTION = 21, INVALID_SYMBOL = 13 };

/* registration.c: an API call of its own on the real thing too, but not within another. */
int symbol_address(void **pointer, const void *symbol);

static const enum simgpu_direction DIRECTIONS[] = {
    [ABI_HOST_TO_HOST] = SIMGPU_ON_HOST,         [ABI_HOST_TO_DEVICE] = SIMGPU_TO_DEVICE,
    [ABI_DEVICE_TO_HOST] = SIMGPU_FROM_DEVICE,   [ABI_DEVICE_TO_DEVICE] = SIMGPU_ON_DEVICE,
    [ABI_DEFAULT] = SIMGPU_BY_POINTERS,
};

static int copy_2d(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width,
                   size_t height, int kind, bool wait, void *stream) {
  if (kind < ABI_HOST_TO_HOST || kind > ABI_DEFAULT) return INVALID_DIRECTION;
  const struct simgpu_rows target = {to, to_pitch}, source = {(void *)from, from_pitch};
  return simgpu_copy(target, source, width, height, DIRECTIONS[kind], wait,
                     simgpu_stream_of(stream));
}

static int copy(void *to, const void *from, size_t bytes, int kind, bool wait, void *stream) {
  return copy_2d(to, bytes, from, bytes, bytes, 1, kind, wait, stream);
}

static int fill_2d(void *to, size_t pitch, int value, size_t width, size_t height,
                   bool asynchronous, void *stream) {
  const struct simgpu_rows target = {to, pitch};
  return simgpu_fill(target, width, height, (uint8_t)value, 1, asynchronous,
                     simgpu_stream_of(stream));
}

static int copy_to_symbol(const void *symbol, const void *from, size_t bytes, size_t offset,
                          int kind, bool wait, void *stream) {
  void *to;
  const int result = symbol_address(&to, symbol);
  return result ? result : copy((char *)to + offset, from, bytes, kind, wait, stream);
}

static int copy_from_symbol(void *to, const void *symbol, size_t bytes, size_t offset, int kind,
                            bool wait, void *stream) {
  void *from;
  const int result = symbol_address(&from, symbol);
  return result ? result : copy(to, (char *)from + offset, bytes, kind, wait, stream);
}

API_4(cudaMemcpy, 31, void *, to, const void *, from, size_t, bytes, int, kind,
      copy(to, from, bytes, kind, true, NULL))
API_7(cudaMemcpy2D, 32, void *, to, size_t, to_pitch, const void *, from, size_t, from_pitch,
      size_t, width, size_t, height, int, kind,
      copy_2d(to, to_pitch, from, from_pitch, width, height, kind, true, NULL))
API_5(cudaMemcpyToSymbol, 39, const void *, symbol, const void *, from, size_t, bytes, size_t,
      offset, int, kind, copy_to_symbol(symbol, from, bytes, offset, kind, true, NULL))
API_5(cudaMemcpyFromSymbol, 40, void *, to, const void *, symbol, size_t, bytes, size_t, offset,
      int, kind, copy_from_symbol(to, symbol, bytes, offset, kind, true, NULL))
STREAM_API_5(cudaMemcpyAsync, 41, 225, void *, to, const void *, from, size_t, bytes, int, kind,
             copy(to, from, bytes, kind, false, stream))
API_5(cudaMemcpyPeer, 160, void *, to, int, to_device, const void *, from, int, from_device,
      size_t, bytes,
      ((void)to_device, (void)from_device, copy(to, from, bytes, ABI_DEVICE_TO_DEVICE, true, NULL)))
API_3(cudaMemset, 49, void *, to, int, value, size_t, bytes,
      fill_2d(to, bytes, value, bytes, 1, false, NULL))
API_5(cudaMemset2D, 50, void *, to, size_t, pitch, int, value, size_t, width, size_t, height,
      fill_2d(to, pitch, value, width, height, false, NULL))
STREAM_API_4(cudaMemsetAsync, 51, 235, void *, to, int, value, size_t, bytes,
             fill_2d(to, bytes, value, bytes, 1, true, stream))
STREAM_API_6(cudaMemset2DAsync, 52, 236, void *, to, size_t, pitch, int, value, size_t, width,
             size_t, height, fill_2d(to, pitch, value, width, height, true, stream))

/* The twins of the calls that take no stream are named _ptds. */
SIMGPU_EXPORT int cudaMemcpy_ptds(void *to, const void *from, size_t bytes, int kind) {
  PACK(void *to; const void *from; size_t bytes; int kind;) = {to, from, bytes, kind};
  BODY(cudaMemcpy_ptds, 215, NULL, copy(to, from, bytes, kind, true, per_thread_stream(NULL)))
}

SIMGPU_EXPORT int cudaMemset_ptds(void *to, int value, size_t bytes) {
  PACK(void *to; int value; size_t bytes;) = {to, value, bytes};
  BODY(cudaMemset_ptds, 233, NULL,
       fill_2d(to, bytes, value, bytes, 1, false, per_thread_stream(NULL)))
}

SIMGPU_EXPORT int cudaMemcpyToSymbol_ptds(const void *symbol, const void *from, size_t bytes,
                                          size_t offset, int kind) {
  PACK(const void *symbol, *from; size_t bytes, offset; int kind;) = {symbol, from, bytes, offset,
                                                                      kind};
  BODY(cudaMemcpyToSymbol_ptds, 223, NULL,
       copy_to_symbol(symbol, from, bytes, offset, kind, true, per_thread_stream(NULL)))
}

SIMGPU_EXPORT int cudaMemcpyFromSymbol_ptds(void *to, const void *symbol, size_t bytes,
                                            size_t offset, int kind) {
  PACK(void *to; const void *symbol; size_t bytes, offset; int kind;) = {to, symbol, bytes, offset,
                                                                         kind};
  BODY(cudaMemcpyFromSymbol_ptds, 224, NULL,
       copy_from_symbol(to, symbol, bytes, offset, kind, true, per_thread_stream(NULL)))
}

#define COPY_2D_ASYNC(function, cbid, change)                                                   \
  SIMGPU_EXPORT int function(void *to, size_t to_pitch, const void *from, size_t from_pitch,    \
                             size_t width, size_t height, int kind, void *stream) {             \
    PACK(void *to; size_t to_pitch; const void *from; size_t from_pitch, width, height;         \
         int kind; void *stream;) = {to, to_pitch, from, from_pitch, width, height, kind, stream}; \
    change BODY(function, cbid, NULL,                                                           \
                copy_2d(to, to_pitch, from, from_pitch, width, height, kind, false, stream))    \
  }
COPY_2D_ASYNC(cudaMemcpy2DAsync, 44, )
COPY_2D_ASYNC(cudaMemcpy2DAsync_ptsz, 228, PTSZ)

SIMGPU_EXPORT int cudaMemcpyPeerAsync(void *to, int to_device, const void *from, int from_device,
                                      size_t bytes, void *stream) {
  PACK(void *to; int to_device; const void *from; int from_device; size_t bytes;
       void *stream;) = {to, to_device, from, from_device, bytes, stream};
  BODY(cudaMemcpyPeerAsync, 161, NULL,
       copy(to, from, bytes, ABI_DEVICE_TO_DEVICE, false, stream))
}
