/* What the files of the core share. */
#ifndef SIMGPU_INTERNAL_H
#define SIMGPU_INTERNAL_H
#include <pthread.h>

#include "simgpu.h"

enum {
  LAUNCH_LATENCY_NS = 3000,
  LEGACY_STREAM_ID = 7, /* as on the real thing */
  FIRST_STREAM_ID = 13,
  MOST_DEVICES = 16,
};

struct graph;
struct graph_node;
struct capture;

/* An operation that has no times yet. Everything is guarded by `core_lock`. */
struct pending {
  struct simgpu_operation operation;
  struct simgpu_stream *stream; /* counted */
  simgpu_started started;       /* NULL: not open */
  void *state;
  uint64_t ready_ns;   /* latest end of what it waited for, so far */
  unsigned unresolved; /* what it still waits for */
  unsigned references;
  bool done;
  struct pending **dependents;
  size_t dependent_count, dependent_room;
  struct pending *next; /* in a queue of ready ones */
};

/* A moment on the device: known, or the end of something pending. */
struct point {
  uint64_t ns;
  struct pending *after; /* counted; NULL once known */
};

struct simgpu_stream {
  uint32_t id;
  int device, priority;
  unsigned flags, references;
  bool is_legacy, destroyed;
  uint64_t tail_ns;
  struct pending *last; /* counted; NULL: the tail is known */
  struct simgpu_stream *next, **link;
  struct capture *capture;
  struct graph_node **capture_tail; /* what the stream's next node depends on */
  size_t capture_tail_count;
};

struct simgpu_event {
  uint32_t id;
  unsigned flags;
  int device;
  bool recorded;
  struct point point;
  struct capture *capture; /* recorded in one: the nodes it stands for */
  struct graph_node **capture_nodes;
  size_t capture_node_count;
};

struct device {
  struct simgpu_stream *streams, *legacy;
  uint64_t tail_ns, blocking_tail_ns; /* of all work, of blocking streams' */
  uint64_t memory_used;
  uint32_t next_stream_id;
  size_t pending;
  bool has_context;
};

extern pthread_mutex_t core_lock;
extern pthread_cond_t core_changed; /* some operation was resolved */
extern struct device core_devices[MOST_DEVICES];

/* environment.c */
uint64_t environment_number(const char *name, uint64_t otherwise);

/* device.c: all with the lock held. */
void device_open_context(int device);
void device_account(struct device *device, const struct simgpu_operation *operation);

/* clock.c */
void clock_start(void);
void clock_advance(uint64_t ns);

/* model.c */
const struct simgpu_open_kernel *model_take_open(void **user);
uint64_t model_duration_ns(const struct simgpu_operation *operation);

/* effect.c: moves the data. */
void effect_apply(const struct simgpu_operation *operation);

/* stream.c */
struct simgpu_stream *stream_new(int device, unsigned flags, int priority, uint32_t id);
void stream_unref(struct simgpu_stream *stream); /* lock held */
/* Without a record of it. */
int stream_wait_quietly(struct simgpu_stream *stream);

static inline uint64_t later(uint64_t a, uint64_t b) { return a > b ? a : b; }

/* operation.c */
void operation_perform(const struct simgpu_operation *operation);

/* pending.c: all with the lock held. */
bool stream_is_blocking(const struct simgpu_stream *stream); /* waits for the default stream */
/* The latest known end of what the stream's next operation follows; whether that is not all. */
uint64_t stream_known_tail(const struct simgpu_stream *stream);
bool stream_has_unknown_tail(const struct simgpu_stream *stream);
struct pending *pending_new(struct simgpu_stream *stream,
                            const struct simgpu_operation *operation);
void pending_depend(struct pending *pending, struct pending *on);
void pending_unref(struct pending *pending);

/* point.c */
/* Lock held. What the stream's work so far ends with; counted. */
struct point stream_mark(struct simgpu_stream *stream);
void stream_wait_point(struct simgpu_stream *stream, const struct point *point);
/* Lock held, given up meanwhile. Until the point is known. */
uint64_t point_settle(struct point *point);

/* graph.c */
bool graph_is_capturing(const struct simgpu_stream *stream);
int capture_enqueue(struct simgpu_stream *stream, const struct simgpu_operation *operation);
int capture_record_event(struct simgpu_event *event, struct simgpu_stream *stream);
int capture_wait_event(struct simgpu_stream *stream, struct simgpu_event *event);
void capture_forget_event(struct simgpu_event *event);
/* A call that waits, on a capturing stream: spoils the capture. */
int capture_refuse(struct simgpu_stream *stream);
void graph_perform(const struct simgpu_operation *operation);
void graph_exec_unref(void *exec);

/* truth_log.c */
void truth_log_open(void);
void truth_log_write(const struct simgpu_operation *operation);
void truth_log_forget(void); /* in a forked child */

/* board.c, if it is there: what NVML of other processes reads. The core's lock is held, but for
   opening and forgetting. A graph's launch comes as one operation, and its nodes do not. */
#define OPTIONAL __attribute__((weak))
OPTIONAL void board_open(void);
OPTIONAL void board_forget(void); /* in a forked child */
OPTIONAL void board_memory(int device, uint64_t used);
OPTIONAL void board_operation(const struct simgpu_operation *operation); /* with its times */
OPTIONAL void board_open_started(const struct simgpu_operation *operation);

/* call.c */
uint32_t call_correlation_id(void);
/* As CUPTI's synchronization types. */
enum { SYNC_EVENT = 1, SYNC_STREAM_WAIT = 2, SYNC_STREAM = 3, SYNC_CONTEXT = 4 };
#define NO_ID UINT32_MAX
struct simgpu_sync sync_begin(uint32_t type, int device, uint32_t stream, uint32_t event);
void sync_end(const struct simgpu_sync *sync);
void observer_forget(void);

#endif
