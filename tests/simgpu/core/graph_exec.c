/* Instantiated graphs: the nodes in an order that their dependencies allow, each with its time from
 * the start of the launch. */
#include <stdlib.h>
#include <string.h>

#include "graph_internal.h"

struct step {
  struct simgpu_operation operation; /* start_ns and end_ns from the start of the launch */
};

struct graph_exec {
  uint32_t id;
  unsigned references; /* guarded by core_lock */
  struct step *steps;
  size_t count, room;
  uint64_t span_ns;
  bool has_open; /* nodes whose end nobody knows: no fixed times */
};

static void add_step(struct graph_exec *exec, const struct simgpu_operation *operation,
                     uint64_t start_ns) {
  if (exec->count == exec->room) {
    exec->room = exec->room * 2 + 16;
    exec->steps = realloc(exec->steps, exec->room * sizeof *exec->steps);
  }
  struct simgpu_operation *own = &exec->steps[exec->count].operation;
  *own = *operation;
  own->start_ns = start_ns;
  own->end_ns = start_ns + operation->duration_ns;
  own->graph_id = exec->id;
  if (own->open) exec->has_open = true;
  own->graph_node_id = (uint64_t)exec->id << 32 | exec->count++;
  if (own->end_ns > exec->span_ns) exec->span_ns = own->end_ns;
}

static uint64_t schedule(struct graph_exec *exec, const struct graph *graph, uint64_t start_ns);

static void schedule_node(struct graph_exec *exec, struct graph_node *node, uint64_t start_ns) {
  for (size_t d = 0; d < node->dependency_count; d++) {
    const uint64_t end_ns = node->dependencies[d]->end_offset_ns;
    if (end_ns > start_ns) start_ns = end_ns;
  }
  node->end_offset_ns = start_ns + node->operation.duration_ns;
  if (node->child) {
    node->end_offset_ns = schedule(exec, node->child, start_ns);
  } else {
    add_step(exec, &node->operation, start_ns);
  }
}

/* Kahn's: `waiting` counts unscheduled dependencies. Returns the end, UINT64_MAX for a cycle. */
static uint64_t schedule(struct graph_exec *exec, const struct graph *graph, uint64_t start_ns) {
  const size_t count = graph->count;
  size_t edges = 0;
  size_t *waiting = calloc(2 * count + 1, sizeof *waiting), *first = waiting + count;
  for (size_t i = 0; i < count; i++) {
    waiting[i] = graph->nodes[i]->dependency_count;
    edges += waiting[i];
    for (size_t d = 0; d < waiting[i]; d++) first[graph->nodes[i]->dependencies[d]->index + 1]++;
  }
  for (size_t i = 0; i < count; i++) first[i + 1] += first[i];
  size_t *dependents = calloc(edges + 1, sizeof *dependents);
  size_t *filled = calloc(count + 1, sizeof *filled);
  struct graph_node **queue = calloc(count + 1, sizeof *queue);
  size_t head = 0, tail = 0;
  for (size_t i = 0; i < count; i++) {
    const struct graph_node *node = graph->nodes[i];
    for (size_t d = 0; d < node->dependency_count; d++) {
      const size_t on = node->dependencies[d]->index;
      dependents[first[on] + filled[on]++] = i;
    }
    if (waiting[i] == 0) queue[tail++] = graph->nodes[i];
  }
  uint64_t end_ns = start_ns;
  while (head < tail) {
    struct graph_node *node = queue[head++];
    schedule_node(exec, node, start_ns);
    if (node->end_offset_ns > end_ns) end_ns = node->end_offset_ns;
    for (size_t i = first[node->index]; i < first[node->index + 1]; i++) {
      if (--waiting[dependents[i]] == 0) queue[tail++] = graph->nodes[dependents[i]];
    }
  }
  free(waiting);
  free(dependents);
  free(filled);
  free(queue);
  return tail == count ? end_ns : UINT64_MAX;
}

