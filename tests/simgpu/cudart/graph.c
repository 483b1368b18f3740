/* Graphs. */
#include "api.h"
#include "core/copy.h"

typedef struct graph *Graph;
typedef struct graph_exec *Exec;
typedef struct graph_node *Node;

static int instantiate(Exec *exec, Graph graph) { return simgpu_graph_instantiate(graph, exec); }

static int add_kernel(Node *node, Graph graph, const Node *dependencies, size_t count,
                      const struct abi_kernel_node *it) {
  const struct simgpu_kernel *kernel = it ? simgpu_kernel_of_host(it->function) : NULL;
  if (!kernel && it && simgpu_kernel_is_one(it->function)) kernel = it->function;
  if (!kernel) return 98;
  const struct simgpu_operation operation = {
      .kind = SIMGPU_KERNEL,
      .name = kernel->name,
      .grid = {it->grid.x, it->grid.y, it->grid.z},
      .block = {it->block.x, it->block.y, it->block.z},
      .dynamic_shared = it->dynamic_shared,
      .registers = kernel->registers,
  };
  return simgpu_graph_add(graph, &operation, NULL, dependencies, count, node);
}

static int add_copy(Node *node, Graph graph, const Node *dependencies, size_t count, void *to,
                    const void *from, size_t bytes) {
  struct simgpu_operation operation;
  const struct simgpu_rows target = {to, bytes}, source = {(void *)from, bytes};
  const int result =
      simgpu_copy_describe(target, source, bytes, 1, SIMGPU_BY_POINTERS, &operation);
  return result ? result : simgpu_graph_add(graph, &operation, NULL, dependencies, count, node);
}

static int add_fill(Node *node, Graph graph, const Node *dependencies, size_t count,
                    const struct abi_memset_node *it) {
  struct simgpu_operation operation;
  const int result = simgpu_fill_describe((struct simgpu_rows){it->to, it->pitch},
                                          it->width * it->element_size, it->height, it->value,
                                          (uint8_t)it->element_size, &operation);
  return result ? result : simgpu_graph_add(graph, &operation, NULL, dependencies, count, node);
}

static int add_plain(Node *node, Graph graph, const Node *dependencies, size_t count, Graph child) {
  const struct simgpu_operation operation = {.kind = SIMGPU_MARKER};
  return simgpu_graph_add(graph, &operation, child, dependencies, count, node);
}

static int update(Exec exec, Graph graph) {
  enum { UPDATE_FAILURE = 910 };
  return simgpu_graph_exec_update(exec, graph) ? UPDATE_FAILURE : SIMGPU_OK;
}

API_2(cudaGraphCreate, 286, Graph *, graph, unsigned, flags,
      ((void)flags, simgpu_graph_create(graph)))
API_1(cudaGraphDestroy, 314, Graph, graph, simgpu_graph_destroy(graph))
API_5(cudaGraphAddKernelNode, 289, Node *, node, Graph, graph, const Node *, dependencies, size_t,
      count, const struct abi_kernel_node *, kernel,
      add_kernel(node, graph, dependencies, count, kernel))
API_5(cudaGraphAddMemsetNode, 293, Node *, node, Graph, graph, const Node *, dependencies, size_t,
      count, const struct abi_memset_node *, fill, add_fill(node, graph, dependencies, count, fill))
API_5(cudaGraphAddChildGraphNode, 298, Node *, node, Graph, graph, const Node *, dependencies,
      size_t, count, Graph, child, add_plain(node, graph, dependencies, count, child))
API_4(cudaGraphAddEmptyNode, 300, Node *, node, Graph, graph, const Node *, dependencies, size_t,
      count, add_plain(node, graph, dependencies, count, NULL))
API_3(cudaGraphGetNodes, 322, Graph, graph, Node *, nodes, size_t *, count,
      simgpu_graph_nodes(graph, nodes, count))
API_3(cudaGraphInstantiateWithFlags, 418, Exec *, exec, Graph, graph, unsigned long long, flags,
      ((void)flags, instantiate(exec, graph)))
API_1(cudaGraphExecDestroy, 313, Exec, exec, simgpu_graph_exec_destroy(exec))
API_3(cudaGraphExecUpdate, 335, Exec, exec, Graph, graph, void *, result,
      ((void)result, update(exec, graph)))
STREAM_API_2(cudaGraphLaunch, 311, 312, Exec, exec,
             simgpu_graph_launch(exec, simgpu_stream_of(stream)))
STREAM_API_2(cudaGraphUpload, 348, 349, Exec, exec, ((void)stream, (void)exec, SIMGPU_OK))

SIMGPU_EXPORT int cudaGraphAddMemcpyNode1D(Node *node, Graph graph, const Node *dependencies,
                                           size_t count, void *to, const void *from, size_t bytes,
                                           int kind) {
  PACK(Node *node; Graph graph; const Node *dependencies; size_t count; void *to;
       const void *from; size_t bytes; int kind;) = {node, graph, dependencies, count,
                                                     to,   from,  bytes,        kind};
  BODY(cudaGraphAddMemcpyNode1D, 352, NULL,
       add_copy(node, graph, dependencies, count, to, from, bytes))
}

/* Three arguments from 12.0 on; five (with where an error is) before, and the first two are the
   same. */
API_3(cudaGraphInstantiate, 443, Exec *, exec, Graph, graph, unsigned long long, flags,
      ((void)flags, instantiate(exec, graph)))

struct abi_instantiate {
  unsigned long long flags;
  void *upload_stream;
  Node error_node;
  int result;
};
API_3(cudaGraphInstantiateWithParams, 436, Exec *, exec, Graph, graph, struct abi_instantiate *,
      how, (how->result = 0, instantiate(exec, graph)))
