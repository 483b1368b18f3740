/* The devices of the machine, as the boards of the living processes show them. */
#ifndef SIMGPU_NVML_MACHINE_H
#define SIMGPU_NVML_MACHINE_H
#include "../core/board.h"
#include "abi.h"

enum { MOST_PROCESSES = 256 };

struct process {
  unsigned pid;
  struct board_device device;
  int is_virtual; /* its times are of a clock that nobody else has */
};

/* Who has a context on the device, by pid. Boards of the dead are taken down. */
int machine_processes(int device, struct process *processes, int most);

/* Sums since the first look of this process at the device; they never fall. */
struct totals {
  uint64_t time_ns, busy_ns, htod_bytes, dtoh_bytes, ptop_bytes, memory_used;
};
void machine_totals(int device, struct totals *totals);

/* Over the time between two looks, at least 50 ms apart. */
struct rates {
  double busy; /* share, 0 to 1 */
  double htod_bytes_per_s, dtoh_bytes_per_s;
};
void machine_rates(int device, struct rates *rates);
/* The first look, of each device. */
void machine_start(int devices);

/* NVML_SUCCESS, with the device's index: it is initialised, the handle is one, the GPU not lost. */
nvml_result machine_check(nvml_device handle, int *device);

#endif