SIMGPU_EXPORT int simgpu_graph_instantiate(const struct graph *graph, struct graph_exec **exec) {
  if (!graph || !exec) return SIMGPU_INVALID_VALUE;
  struct graph *numbered = graph_new(); /* for a number that no graph has */
  struct graph_exec *made = calloc(1, sizeof *made);
  made->id = numbered->id;
  made->references = 1;
  graph_free(numbered);
  if (schedule(made, graph, 0) == UINT64_MAX) {
    free(made->steps);
    free(made);
    return SIMGPU_INVALID_VALUE;
  }
  *exec = made;
  return SIMGPU_OK;
}

SIMGPU_EXPORT int simgpu_graph_exec_update(struct graph_exec *exec, const struct graph *graph) {
  struct graph_exec *fresh = NULL;
  const int result = simgpu_graph_instantiate(graph, &fresh);
  if (result != SIMGPU_OK) return result;
  bool same = fresh->count == exec->count;
  for (size_t i = 0; same && i < exec->count; i++) {
    same = exec->steps[i].operation.kind == fresh->steps[i].operation.kind;
    fresh->steps[i].operation.graph_id = exec->id;
    fresh->steps[i].operation.graph_node_id = exec->steps[i].operation.graph_node_id;
  }
  pthread_mutex_lock(&core_lock);
  if (same) {
    struct step *old = exec->steps;
    exec->steps = fresh->steps;
    exec->span_ns = fresh->span_ns;
    exec->has_open = fresh->has_open;
    fresh->steps = old;
  }
  pthread_mutex_unlock(&core_lock);
  free(fresh->steps);
  free(fresh);
  return same ? SIMGPU_OK : SIMGPU_INVALID_VALUE;
}

void graph_exec_unref(void *payload) {
  struct graph_exec *exec = payload;
  pthread_mutex_lock(&core_lock);
  const bool last = --exec->references == 0;
  pthread_mutex_unlock(&core_lock);
  if (!last) return;
  free(exec->steps);
  free(exec);
}

SIMGPU_EXPORT int simgpu_graph_exec_destroy(struct graph_exec *exec) {
  if (!exec) return SIMGPU_INVALID_VALUE;
  graph_exec_unref(exec);
  return SIMGPU_OK;
}

static int launch_one_by_one(struct graph_exec *exec, struct simgpu_stream *stream) {
  int result = SIMGPU_OK;
  for (size_t i = 0; i < exec->count && result == SIMGPU_OK; i++) {
    result = simgpu_enqueue(stream, &exec->steps[i].operation);
  }
  return result;
}

SIMGPU_EXPORT int simgpu_graph_launch(struct graph_exec *exec, struct simgpu_stream *stream) {
  if (!exec) return SIMGPU_INVALID_VALUE;
  if (graph_is_capturing(stream)) return capture_refuse(stream);
  if (exec->has_open) return launch_one_by_one(exec, stream);
  pthread_mutex_lock(&core_lock);
  exec->references++;
  pthread_mutex_unlock(&core_lock);
  const struct simgpu_operation operation = {.kind = SIMGPU_GRAPH,
                                             .duration_ns = exec->span_ns,
                                             .graph_id = exec->id,
                                             .payload = exec};
  return simgpu_enqueue(stream, &operation);
}

SIMGPU_EXPORT uint32_t simgpu_graph_exec_id(const struct graph_exec *exec) { return exec->id; }

static void perform_step(const struct simgpu_operation *launch, const struct step *step) {
  struct simgpu_operation operation = step->operation;
  operation.device = launch->device;
  operation.context = launch->context;
  operation.stream = launch->stream;
  operation.priority = launch->priority;
  operation.correlation_id = launch->correlation_id;
  operation.tid = launch->tid;
  operation.queued_ns = launch->queued_ns;
  operation.observer = launch->observer;
  operation.admitted = launch->admitted;
  operation.start_ns += launch->start_ns;
  operation.end_ns += launch->start_ns;
  operation_perform(&operation);
}

void graph_perform(const struct simgpu_operation *launch) {
  struct graph_exec *exec = launch->payload;
  for (size_t i = 0; i < exec->count; i++) perform_step(launch, &exec->steps[i]);
  graph_exec_unref(exec);
}
