/* Kernels that the process knows: registered by compiled programs, or found in a loaded module. */
#ifndef SIMGPU_KERNEL_H
#define SIMGPU_KERNEL_H
#include "simgpu.h"

/* What cudaKernel_t, cudaFunction_t, CUkernel and CUfunction point to. */
struct simgpu_kernel {
  uint64_t magic;
  char *name; /* mangled; "module memory" */
  const void *host; /* address of the host stub, or NULL */
  uint32_t static_shared, registers;
  struct simgpu_kernel *next;
};

/* One kernel per host stub. */
struct simgpu_kernel *simgpu_kernel_register(const void *host, const char *name);
struct simgpu_kernel *simgpu_kernel_of_host(const void *host);
/* Whether the pointer is one of ours, not the address of a host stub. */
bool simgpu_kernel_is_one(const void *pointer);
/* One kernel per name, for modules. */
struct simgpu_kernel *simgpu_kernel_named(const char *name);

#endif
