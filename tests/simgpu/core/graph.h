/* CUDA graphs and the capture of streams into them. */
#ifndef SIMGPU_GRAPH_H
#define SIMGPU_GRAPH_H
#include "simgpu.h"

struct graph;
struct graph_node;
struct graph_exec;

int simgpu_graph_create(struct graph **graph);
int simgpu_graph_destroy(struct graph *graph);
/* `child` is copied into the node; NULL for a plain operation. */
int simgpu_graph_add(struct graph *graph, const struct simgpu_operation *operation,
                     const struct graph *child, struct graph_node *const *dependencies,
                     size_t count, struct graph_node **node);
int simgpu_graph_add_dependencies(struct graph *graph, struct graph_node *const *from,
                                  struct graph_node *const *to, size_t count);
/* NULL `nodes` asks for the count only. */
int simgpu_graph_nodes(const struct graph *graph, struct graph_node **nodes, size_t *count);
int simgpu_graph_instantiate(const struct graph *graph, struct graph_exec **exec);
/* SIMGPU_INVALID_VALUE if the shapes differ. */
int simgpu_graph_exec_update(struct graph_exec *exec, const struct graph *graph);
int simgpu_graph_exec_destroy(struct graph_exec *exec);
int simgpu_graph_launch(struct graph_exec *exec, struct simgpu_stream *stream);
uint32_t simgpu_graph_id(const struct graph *graph);
uint32_t simgpu_graph_exec_id(const struct graph_exec *exec);

/* As cudaStreamCaptureStatus. */
enum { SIMGPU_CAPTURE_NONE, SIMGPU_CAPTURE_ACTIVE, SIMGPU_CAPTURE_SPOILT };
int simgpu_capture_begin(struct simgpu_stream *stream);
int simgpu_capture_end(struct simgpu_stream *stream, struct graph **graph);
int simgpu_capture_status(struct simgpu_stream *stream, uint64_t *id, struct graph **graph);

#endif
