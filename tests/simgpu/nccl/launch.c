/* From calls to kernels: one for each communicator of a group. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../core/graph.h"
#include "../core/kernel.h"
#include "comm.h"
#include "error.h"
#include "fault.h"
#include "model.h"

/* As traces of real jobs show them. */
enum { THREADS = 544, REGISTERS = 96, SHARED_BYTES = 82240 };

/* Of the simulated libcuda: CUlaunchConfig, and what NCCL calls. */
struct launch_config {
  unsigned grid[3], block[3], shared_bytes;
  void *stream, *attributes;
  unsigned attribute_count;
};
int cuLaunchKernelEx(const struct launch_config *config, void *function, void **parameters,
                     void **extra);
int cuMemcpyAsync(uint64_t to, uint64_t from, size_t bytes, void *stream);

static struct simgpu_kernel *kernel_of(const struct plan *plan) {
  static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
  char name[192];
  model_kernel_name(&plan->tasks[0], plan->comm->ranks, name, sizeof name);
  struct simgpu_kernel *kernel = simgpu_kernel_named(name);
  pthread_mutex_lock(&lock);
  if (kernel->registers != REGISTERS) { /* new: nobody else reads it yet */
    kernel->registers = REGISTERS;
  }
  pthread_mutex_unlock(&lock);
  return kernel;
}

static nccl_result launch_kernel(const struct plan *plan, nccl_stream stream) {
  size_t bytes = 0;
  for (int i = 0; i < plan->count; i++) {
    bytes += model_bytes(&plan->tasks[i], plan->comm->ranks);
  }
  const struct launch_config config = {
      .grid = {model_channels(bytes), 1, 1},
      .block = {THREADS, 1, 1},
      .shared_bytes = SHARED_BYTES,
      .stream = stream,
  };
  const int error = cuLaunchKernelEx(&config, kernel_of(plan), NULL, NULL);
  if (error != SIMGPU_OK) {
    return fail(NCCL_UNHANDLED_CUDA_ERROR, "cuLaunchKernelEx returns %d", error);
  }
  return NCCL_SUCCESS;
}

static nccl_result run_plan(struct plan *plan, nccl_stream stream) {
  simgpu_next_open(&engine_kernel, plan);
  const nccl_result result = launch_kernel(plan, stream);
  /* Captured, it lives as long as its graph: as the process, that is. */
  if (result != NCCL_SUCCESS || plan->submitted) {
    plan_unref(plan);
  }
  return result;
}

/* ---- streams --------------------------------------------------------------------------------- */

static void let_wait(struct simgpu_stream *later, struct simgpu_stream *earlier) {
  struct simgpu_event *event;
  if (later != earlier && simgpu_event_create(SIMGPU_EVENT_DISABLE_TIMING, &event) == SIMGPU_OK) {
    simgpu_event_record(event, earlier);
    simgpu_stream_wait_event(later, event);
    simgpu_event_destroy(event);
  }
}

static bool is_capturing(struct simgpu_stream *stream) {
  return simgpu_capture_status(stream, NULL, NULL) != SIMGPU_CAPTURE_NONE;
}

/* Kernels of one communicator never overlap, whatever their streams: it has its channels once. */
static void follow_last_launch(struct nccl_comm *comm, struct simgpu_stream *stream) {
  if (comm->last_launch && comm->last_stream_id != simgpu_stream_id(stream)) {
    simgpu_stream_wait_event(stream, comm->last_launch);
  }
}

static void note_launch(struct nccl_comm *comm, struct simgpu_stream *stream) {
  if (comm->last_launch ||
      simgpu_event_create(SIMGPU_EVENT_DISABLE_TIMING, &comm->last_launch) == SIMGPU_OK) {
    simgpu_event_record(comm->last_launch, stream);
    comm->last_stream_id = simgpu_stream_id(stream);
  }
}

/* The kernel runs on the first stream, between the others' work so far and what comes then. */
static nccl_result launch_between(struct plan *plan, nccl_stream handle,
                                  struct simgpu_stream *const *streams, int count) {
  struct nccl_comm *comm = plan->comm;
  const bool captured = is_capturing(streams[0]);
  if (!captured) {
    follow_last_launch(comm, streams[0]);
  }
  for (int i = 1; i < count; i++) {
    let_wait(streams[0], streams[i]);
  }
  const nccl_result result = run_plan(plan, handle);
  for (int i = 1; i < count; i++) {
    let_wait(streams[i], streams[0]);
  }
  if (!captured && result == NCCL_SUCCESS) {
    note_launch(comm, streams[0]);
  }
  return result;
}

/* Each stream once, in the order of first use. 0: one of them is seen to be none. */
static int collect_streams(const struct task *tasks, int count, struct simgpu_stream **streams) {
  int found = 0;
  for (int i = 0; i < count; i++) {
    struct simgpu_stream *stream = simgpu_stream_of(tasks[i].stream);
    int at = 0;
    while (at < found && streams[at] != stream) {
      at++;
    }
    if (!stream) {
      return 0;
    }
    if (at == found) {
      streams[found++] = stream;
    }
  }
  return found;
}

/* ---- plans ----------------------------------------------------------------------------------- */

/* One rank alone: a copy on the device, and no kernel. */
static nccl_result copy_alone(const struct task *task) {
  if (task->from == task->to) {
    return NCCL_SUCCESS;
  }
  const int error =
      cuMemcpyAsync((uintptr_t)task->to, (uintptr_t)task->from, task_bytes(task), task->stream);
  if (error != SIMGPU_OK) {
    return fail(NCCL_UNHANDLED_CUDA_ERROR, "cuMemcpyAsync returns %d", error);
  }
  return NCCL_SUCCESS;
}

static struct plan *make_plan(struct nccl_comm *comm, const struct task *tasks, int count) {
  struct plan *plan = malloc(sizeof *plan + (size_t)count * sizeof *tasks);
  *plan = (struct plan){.comm = comm, .references = 1};
  for (int transfers = 0; transfers < 2; transfers++) {
    for (int i = 0; i < count; i++) {
      if (task_is_transfer(&tasks[i]) == transfers) {
        plan->tasks[plan->count++] = tasks[i];
      }
    }
  }
  return plan;
}

static nccl_result launch_kernels(struct nccl_comm *comm, const struct task *tasks, int count) {
  struct simgpu_stream *streams[count];
  const int stream_count = collect_streams(tasks, count, streams);
  if (stream_count == 0) {
    return fail(NCCL_INVALID_ARGUMENT, "a stream is none");
  }
  return launch_between(make_plan(comm, tasks, count), tasks[0].stream, streams, stream_count);
}

static nccl_result launch_alone(const struct task *tasks, int count) {
  nccl_result result = NCCL_SUCCESS;
  for (int i = 0; i < count && result == NCCL_SUCCESS; i++) {
    result = copy_alone(&tasks[i]);
  }
  return result;
}

nccl_result launch(struct nccl_comm *comm, const struct task *tasks, int count) {
  if (fault_is_missing(comm->rank, comm->issued++)) {
    return NCCL_SUCCESS;
  }
  fault_be_late(comm->rank);
  const int before = simgpu_device_current();
  simgpu_device_set_current(comm->device); /* the default stream is a device's */
  const bool copies =
      comm->ranks == 1 && !task_is_transfer(&tasks[0]) && !tasks[0].reduction.scales;
  const nccl_result result =
      copies ? launch_alone(tasks, count) : launch_kernels(comm, tasks, count);
  simgpu_device_set_current(before);
  return result;
}
