/*
 * Ranks that misbehave, by SIMGPU_FAULTS:
 *   nccl_late=RANK:TIME     the rank's calls take so much longer (5ms, 300us): it comes late
 *   nccl_missing=RANK:N     from its launch N on (0 is a communicator's first) the rank's calls do
 *                           nothing: the others wait for ever
 */
#ifndef SIMGPU_NCCL_FAULT_H
#define SIMGPU_NCCL_FAULT_H
#include <stdbool.h>
#include <stdint.h>

bool fault_is_missing(int rank, uint64_t launches);
void fault_be_late(int rank);

#endif
