// Devices and streams of the simulated runtime, in the terms of c10.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/Stream.h>

#include "runtime_api.h"

namespace simcuda {

constexpr auto kType = c10::DeviceType::PrivateUse1;

// Throws what PyTorch throws for a failed CUDA call.
void check(cudaError_t error, const char *call);
#define SIMCUDA_CHECK(call) ::simcuda::check(call, #call)

int device_count() noexcept;
int current_device() noexcept;
int exchange_device(int device);

c10::Stream default_stream(int device);
c10::Stream current_stream(int device);
c10::Stream exchange_stream(c10::Stream stream);
c10::Stream pool_stream(int device, int priority);
cudaStream_t handle_of(const c10::Stream &stream);
inline cudaStream_t current_handle() { return handle_of(current_stream(current_device())); }

// Our maths run on the host when an operation is enqueued; a collective of the simulated NCCL moves its
// bytes only when all ranks have come. Waits, without an API call that CUPTI would see, until every byte
// that work before the tail of this stream writes is there. Does not wait for simulated time.
void settle(cudaStream_t stream);

// The duration of the next operation that this thread enqueues; 0 leaves it to the stack's own model.
void next_duration(uint64_t duration_ns);

}  // namespace simcuda
