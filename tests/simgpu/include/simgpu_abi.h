/* Types of the CUDA runtime and driver as they lie in memory: facts, under names of our own.
   Checked against NVIDIA's headers by tests/simgpu/abi_check.c where those are installed. */
#ifndef SIMGPU_ABI_H
#define SIMGPU_ABI_H
#include <stddef.h>
#include <stdint.h>

struct abi_dim3 {
  unsigned x, y, z;
};

/* cudaMemcpyKind */
enum {
  ABI_HOST_TO_HOST,
  ABI_HOST_TO_DEVICE,
  ABI_DEVICE_TO_HOST,
  ABI_DEVICE_TO_DEVICE,
  ABI_DEFAULT,
};

/* cudaLaunchAttribute, CUlaunchAttribute */
struct abi_launch_attribute {
  uint32_t id;
  uint32_t padding;
  union {
    struct abi_dim3 cluster;
    int32_t number;
    uint8_t bytes[64];
  } value;
};
enum {
  ABI_ATTRIBUTE_COOPERATIVE = 2,
  ABI_ATTRIBUTE_CLUSTER = 4,
  ABI_ATTRIBUTE_PRIORITY = 8,
};

/* cudaLaunchConfig_t, CUlaunchConfig: the same but for the shared memory's type, within padding */
struct abi_launch_config {
  struct abi_dim3 grid, block;
  size_t dynamic_shared;
  void *stream;
  struct abi_launch_attribute *attributes;
  unsigned attribute_count;
};
struct abi_driver_launch_config {
  struct abi_dim3 grid, block;
  unsigned dynamic_shared;
  void *stream;
  struct abi_launch_attribute *attributes;
  unsigned attribute_count;
};

/* cudaPointerAttributes; from 13.0 on longer */
struct abi_pointer_attributes {
  int type; /* 0 unregistered, 1 host, 2 device, 3 managed */
  int device;
  void *device_pointer, *host_pointer;
};

/* cudaFuncAttributes */
struct abi_function_attributes {
  size_t shared_bytes, const_bytes, local_bytes;
  int most_threads_per_block, registers, ptx_version, binary_version, cache_mode;
  int most_dynamic_shared, preferred_carveout, cluster_must_be_set, cluster[3];
  int cluster_policy, non_portable_cluster, reserved[16];
};

/* cudaKernelNodeParams */
struct abi_kernel_node {
  void *function;
  struct abi_dim3 grid, block;
  unsigned dynamic_shared;
  void **arguments, **extra;
};

/* cudaMemsetParams; also CUDA_MEMSET_NODE_PARAMS */
struct abi_memset_node {
  void *to;
  size_t pitch;
  unsigned value, element_size;
  size_t width, height; /* elements, rows */
};

/* CUDA_MEMCPY2D */
struct abi_driver_copy_2d {
  size_t from_x, from_y;
  int from_type;
  const void *from_host;
  uint64_t from_device;
  void *from_array;
  size_t from_pitch;
  size_t to_x, to_y;
  int to_type;
  void *to_host;
  uint64_t to_device;
  void *to_array;
  size_t to_pitch;
  size_t width, height;
};
enum { ABI_DRIVER_MEMORY_HOST = 1, ABI_DRIVER_MEMORY_DEVICE = 2, ABI_DRIVER_MEMORY_UNIFIED = 4 };

#endif
