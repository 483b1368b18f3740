/* What every call of the runtime goes through. */
#include "api.h"

static _Thread_local int last_error;

int runtime_last_error(bool clear) {
  const int error = last_error;
  if (clear) last_error = SIMGPU_OK;
  return error;
}

static const struct driver_twin TWINS[] = {
    {20, 243, "cuMemAlloc_v2"},
    {22, 245, "cuMemFree_v2"},
    {25, 294, "cuMemAllocHost_v2"},
    {26, 38, "cuMemFreeHost"},
    {27, 271, "cuMemHostAlloc"},
    {31, 305, "cuMemcpy"},
    {41, 306, "cuMemcpyAsync"},
    {49, 249, "cuMemsetD8_v2"},
    {51, 216, "cuMemsetD8Async"},
    {129, 124, "cuStreamCreate"},
    {131, 126, "cuStreamSynchronize"},
    {132, 125, "cuStreamQuery"},
    {133, 118, "cuEventCreate"},
    {134, 118, "cuEventCreate"},
    {135, 119, "cuEventRecord"},
    {137, 121, "cuEventSynchronize"},
    {138, 120, "cuEventQuery"},
    {147, 295, "cuStreamWaitEvent"},
    {165, 17, "cuCtxSynchronize"},
    {211, 307, "cuLaunchKernel"},
    {214, 442, "cuLaunchKernel_ptsz"},
    {225, 418, "cuMemcpyAsync_ptsz"},
    {235, 428, "cuMemsetD8Async_ptsz"},
    {239, 440, "cuStreamSynchronize_ptsz"},
    {269, 477, "cuLaunchCooperativeKernel"},
    {284, 527, "cuLaunchHostFunc"},
    {311, 514, "cuGraphLaunch"},
    {312, 515, "cuGraphLaunch_ptsz"},
    {373, 598, "cuMemAllocAsync"},
    {375, 600, "cuMemFreeAsync"},
    {418, 643, "cuGraphInstantiateWithFlags"},
    {430, 652, "cuLaunchKernelEx"},
    {431, 653, "cuLaunchKernelEx_ptsz"},
    {443, 643, "cuGraphInstantiateWithFlags"},
    {505, 307, "cuLaunchKernel"},
    {506, 442, "cuLaunchKernel_ptsz"},
};

const struct driver_twin *runtime_driver_twin(uint32_t runtime_cbid) {
  size_t low = 0, high = sizeof TWINS / sizeof *TWINS;
  while (low < high) {
    const size_t middle = (low + high) / 2;
    if (TWINS[middle].runtime_cbid == runtime_cbid) return &TWINS[middle];
    if (TWINS[middle].runtime_cbid < runtime_cbid) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return NULL;
}

int runtime_begin(struct runtime_call *call, uint32_t cbid, const char *function,
                  const void *parameters, const char *symbol) {
  const int refused = simgpu_initialize();
  call->has_driver = false;
  if (refused) {
    call->runtime.function = NULL;
    return refused;
  }
  call->runtime.domain = SIMGPU_RUNTIME;
  call->runtime.cbid = cbid;
  call->runtime.function = function;
  call->runtime.parameters = parameters;
  call->runtime.symbol = symbol;
  simgpu_call_begin(&call->runtime);
  const struct driver_twin *twin = call->runtime.observed ? runtime_driver_twin(cbid) : NULL;
  if (!twin) return SIMGPU_OK;
  call->has_driver = true;
  call->driver.domain = SIMGPU_DRIVER;
  call->driver.cbid = twin->cbid;
  call->driver.function = twin->function;
  call->driver.parameters = NULL;
  call->driver.symbol = symbol;
  simgpu_call_begin(&call->driver);
  return SIMGPU_OK;
}

int runtime_end(struct runtime_call *call, int result) {
  if (call->has_driver) simgpu_call_end(&call->driver, result);
  if (call->runtime.function) simgpu_call_end(&call->runtime, result);
  if (result != SIMGPU_OK) last_error = result;
  return result;
}
