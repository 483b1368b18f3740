/* Attributes of the device and texts of errors: the same for runtime and driver. */
#include "identity.h"
#include "internal.h"

struct attribute {
  int id, value;
};

static const struct attribute ATTRIBUTES[] = {
    {1, 1024},                       /* threads per block */
    {2, 1024},   {3, 1024}, {4, 64}, /* block */
    {5, INT32_MAX}, {6, 65535}, {7, 65535},
    {8, 49152},                      /* shared memory per block */
    {9, 65536},                      /* constant memory */
    {10, 32},                        /* warp */
    {12, 65536},                     /* registers per block */
    {13, 1980000},                   /* clock, kHz */
    {16, SIMGPU_MULTIPROCESSORS},
    {31, 1},                         /* concurrent kernels */
    {36, 2619000},                   /* memory clock, kHz */
    {37, 5120},                      /* bus width */
    {38, 52428800},                  /* L2 */
    {39, 2048},                      /* threads per multiprocessor */
    {40, 3},                         /* copy engines */
    {41, 1},                         /* unified addressing */
    {75, SIMGPU_COMPUTE_MAJOR},
    {76, SIMGPU_COMPUTE_MINOR},
    {78, 1},                         /* stream priorities */
    {81, 233472},                    /* shared memory per multiprocessor */
    {82, 65536},                     /* registers per multiprocessor */
    {83, 1},                         /* managed memory */
    {95, 1},                         /* cooperative launch */
    {97, 232448},                    /* shared memory per block, by opting in */
    {106, 32},                       /* blocks per multiprocessor */
    {115, 1},                        /* memory pools */
    {120, 1},                        /* clusters */
};
enum { PCI_BUS = 33, PCI_DEVICE = 34, PCI_DOMAIN = 50 };

SIMGPU_EXPORT int simgpu_device_attribute(int *value, int attribute, int device) {
  if (!value) return SIMGPU_INVALID_VALUE;
  if (device < 0 || device >= simgpu_device_count()) return SIMGPU_INVALID_DEVICE;
  *value = 0;
  if (attribute == PCI_BUS) *value = simgpu_identity_pci_bus(device);
  if (attribute == PCI_DOMAIN) *value = SIMGPU_PCI_DOMAIN;
  for (size_t i = 0; i < sizeof ATTRIBUTES / sizeof *ATTRIBUTES; i++) {
    if (ATTRIBUTES[i].id == attribute) *value = ATTRIBUTES[i].value;
  }
  return SIMGPU_OK;
}

static const struct simgpu_error ERRORS[] = {
    {0, "cudaSuccess", "CUDA_SUCCESS", "no error"},
    {1, "cudaErrorInvalidValue", "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {2, "cudaErrorMemoryAllocation", "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {3, "cudaErrorInitializationError", "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {9, "cudaErrorInvalidConfiguration", NULL, "invalid configuration argument"},
    {13, "cudaErrorInvalidSymbol", NULL, "invalid device symbol"},
    {21, "cudaErrorInvalidMemcpyDirection", NULL, "invalid copy direction for memcpy"},
    {35, "cudaErrorInsufficientDriver", NULL,
     "CUDA driver version is insufficient for CUDA runtime version"},
    {98, "cudaErrorInvalidDeviceFunction", NULL, "invalid device function"},
    {100, "cudaErrorNoDevice", "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {101, "cudaErrorInvalidDevice", "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {201, "cudaErrorDeviceUninitialized", "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {400, "cudaErrorInvalidResourceHandle", "CUDA_ERROR_INVALID_HANDLE",
     "invalid resource handle"},
    {401, "cudaErrorIllegalState", "CUDA_ERROR_ILLEGAL_STATE",
     "the operation cannot be performed in the present state"},
    {500, "cudaErrorSymbolNotFound", "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {600, "cudaErrorNotReady", "CUDA_ERROR_NOT_READY", "device not ready"},
    {712, "cudaErrorHostMemoryAlreadyRegistered", "CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED",
     "part or all of the requested memory range is already mapped"},
    {713, "cudaErrorHostMemoryNotRegistered", "CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED",
     "pointer does not correspond to a registered memory region"},
    {801, "cudaErrorNotSupported", "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
    {900, "cudaErrorStreamCaptureUnsupported", "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED",
     "operation not permitted when stream is capturing"},
    {901, "cudaErrorStreamCaptureInvalidated", "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED",
     "operation failed due to a previous error during capture"},
    {902, "cudaErrorStreamCaptureMerge", "CUDA_ERROR_STREAM_CAPTURE_MERGE",
     "operation would result in a merge of separate capture sequences"},
    {903, "cudaErrorStreamCaptureUnmatched", "CUDA_ERROR_STREAM_CAPTURE_UNMATCHED",
     "capture was not ended in the same stream as it began"},
    {904, "cudaErrorStreamCaptureUnjoined", "CUDA_ERROR_STREAM_CAPTURE_UNJOINED",
     "capturing stream has unjoined work"},
    {905, "cudaErrorStreamCaptureIsolation", "CUDA_ERROR_STREAM_CAPTURE_ISOLATION",
     "dependency created on uncaptured work in another stream"},
    {907, "cudaErrorCapturedEvent", "CUDA_ERROR_CAPTURED_EVENT",
     "operation not permitted on an event last recorded in a capturing stream"},
    {910, "cudaErrorGraphExecUpdateFailure", "CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE",
     "the graph update was not performed because it included changes which violated constraints "
     "specific to instantiated graph update"},
};

SIMGPU_EXPORT const struct simgpu_error *simgpu_error_text(int error) {
  static const struct simgpu_error unknown = {999, "cudaErrorUnknown", "CUDA_ERROR_UNKNOWN",
                                              "unknown error"};
  for (size_t i = 0; i < sizeof ERRORS / sizeof *ERRORS; i++) {
    if (ERRORS[i].code == error) return &ERRORS[i];
  }
  return &unknown;
}
