#ifndef SIMGPU_RESOURCE_H
#define SIMGPU_RESOURCE_H
#include "tracer.h"

void resource_put_context(uint32_t device, uint32_t context);
void resource_put_stream(uint32_t context, uint32_t id, int priority);
void resource_put_allocation(const struct simgpu_allocation *allocation);

#endif
