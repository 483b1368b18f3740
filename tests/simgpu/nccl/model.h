/* How long collectives take, and which kernel NCCL would run: after NCCL 2.28 on NVLink. */
#ifndef SIMGPU_NCCL_MODEL_H
#define SIMGPU_NCCL_MODEL_H
#include "task.h"

/* From the arrival of the last rank on. */
uint64_t model_collective_ns(const struct task *task, int ranks);
/* For the larger of what a rank sends and what it receives. */
uint64_t model_transfer_ns(size_t bytes);

/* Bytes that the algorithm bandwidth refers to, as nccl-tests counts them. */
size_t model_bytes(const struct task *task, int ranks);

/* What a rank sends to others for it. */
size_t model_link_bytes(const struct task *task, int ranks);

/* The kernel of the first of a launch's tasks, mangled. */
void model_kernel_name(const struct task *task, int ranks, char *mangled, size_t size);
/* Channels (blocks) of a kernel that moves so much. */
unsigned model_channels(size_t bytes);

#endif
