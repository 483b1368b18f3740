/* Who uses the device. */
#include <stddef.h>

#include "answer.h"

static nvml_result list(int device, unsigned *count, nvml_process *processes) {
  struct process found[MOST_PROCESSES];
  const unsigned there = (unsigned)machine_processes(device, found, MOST_PROCESSES);
  const unsigned room = *count;
  *count = there;
  if (there > room || (there && !processes)) {
    return NVML_INSUFFICIENT_SIZE;
  }
  for (unsigned i = 0; i < there; i++) {
    processes[i] = (nvml_process){
        .pid = found[i].pid,
        .used_memory = found[i].device.memory_used,
        .gpu_instance = (unsigned)NVML_NO_INSTANCE,
        .compute_instance = (unsigned)NVML_NO_INSTANCE,
    };
  }
  return NVML_SUCCESS;
}

NVML_API nvml_result nvmlDeviceGetComputeRunningProcesses_v3(nvml_device handle, unsigned *count,
                                                             nvml_process *processes) {
  int device;
  const nvml_result result = machine_check(handle, &device);
  if (result != NVML_SUCCESS || !count) {
    return result != NVML_SUCCESS ? result : NVML_INVALID_ARGUMENT;
  }
  return list(device, count, processes);
}

NVML_API nvml_result nvmlDeviceGetGraphicsRunningProcesses_v3(nvml_device handle, unsigned *count,
                                                              nvml_process *processes) {
  (void)processes; /* nobody draws anything here */
  ANSWER(handle, count, 0);
}
