/*
 * The board: what a process says of its virtual devices to others. NVML is of a machine, not of a
 * process: its look-alike sums up the boards of all processes that live.
 *
 * A file of one page, SIMGPU_BOARD (default /dev/shm) / simgpu.<uid>.<pid>, 0600. Each field is
 * written by its process with relaxed atomics; a reader may see one operation half accounted.
 */
#ifndef SIMGPU_BOARD_H
#define SIMGPU_BOARD_H
#include <stdint.h>

/* Bytes that libnccl sent to peers; they count with the copies between devices. */
__attribute__((visibility("default"))) void board_add_link_bytes(int device, uint64_t bytes);

#define BOARD_FOLDER "/dev/shm"
#define BOARD_PREFIX "simgpu."

static const uint64_t BOARD_MAGIC = 0x3164726f42677361;
enum { BOARD_VERSION = 1, BOARD_DEVICES = 16 };

struct board_device {
  uint64_t memory_used, memory_total; /* bytes */
  uint64_t busy_ns;       /* union of the operations' spans, those that lie in the future too */
  uint64_t busy_until_ns; /* where that union ends */
  uint64_t open_since_ns; /* an operation without an end runs since then; 0: none */
  uint64_t open_count;
  uint64_t kernels, htod_bytes, dtoh_bytes, ptop_bytes;
  uint64_t has_context;
  uint64_t spare[5];
};

struct board {
  uint64_t magic;
  uint32_t version, pid;
  uint32_t device_count, is_virtual; /* the clock's kind */
  uint64_t pid_start;                /* field 22 of /proc/PID/stat: pids are used again */
  struct board_device devices[BOARD_DEVICES];
};
_Static_assert(sizeof(struct board) <= 4096, "one page");

#endif
