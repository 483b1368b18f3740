/*
 * include/simgpu_abi.h against NVIDIA's headers where those are installed: compiled only, by
 * tests/integration/test_simgpu_abi.py.
 */
#include <cuda.h>
#include <cuda_runtime_api.h>
#include <cupti.h>

#include "core/simgpu.h"
#include "include/simgpu_abi.h"

#define SAME_SIZE(ours, theirs) \
  _Static_assert(sizeof(ours) == sizeof(theirs), #theirs " has another size")
#define SAME_FIELD(ours, field, theirs, name)                                  \
  _Static_assert(offsetof(ours, field) == offsetof(theirs, name) &&            \
                     sizeof(((ours *)0)->field) == sizeof(((theirs *)0)->name), \
                 #theirs "." #name " lies elsewhere")
#define SAME_VALUE(ours, theirs) \
  _Static_assert((int)(ours) == (int)(theirs), #theirs " has another value")

SAME_SIZE(struct abi_dim3, dim3);

SAME_SIZE(struct abi_launch_attribute, cudaLaunchAttribute);
SAME_FIELD(struct abi_launch_attribute, id, cudaLaunchAttribute, id);
_Static_assert(offsetof(struct abi_launch_attribute, value) == offsetof(cudaLaunchAttribute, val),
               "value");
SAME_SIZE(struct abi_launch_attribute, CUlaunchAttribute);
SAME_VALUE(ABI_ATTRIBUTE_COOPERATIVE, cudaLaunchAttributeCooperative);
SAME_VALUE(ABI_ATTRIBUTE_CLUSTER, cudaLaunchAttributeClusterDimension);
SAME_VALUE(ABI_ATTRIBUTE_PRIORITY, cudaLaunchAttributePriority);

SAME_SIZE(struct abi_launch_config, cudaLaunchConfig_t);
SAME_FIELD(struct abi_launch_config, block, cudaLaunchConfig_t, blockDim);
SAME_FIELD(struct abi_launch_config, dynamic_shared, cudaLaunchConfig_t, dynamicSmemBytes);
SAME_FIELD(struct abi_launch_config, stream, cudaLaunchConfig_t, stream);
SAME_FIELD(struct abi_launch_config, attributes, cudaLaunchConfig_t, attrs);
SAME_FIELD(struct abi_launch_config, attribute_count, cudaLaunchConfig_t, numAttrs);

SAME_SIZE(struct abi_driver_launch_config, CUlaunchConfig);
SAME_FIELD(struct abi_driver_launch_config, dynamic_shared, CUlaunchConfig, sharedMemBytes);
SAME_FIELD(struct abi_driver_launch_config, stream, CUlaunchConfig, hStream);
SAME_FIELD(struct abi_driver_launch_config, attribute_count, CUlaunchConfig, numAttrs);

SAME_FIELD(struct abi_pointer_attributes, type, struct cudaPointerAttributes, type);
SAME_FIELD(struct abi_pointer_attributes, device, struct cudaPointerAttributes, device);
SAME_FIELD(struct abi_pointer_attributes, device_pointer, struct cudaPointerAttributes,
           devicePointer);
SAME_FIELD(struct abi_pointer_attributes, host_pointer, struct cudaPointerAttributes, hostPointer);

SAME_SIZE(struct abi_function_attributes, struct cudaFuncAttributes);
SAME_FIELD(struct abi_function_attributes, registers, struct cudaFuncAttributes, numRegs);
SAME_FIELD(struct abi_function_attributes, most_dynamic_shared, struct cudaFuncAttributes,
           maxDynamicSharedSizeBytes);
SAME_FIELD(struct abi_function_attributes, non_portable_cluster, struct cudaFuncAttributes,
           nonPortableClusterSizeAllowed);

SAME_SIZE(struct abi_kernel_node, struct cudaKernelNodeParams);
SAME_FIELD(struct abi_kernel_node, dynamic_shared, struct cudaKernelNodeParams, sharedMemBytes);
SAME_FIELD(struct abi_kernel_node, arguments, struct cudaKernelNodeParams, kernelParams);
SAME_SIZE(struct abi_memset_node, struct cudaMemsetParams);
SAME_FIELD(struct abi_memset_node, element_size, struct cudaMemsetParams, elementSize);
SAME_FIELD(struct abi_memset_node, height, struct cudaMemsetParams, height);

SAME_SIZE(struct abi_driver_copy_2d, CUDA_MEMCPY2D);
SAME_FIELD(struct abi_driver_copy_2d, from_host, CUDA_MEMCPY2D, srcHost);
SAME_FIELD(struct abi_driver_copy_2d, from_pitch, CUDA_MEMCPY2D, srcPitch);
SAME_FIELD(struct abi_driver_copy_2d, to_type, CUDA_MEMCPY2D, dstMemoryType);
SAME_FIELD(struct abi_driver_copy_2d, to_device, CUDA_MEMCPY2D, dstDevice);
SAME_FIELD(struct abi_driver_copy_2d, width, CUDA_MEMCPY2D, WidthInBytes);
SAME_VALUE(ABI_DRIVER_MEMORY_HOST, CU_MEMORYTYPE_HOST);
SAME_VALUE(ABI_DRIVER_MEMORY_DEVICE, CU_MEMORYTYPE_DEVICE);
SAME_VALUE(ABI_DRIVER_MEMORY_UNIFIED, CU_MEMORYTYPE_UNIFIED);

SAME_VALUE(ABI_HOST_TO_DEVICE, cudaMemcpyHostToDevice);
SAME_VALUE(ABI_DEVICE_TO_HOST, cudaMemcpyDeviceToHost);
SAME_VALUE(ABI_DEVICE_TO_DEVICE, cudaMemcpyDeviceToDevice);
SAME_VALUE(ABI_DEFAULT, cudaMemcpyDefault);

SAME_VALUE(SIMGPU_INVALID_VALUE, cudaErrorInvalidValue);
SAME_VALUE(SIMGPU_OUT_OF_MEMORY, cudaErrorMemoryAllocation);
SAME_VALUE(SIMGPU_INITIALIZATION_ERROR, cudaErrorInitializationError);
SAME_VALUE(SIMGPU_NO_DRIVER, cudaErrorInsufficientDriver);
SAME_VALUE(SIMGPU_NO_DEVICE, cudaErrorNoDevice);
SAME_VALUE(SIMGPU_INVALID_DEVICE, cudaErrorInvalidDevice);
SAME_VALUE(SIMGPU_INVALID_CONTEXT, CUDA_ERROR_INVALID_CONTEXT);
SAME_VALUE(SIMGPU_INVALID_HANDLE, cudaErrorInvalidResourceHandle);
SAME_VALUE(SIMGPU_INVALID_HANDLE, CUDA_ERROR_INVALID_HANDLE);
SAME_VALUE(SIMGPU_ILLEGAL_STATE, cudaErrorIllegalState);
SAME_VALUE(SIMGPU_SYMBOL_NOT_FOUND, CUDA_ERROR_NOT_FOUND);
SAME_VALUE(SIMGPU_NOT_READY, cudaErrorNotReady);
SAME_VALUE(SIMGPU_NOT_SUPPORTED, cudaErrorNotSupported);
SAME_VALUE(SIMGPU_CAPTURE_UNSUPPORTED, cudaErrorStreamCaptureUnsupported);
SAME_VALUE(SIMGPU_CAPTURE_INVALIDATED, cudaErrorStreamCaptureInvalidated);
SAME_VALUE(SIMGPU_CAPTURE_UNMATCHED, cudaErrorStreamCaptureUnmatched);
SAME_VALUE(SIMGPU_CAPTURE_UNJOINED, cudaErrorStreamCaptureUnjoined);
SAME_VALUE(SIMGPU_CAPTURE_ISOLATION, cudaErrorStreamCaptureIsolation);

SAME_VALUE(SIMGPU_MEMORY_PAGEABLE, CUPTI_ACTIVITY_MEMORY_KIND_PAGEABLE);
SAME_VALUE(SIMGPU_MEMORY_PINNED, CUPTI_ACTIVITY_MEMORY_KIND_PINNED);
SAME_VALUE(SIMGPU_MEMORY_DEVICE, CUPTI_ACTIVITY_MEMORY_KIND_DEVICE);
SAME_VALUE(SIMGPU_MEMORY_MANAGED, CUPTI_ACTIVITY_MEMORY_KIND_MANAGED);
SAME_VALUE(SIMGPU_COPY_HTOD, CUPTI_ACTIVITY_MEMCPY_KIND_HTOD);
SAME_VALUE(SIMGPU_COPY_DTOH, CUPTI_ACTIVITY_MEMCPY_KIND_DTOH);
SAME_VALUE(SIMGPU_COPY_DTOD, CUPTI_ACTIVITY_MEMCPY_KIND_DTOD);
SAME_VALUE(SIMGPU_COPY_HTOH, CUPTI_ACTIVITY_MEMCPY_KIND_HTOH);
SAME_VALUE(SIMGPU_COPY_PTOP, CUPTI_ACTIVITY_MEMCPY_KIND_PTOP);
SAME_VALUE(SIMGPU_DRIVER, CUPTI_CB_DOMAIN_DRIVER_API);
SAME_VALUE(SIMGPU_RUNTIME, CUPTI_CB_DOMAIN_RUNTIME_API);
SAME_VALUE(SIMGPU_STREAM_NON_BLOCKING, cudaStreamNonBlocking);
SAME_VALUE(SIMGPU_EVENT_DISABLE_TIMING, cudaEventDisableTiming);
