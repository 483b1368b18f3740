/* Kernels by host stub and by name: tables that only grow, read without a lock. */
#include "kernel.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { BUCKETS = 4096, REGISTERS = 32 };
static const uint64_t MAGIC = 0x6c656e72656b7367; /* no code of a stub looks like this */

typedef struct simgpu_kernel *_Atomic bucket;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static bucket by_host[BUCKETS], by_name[BUCKETS];

static bucket *host_bucket(const void *host) {
  return &by_host[((uintptr_t)host >> 4 ^ (uintptr_t)host >> 16) % BUCKETS];
}

static bucket *name_bucket(const char *name) {
  uint32_t hash = 2166136261u;
  for (; *name; name++) hash = (hash ^ (uint8_t)*name) * 16777619u;
  return &by_name[hash % BUCKETS];
}

static struct simgpu_kernel *add(bucket *to, const void *host, const char *name) {
  struct simgpu_kernel *kernel = calloc(1, sizeof *kernel);
  kernel->magic = MAGIC;
  kernel->name = strdup(name);
  kernel->host = host;
  kernel->registers = REGISTERS;
  kernel->next = *to;
  *to = kernel;
  return kernel;
}

SIMGPU_EXPORT struct simgpu_kernel *simgpu_kernel_of_host(const void *host) {
  struct simgpu_kernel *kernel = *host_bucket(host);
  while (kernel && kernel->host != host) kernel = kernel->next;
  return kernel;
}

SIMGPU_EXPORT bool simgpu_kernel_is_one(const void *pointer) {
  return pointer && ((const struct simgpu_kernel *)pointer)->magic == MAGIC;
}

/* The latest wins: a library may have been unloaded, and another one loaded in its place. */
SIMGPU_EXPORT struct simgpu_kernel *simgpu_kernel_register(const void *host, const char *name) {
  pthread_mutex_lock(&lock);
  struct simgpu_kernel *kernel = simgpu_kernel_of_host(host);
  if (!kernel || strcmp(kernel->name, name) != 0) kernel = add(host_bucket(host), host, name);
  pthread_mutex_unlock(&lock);
  return kernel;
}

SIMGPU_EXPORT struct simgpu_kernel *simgpu_kernel_named(const char *name) {
  pthread_mutex_lock(&lock);
  bucket *in = name_bucket(name);
  struct simgpu_kernel *kernel = *in;
  while (kernel && strcmp(kernel->name, name) != 0) kernel = kernel->next;
  if (!kernel) kernel = add(in, NULL, name);
  pthread_mutex_unlock(&lock);
  return kernel;
}
