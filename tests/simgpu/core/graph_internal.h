#ifndef SIMGPU_GRAPH_INTERNAL_H
#define SIMGPU_GRAPH_INTERNAL_H
#include "graph.h"
#include "internal.h"

struct graph_node {
  struct simgpu_operation operation;
  struct graph *owner, *child;
  size_t index;
  struct graph_node **dependencies;
  size_t dependency_count;
  uint64_t end_offset_ns; /* scratch of the scheduler */
  bool marked;            /* scratch of the capture */
};

struct graph {
  uint32_t id;
  struct graph_node **nodes;
  size_t count, room;
};

struct capture {
  uint64_t id;
  struct graph *graph;
  struct simgpu_stream *origin;
  unsigned references;
  bool spoilt, ended;
};

struct graph *graph_new(void);
struct graph_node *graph_append(struct graph *graph, const struct simgpu_operation *operation);
void graph_depend(struct graph_node *node, struct graph_node *on);
void graph_free(struct graph *graph);

/* host_function.c */
void host_call_run(void *payload);

#endif
