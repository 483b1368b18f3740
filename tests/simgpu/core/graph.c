/* Graphs: nodes and what they depend on. */
#include <stdatomic.h>
#include <stdlib.h>

#include "graph_internal.h"

static atomic_uint last_id;

struct graph *graph_new(void) {
  struct graph *graph = calloc(1, sizeof *graph);
  graph->id = ++last_id;
  return graph;
}

static void free_node(struct graph_node *node) {
  if (node->child) graph_free(node->child);
  free(node->dependencies);
  free(node);
}

void graph_free(struct graph *graph) {
  for (size_t i = 0; i < graph->count; i++) free_node(graph->nodes[i]);
  free(graph->nodes);
  free(graph);
}

struct graph_node *graph_append(struct graph *graph, const struct simgpu_operation *operation) {
  struct graph_node *node = calloc(1, sizeof *node);
  if (graph->count == graph->room) {
    graph->room = graph->room * 2 + 16;
    graph->nodes = realloc(graph->nodes, graph->room * sizeof *graph->nodes);
  }
  node->operation = *operation;
  node->owner = graph;
  node->index = graph->count;
  graph->nodes[graph->count++] = node;
  return node;
}

void graph_depend(struct graph_node *node, struct graph_node *on) {
  const size_t count = node->dependency_count;
  if ((count & (count - 1)) == 0) { /* room grows at the powers of two */
    const size_t room = count ? count * 2 : 1;
    node->dependencies = realloc(node->dependencies, room * sizeof *node->dependencies);
  }
  node->dependencies[node->dependency_count++] = on;
}

static struct graph *copy(const struct graph *graph) {
  struct graph *made = graph_new();
  for (size_t i = 0; i < graph->count; i++) {
    struct graph_node *node = graph_append(made, &graph->nodes[i]->operation);
    if (graph->nodes[i]->child) node->child = copy(graph->nodes[i]->child);
  }
  for (size_t i = 0; i < graph->count; i++) {
    const struct graph_node *from = graph->nodes[i];
    for (size_t d = 0; d < from->dependency_count; d++) {
      graph_depend(made->nodes[i], made->nodes[from->dependencies[d]->index]);
    }
  }
  return made;
}

SIMGPU_EXPORT int simgpu_graph_create(struct graph **graph) {
  if (!graph) return SIMGPU_INVALID_VALUE;
  *graph = graph_new();
  return SIMGPU_OK;
}

SIMGPU_EXPORT int simgpu_graph_destroy(struct graph *graph) {
  if (!graph) return SIMGPU_INVALID_VALUE;
  graph_free(graph);
  return SIMGPU_OK;
}

SIMGPU_EXPORT int simgpu_graph_add(struct graph *graph, const struct simgpu_operation *operation,
                                   const struct graph *child,
                                   struct graph_node *const *dependencies, size_t count,
                                   struct graph_node **node) {
  if (!graph || !node || (count && !dependencies)) return SIMGPU_INVALID_VALUE;
  for (size_t i = 0; i < count; i++) {
    if (!dependencies[i] || dependencies[i]->owner != graph) return SIMGPU_INVALID_VALUE;
  }
  *node = graph_append(graph, operation);
  (*node)->operation.duration_ns = model_duration_ns(operation);
  if (child) (*node)->child = copy(child);
  for (size_t i = 0; i < count; i++) graph_depend(*node, dependencies[i]);
  return SIMGPU_OK;
}

SIMGPU_EXPORT int simgpu_graph_add_dependencies(struct graph *graph,
                                                struct graph_node *const *from,
                                                struct graph_node *const *to, size_t count) {
  for (size_t i = 0; i < count; i++) {
    if (!graph || from[i]->owner != graph || to[i]->owner != graph) return SIMGPU_INVALID_VALUE;
  }
  for (size_t i = 0; i < count; i++) graph_depend(to[i], from[i]);
  return SIMGPU_OK;
}

SIMGPU_EXPORT int simgpu_graph_nodes(const struct graph *graph, struct graph_node **nodes,
                                     size_t *count) {
  if (!graph || !count) return SIMGPU_INVALID_VALUE;
  for (size_t i = 0; nodes && i < *count; i++) {
    nodes[i] = i < graph->count ? graph->nodes[i] : NULL;
  }
  if (!nodes || *count > graph->count) *count = graph->count;
  return SIMGPU_OK;
}

SIMGPU_EXPORT uint32_t simgpu_graph_id(const struct graph *graph) { return graph->id; }
