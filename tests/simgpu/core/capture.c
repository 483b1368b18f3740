/*
 * Stream capture: what is enqueued becomes nodes. Each stream knows what its next node depends on;
 * events carry that from stream to stream, and so a capture spreads and comes back together.
 */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "graph_internal.h"

enum {
  CAPTURE_MERGE = 902,
};

bool graph_is_capturing(const struct simgpu_stream *stream) { return stream && stream->capture; }

static void unref(struct capture *capture) {
  if (--capture->references) return;
  if (capture->graph) graph_free(capture->graph);
  free(capture);
}

static struct graph_node **copy_nodes(struct graph_node *const *nodes, size_t count) {
  struct graph_node **copy = malloc((count + 1) * sizeof *copy);
  if (count) memcpy(copy, nodes, count * sizeof *copy);
  return copy;
}

static void leave(struct simgpu_stream *stream) {
  struct capture *capture = stream->capture;
  free(stream->capture_tail);
  stream->capture_tail = NULL;
  stream->capture_tail_count = 0;
  stream->capture = NULL;
  unref(capture);
}

int capture_refuse(struct simgpu_stream *stream) {
  pthread_mutex_lock(&core_lock);
  if (stream->capture) stream->capture->spoilt = true;
  pthread_mutex_unlock(&core_lock);
  return SIMGPU_CAPTURE_UNSUPPORTED;
}

static int add_node(struct simgpu_stream *stream, const struct simgpu_operation *operation) {
  struct capture *capture = stream->capture;
  if (capture->spoilt) return SIMGPU_CAPTURE_INVALIDATED;
  struct graph_node *node = graph_append(capture->graph, operation);
  /* The memory is the graph's then; a launch must not free it again. */
  if (operation->kind == SIMGPU_FREE) node->operation.kind = SIMGPU_MARKER;
  for (size_t i = 0; i < stream->capture_tail_count; i++) {
    graph_depend(node, stream->capture_tail[i]);
  }
  free(stream->capture_tail);
  stream->capture_tail = copy_nodes(&node, 1);
  stream->capture_tail_count = 1;
  return SIMGPU_OK;
}

int capture_enqueue(struct simgpu_stream *stream, const struct simgpu_operation *operation) {
  pthread_mutex_lock(&core_lock);
  const int result = add_node(stream, operation);
  pthread_mutex_unlock(&core_lock);
  return result;
}

int capture_record_event(struct simgpu_event *event, struct simgpu_stream *stream) {
  event->capture = stream->capture;
  event->capture->references++;
  event->capture_nodes = copy_nodes(stream->capture_tail, stream->capture_tail_count);
  event->capture_node_count = stream->capture_tail_count;
  return SIMGPU_OK;
}

void capture_forget_event(struct simgpu_event *event) {
  if (!event->capture) return;
  unref(event->capture);
  free(event->capture_nodes);
  event->capture = NULL;
  event->capture_nodes = NULL;
}

static void add_tail(struct simgpu_stream *stream, struct graph_node *node) {
  for (size_t i = 0; i < stream->capture_tail_count; i++) {
    if (stream->capture_tail[i] == node) return;
  }
  const size_t size = (stream->capture_tail_count + 1) * sizeof(struct graph_node *);
  stream->capture_tail = realloc(stream->capture_tail, size);
  stream->capture_tail[stream->capture_tail_count++] = node;
}

int capture_wait_event(struct simgpu_stream *stream, struct simgpu_event *event) {
  if (!event->capture) { /* recorded outside: never, or something that the graph cannot know */
    if (!event->recorded) return SIMGPU_OK;
    stream->capture->spoilt = true;
    return SIMGPU_CAPTURE_ISOLATION;
  }
  if (event->capture->ended) return SIMGPU_INVALID_VALUE;
  if (stream->capture && stream->capture != event->capture) {
    stream->capture->spoilt = true;
    return CAPTURE_MERGE;
  }
  if (!stream->capture) {
    stream->capture = event->capture;
    stream->capture->references++;
  }
  for (size_t i = 0; i < event->capture_node_count; i++) {
    add_tail(stream, event->capture_nodes[i]);
  }
  return SIMGPU_OK;
}

SIMGPU_EXPORT int simgpu_capture_begin(struct simgpu_stream *stream) {
  static atomic_uint_fast64_t ids;
  if (!stream) return SIMGPU_INVALID_HANDLE;
  if (stream->is_legacy) return SIMGPU_CAPTURE_UNSUPPORTED;
  pthread_mutex_lock(&core_lock);
  const int result = stream->capture ? SIMGPU_ILLEGAL_STATE : SIMGPU_OK;
  if (result == SIMGPU_OK) {
    struct capture *capture = calloc(1, sizeof *capture);
    capture->id = ++ids;
    capture->graph = graph_new();
    capture->origin = stream;
    capture->references = 1;
    stream->capture = capture;
  }
  pthread_mutex_unlock(&core_lock);
  return result;
}

/* Dependencies of a captured node have lower indices: one sweep from the end marks all. */
static void mark_ancestors(const struct graph *graph, const struct simgpu_stream *origin) {
  for (size_t i = 0; i < origin->capture_tail_count; i++) origin->capture_tail[i]->marked = true;
  for (size_t i = graph->count; i-- > 0;) {
    const struct graph_node *node = graph->nodes[i];
    for (size_t d = 0; node->marked && d < node->dependency_count; d++) {
      node->dependencies[d]->marked = true;
    }
  }
}

static bool is_joined(const struct graph *graph) {
  for (size_t i = 0; i < graph->count; i++) {
    if (!graph->nodes[i]->marked) return false;
  }
  return true;
}

static void end_for_all_streams(struct capture *capture) {
  for (int d = 0; d < MOST_DEVICES; d++) {
    for (struct simgpu_stream *it = core_devices[d].streams; it; it = it->next) {
      if (it->capture == capture) leave(it);
    }
  }
}

SIMGPU_EXPORT int simgpu_capture_end(struct simgpu_stream *stream, struct graph **graph) {
  if (!stream || !graph) return SIMGPU_INVALID_VALUE;
  *graph = NULL;
  pthread_mutex_lock(&core_lock);
  struct capture *capture = stream->capture;
  int result = SIMGPU_OK;
  if (!capture) {
    result = SIMGPU_ILLEGAL_STATE;
  } else if (capture->origin != stream) {
    result = SIMGPU_CAPTURE_UNMATCHED;
    capture->spoilt = true;
  } else {
    mark_ancestors(capture->graph, stream);
    result = capture->spoilt               ? SIMGPU_CAPTURE_INVALIDATED
             : !is_joined(capture->graph) ? SIMGPU_CAPTURE_UNJOINED
                                          : SIMGPU_OK;
    if (result == SIMGPU_OK) {
      *graph = capture->graph;
      capture->graph = NULL;
    }
    capture->ended = true;
    end_for_all_streams(capture);
  }
  pthread_mutex_unlock(&core_lock);
  return result;
}

SIMGPU_EXPORT int simgpu_capture_status(struct simgpu_stream *stream, uint64_t *id,
                                        struct graph **graph) {
  pthread_mutex_lock(&core_lock);
  const struct capture *capture = stream->capture;
  if (id) *id = capture ? capture->id : 0;
  if (graph) *graph = capture ? capture->graph : NULL;
  const int status = !capture          ? SIMGPU_CAPTURE_NONE
                     : capture->spoilt ? SIMGPU_CAPTURE_SPOILT
                                       : SIMGPU_CAPTURE_ACTIVE;
  pthread_mutex_unlock(&core_lock);
  return status;
}
