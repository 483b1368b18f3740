#include "model.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
  LATENCY_NS = 6000,
  HOP_NS = 700, /* per rank of a ring */
  BUS_BYTES_PER_US = 360000,
  TREE_MOST_BYTES = 64 << 10,
};

size_t model_bytes(const struct task *task, int ranks) {
  switch (task->what) {
  case REDUCE_SCATTER:
  case ALL_GATHER:
  case ALL_TO_ALL:
  case GATHER:
  case SCATTER:
    return task_bytes(task) * (size_t)ranks;
  default:
    return task_bytes(task);
  }
}

/* Bus bandwidth over algorithm bandwidth (nccl-tests, doc/PERFORMANCE.md). */
static double bus_factor(enum collective what, int ranks) {
  const double others = (double)(ranks - 1) / ranks;
  switch (what) {
  case ALL_REDUCE:
    return 2 * others;
  case REDUCE_SCATTER:
  case ALL_GATHER:
  case ALL_TO_ALL:
  case GATHER:
  case SCATTER:
    return others;
  default:
    return 1;
  }
}

size_t model_link_bytes(const struct task *task, int ranks) {
  if (task->what == RECEIVE) {
    return 0;
  }
  return (size_t)((double)model_bytes(task, ranks) * bus_factor(task->what, ranks));
}

uint64_t model_collective_ns(const struct task *task, int ranks) {
  const double bytes = (double)model_bytes(task, ranks) * bus_factor(task->what, ranks);
  return LATENCY_NS + HOP_NS * (uint64_t)ranks + (uint64_t)(bytes * 1000 / BUS_BYTES_PER_US);
}

uint64_t model_transfer_ns(size_t bytes) { return LATENCY_NS + bytes * 1000 / BUS_BYTES_PER_US; }

unsigned model_channels(size_t bytes) {
  const size_t wanted = bytes >> 16;
  return wanted < 1 ? 1 : wanted > 24 ? 24 : (unsigned)wanted;
}

/* ---- names ----------------------------------------------------------------------------------- */

/* NCCL specialises few kernels: signed integers run as unsigned ones, every operator in the
   kernel of the sum, every protocol in that of LL. */
static const char *type_name(nccl_type type) {
  static const char *const names[NCCL_TYPE_COUNT] = {
      "u8", "u8", "u32", "u32", "u64", "u64", "f16", "f32", "f64", "bf16", "f8e4m3", "f8e5m2"};
  return names[type];
}

static bool is_tree(const struct task *task, int ranks) {
  const char *wanted = getenv("NCCL_ALGO");
  if (task->what != ALL_REDUCE) {
    return false;
  }
  if (wanted && strcasecmp(wanted, "ring") == 0) {
    return false;
  }
  if (wanted && strcasecmp(wanted, "tree") == 0) {
    return true;
  }
  return ranks > 2 && task_bytes(task) <= TREE_MOST_BYTES;
}

static void write_name(const struct task *task, int ranks, char *name, size_t size) {
  static const char *const prefixes[] = {"AllReduce_Sum", "Reduce_Sum", "ReduceScatter_Sum",
                                         "AllGather", "Broadcast"};
  if (task->what > BROADCAST) {
    snprintf(name, size, "ncclDevKernel_SendRecv");
  } else if (task->what <= REDUCE_SCATTER) {
    snprintf(name, size, "ncclDevKernel_%s_%s_%s_LL", prefixes[task->what],
             type_name(task->reduction.type), is_tree(task, ranks) ? "TREE" : "RING");
  } else {
    snprintf(name, size, "ncclDevKernel_%s_RING_LL", prefixes[task->what]);
  }
}

void model_kernel_name(const struct task *task, int ranks, char *mangled, size_t size) {
  char name[128];
  write_name(task, ranks, name, sizeof name);
  snprintf(mangled, size, "_Z%zu%s24ncclDevKernelArgsStorageILm4096EE", strlen(name), name);
}
