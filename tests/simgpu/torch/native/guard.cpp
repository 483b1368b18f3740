// Devices, streams and events as c10 wants them: torch.Stream, torch.Event, device guards, futures.
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include "allocator.h"
#include "graph.h"
#include "runtime.h"

namespace simcuda {

namespace {

struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return kType; }

  c10::Device exchangeDevice(c10::Device device) const override {
    return c10::Device(kType, exchange_device(device.index()));
  }
  c10::Device getDevice() const override { return c10::Device(kType, current_device()); }
  void setDevice(c10::Device device) const override { exchange_device(device.index()); }
  void uncheckedSetDevice(c10::Device device) const noexcept override {
    try {
      exchange_device(device.index());
    } catch (...) {  // a guard's destructor calls this
    }
  }
  c10::DeviceIndex deviceCount() const noexcept override { return device_count(); }

  c10::Stream getStream(c10::Device device) const override { return current_stream(device.index()); }
  c10::Stream getDefaultStream(c10::Device device) const override {
    return default_stream(device.has_index() ? device.index() : current_device());
  }
  c10::Stream getNewStream(c10::Device device, int priority) const override {
    return pool_stream(device.index(), priority);
  }
  c10::Stream getStreamFromGlobalPool(c10::Device device, bool high) const override {
    return pool_stream(device.index(), high ? -1 : 0);
  }
  c10::Stream exchangeStream(c10::Stream stream) const override { return exchange_stream(stream); }
  void *getStreamNativeHandle(const c10::Stream stream) const override { return handle_of(stream); }

  bool queryStream(const c10::Stream &stream) const override {
    return ready(cudaStreamQuery(handle_of(stream)), "cudaStreamQuery");
  }
  void synchronizeStream(const c10::Stream &stream) const override {
    SIMCUDA_CHECK(cudaStreamSynchronize(handle_of(stream)));
  }
  void synchronizeDevice(const c10::DeviceIndex device) const override {
    int before = exchange_device(device);
    cudaError_t error = cudaDeviceSynchronize();
    exchange_device(before);
    check(error, "cudaDeviceSynchronize");
  }
  bool isStreamCapturing(const c10::Stream &) const override { return capturing(); }
  void recordDataPtrOnStream(const c10::DataPtr &data, const c10::Stream &stream) const override {
    allocator()->recordStream(data, stream);
  }

  void record(void **event, const c10::Stream &stream, const c10::DeviceIndex,
              const c10::EventFlag flag) const override {
    int before = exchange_device(stream.device_index());
    auto *made = static_cast<cudaEvent_t>(*event);
    if (!made) {
      unsigned flags = flag == c10::EventFlag::BACKEND_DEFAULT ? 0 : cudaEventDisableTiming;
      SIMCUDA_CHECK(cudaEventCreateWithFlags(&made, flags));
      *event = made;
    }
    cudaError_t error = cudaEventRecord(made, handle_of(stream));
    exchange_device(before);
    check(error, "cudaEventRecord");
  }
  void block(void *event, const c10::Stream &stream) const override {
    if (event)
      SIMCUDA_CHECK(cudaStreamWaitEvent(handle_of(stream), static_cast<cudaEvent_t>(event), 0));
  }
  bool queryEvent(void *event) const override {
    return !event || ready(cudaEventQuery(static_cast<cudaEvent_t>(event)), "cudaEventQuery");
  }
  void synchronizeEvent(void *event) const override {
    if (event) SIMCUDA_CHECK(cudaEventSynchronize(static_cast<cudaEvent_t>(event)));
  }
  void destroyEvent(void *event, const c10::DeviceIndex) const noexcept override {
    if (event) cudaEventDestroy(static_cast<cudaEvent_t>(event));
  }
  double elapsedTime(void *start, void *end, const c10::DeviceIndex) const override {
    TORCH_CHECK(start && end, "Both events must be recorded before calculating elapsed time.");
    float ms = 0;
    SIMCUDA_CHECK(cudaEventElapsedTime(&ms, static_cast<cudaEvent_t>(start),
                                       static_cast<cudaEvent_t>(end)));
    return ms;
  }

 private:
  static bool ready(cudaError_t error, const char *call) {
    if (error == cudaErrorNotReady) {
      cudaGetLastError();
      return false;
    }
    check(error, call);
    return true;
  }
};

C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard)

}  // namespace

}  // namespace simcuda
