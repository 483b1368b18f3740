/*
 * simgpu: the virtual device beneath the look-alike CUDA libraries (libsimgpu.so, one per process).
 *
 * An operation enqueued on a stream gets its start and end at once, from a model, where everything
 * before it has got them already; its data move then, too, on the calling thread. Behind an *open*
 * operation, one that another thread completes later (a collective, a host function), operations
 * wait unresolved: they get their times, move their data and reach the observers when the open one
 * completes, on the thread that completes it.
 *
 * All times are ns of CLOCK_REALTIME, as CUPTI's are, or of the virtual clock
 * (SIMGPU_CLOCK=virtual). Functions that can fail return a CUDA error code; runtime and driver
 * share the numbers used here.
 */
#ifndef SIMGPU_H
#define SIMGPU_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SIMGPU_EXPORT __attribute__((visibility("default")))

enum { SIMGPU_DRIVER_VERSION = 13000 };

enum {
  SIMGPU_OK = 0,
  SIMGPU_INVALID_VALUE = 1,
  SIMGPU_OUT_OF_MEMORY = 2,
  SIMGPU_INITIALIZATION_ERROR = 3,
  SIMGPU_NO_DRIVER = 35,
  SIMGPU_NO_DEVICE = 100,
  SIMGPU_INVALID_DEVICE = 101,
  SIMGPU_INVALID_CONTEXT = 201,
  SIMGPU_INVALID_HANDLE = 400,
  SIMGPU_ILLEGAL_STATE = 401,
  SIMGPU_SYMBOL_NOT_FOUND = 500,
  SIMGPU_NOT_READY = 600,
  SIMGPU_NOT_SUPPORTED = 801,
  SIMGPU_CAPTURE_UNSUPPORTED = 900,
  SIMGPU_CAPTURE_INVALIDATED = 901,
  SIMGPU_CAPTURE_UNMATCHED = 903,
  SIMGPU_CAPTURE_UNJOINED = 904,
  SIMGPU_CAPTURE_ISOLATION = 905,
};

struct simgpu_error {
  int code;
  const char *name, *driver_name, *text; /* driver_name NULL: the runtime's alone */
};
const struct simgpu_error *simgpu_error_text(int error);

/* ---- process, clock, faults --------------------------------------------------------------- */

/* Once per library call: builds the devices on the first. SIMGPU_NO_DRIVER or SIMGPU_NO_DEVICE
   where the environment says so; SIMGPU_INITIALIZATION_ERROR in a child forked after the first
   success. */
int simgpu_initialize(void);
/* Starts nothing; false in a forked child. */
bool simgpu_is_initialized(void);

/* Time now on the device's clock. */
uint64_t simgpu_now_ns(void);
bool simgpu_clock_is_virtual(void);
/* Blocks until the clock says `until_ns`; the virtual clock is moved there instead. */
void simgpu_sleep_until(uint64_t until_ns);
/* What records, logs and cuptiGetTimestamp show for a time: another clock after a `clock_step`. */
uint64_t simgpu_record_ns(uint64_t time_ns);

/*
 * SIMGPU_FAULTS="name=value,...": a value is a number, bare or with unit ns, us, ms, s (then it is
 * in ns). Of a name that is not there: `otherwise`. One parser for all libraries; the names are
 * listed in tests/simgpu/README.md. E.g. simgpu_fault("nccl_late", 0).
 */
double simgpu_fault(const char *name, double otherwise);
/* The value as text, or NULL: for names with other values, e.g. nccl_missing=1+3. */
const char *simgpu_fault_text(const char *name, char *text, size_t size);

/* ---- devices and memory ------------------------------------------------------------------- */

struct simgpu_device_info {
  const char *name;
  char pci_bus_id[32]; /* 0000:01:00.0 */
  uint8_t uuid[16];
  uint32_t context_id;
  int major, minor, multiprocessors;
  uint64_t memory_total, memory_used;
};

int simgpu_device_count(void);
int simgpu_device_info(int device, struct simgpu_device_info *info);
/* Of the calling thread; 0 at first. */
int simgpu_device_current(void);
int simgpu_device_set_current(int device);
/* By the numbers of cudaDeviceAttr = CUdevice_attribute; 0 for those that are not modelled. */
int simgpu_device_attribute(int *value, int attribute, int device);
/* Busy time and traffic are on the board that NVML reads: core/board.h. */

/* As CUPTI's memory kinds. */
enum simgpu_memory_kind {
  SIMGPU_MEMORY_PAGEABLE = 1,
  SIMGPU_MEMORY_PINNED = 2,
  SIMGPU_MEMORY_DEVICE = 3,
  SIMGPU_MEMORY_MANAGED = 5,
};

struct simgpu_memory {
  enum simgpu_memory_kind kind;
  int device;
  void *base;
  size_t size;
};

/* Host-readable memory of the current device; SIMGPU_OUT_OF_MEMORY beyond SIMGPU_MEMORY. */
int simgpu_memory_allocate(enum simgpu_memory_kind kind, size_t bytes, void **pointer);
int simgpu_memory_free(void *pointer);
/* Pins memory of the caller (cudaHostRegister), and lets it go. */
int simgpu_memory_register(void *pointer, size_t bytes);
int simgpu_memory_unregister(void *pointer);
/* Pageable, with device -1, for what nobody allocated here. */
struct simgpu_memory simgpu_memory_of(const void *pointer);
bool simgpu_device_has_context(int device);

/* ---- streams and events ------------------------------------------------------------------- */

struct simgpu_stream;
struct simgpu_event;

/* From a handle of CUDA (cudaStream_t, CUstream): NULL and 1 are the legacy default stream of the
   current device, 2 the default stream of the calling thread. NULL for what is no stream. */
struct simgpu_stream *simgpu_stream_of(void *handle);
enum { SIMGPU_STREAM_NON_BLOCKING = 1 };
int simgpu_stream_create(unsigned flags, int priority, struct simgpu_stream **stream);
/* Returns at once; work that is still queued runs on. */
int simgpu_stream_destroy(struct simgpu_stream *stream);
uint32_t simgpu_stream_id(const struct simgpu_stream *stream);
int simgpu_stream_device(const struct simgpu_stream *stream);
int simgpu_stream_priority(const struct simgpu_stream *stream);
unsigned simgpu_stream_flags(const struct simgpu_stream *stream);
/* Blocks until everything queued has been done, open operations included. */
int simgpu_stream_synchronize(struct simgpu_stream *stream);
/* SIMGPU_NOT_READY while there is work. */
int simgpu_stream_query(struct simgpu_stream *stream);
/*
 * Blocks until the data of everything queued are there (no open operation is left before), without
 * waiting for the modelled time. For who computes on device memory with the CPU: call it before
 * the maths of a kernel that is about to be enqueued on the stream. `handle` as for
 * simgpu_stream_of. Looked up by dlsym, as simgpu_next_duration_ns.
 */
SIMGPU_EXPORT void simgpu_stream_settle(void *handle);
int simgpu_device_synchronize(int device);
/* Calls back, without a lock, for each stream that exists. */
void simgpu_streams_visit(int device, void (*visit)(uint32_t context, uint32_t id, int priority));

enum { SIMGPU_EVENT_DISABLE_TIMING = 2 };
int simgpu_event_create(unsigned flags, struct simgpu_event **event);
int simgpu_event_destroy(struct simgpu_event *event);
int simgpu_event_record(struct simgpu_event *event, struct simgpu_stream *stream);
int simgpu_event_query(struct simgpu_event *event);
int simgpu_event_synchronize(struct simgpu_event *event);
int simgpu_event_elapsed_ns(struct simgpu_event *start, struct simgpu_event *end, int64_t *ns);
int simgpu_stream_wait_event(struct simgpu_stream *stream, struct simgpu_event *event);

/* ---- operations --------------------------------------------------------------------------- */

enum simgpu_operation_kind {
  SIMGPU_KERNEL,
  SIMGPU_MEMCPY,
  SIMGPU_MEMSET,
  SIMGPU_HOST,   /* a host function; only in the truth log */
  SIMGPU_FREE,   /* of stream-ordered memory; in no record */
  SIMGPU_MARKER, /* an event's, or of an empty graph; in no record */
  SIMGPU_GRAPH,  /* one launch of a graph: its span, beside the records of its nodes */
};

/* As CUPTI's copy kinds. */
enum simgpu_copy_kind {
  SIMGPU_COPY_HTOD = 1,
  SIMGPU_COPY_DTOH = 2,
  SIMGPU_COPY_DTOD = 8,
  SIMGPU_COPY_HTOH = 9,
  SIMGPU_COPY_PTOP = 10,
};

/* Rows of memory: one row for what is not 2D. */
struct simgpu_rows {
  void *start;
  size_t pitch;
};

/* Zero what does not apply. The upper part is the caller's, the lower one is filled in here. */
struct simgpu_operation {
  enum simgpu_operation_kind kind;
  const char *name; /* kernel's, mangled; must live as long as the process */
  uint32_t grid[3], block[3], cluster[3];
  uint32_t dynamic_shared, static_shared, registers;
  bool cooperative;
  /* Copies and fills. `to.start` NULL: bytes are counted and take their time, nothing moves. */
  uint64_t bytes;
  struct simgpu_rows from, to;
  size_t width, height; /* bytes of a row, rows; bytes = width * height if both are set */
  uint8_t copy_kind, source_kind, destination_kind;
  int source_device, destination_device; /* P2P */
  uint32_t value;       /* memset */
  uint8_t element_size; /* memset: 1, 2 or 4 */
  bool asynchronous;    /* the call was: a flag of the record */
  uint64_t duration_ns; /* 0: by simgpu_next_duration_ns, else by the model */

  uint32_t device, context, stream, correlation_id, tid;
  int32_t priority;
  uint64_t queued_ns, start_ns, end_ns;
  uint32_t graph_id;
  uint64_t graph_node_id;
  const struct simgpu_open_kernel *open; /* of a captured one, with `payload` for its user */
  uint64_t sequence; /* of the process, by enqueuing */
  void *payload;     /* of the kinds HOST, FREE and GRAPH, and of open ones; simgpu's own */
  const struct simgpu_observer *observer; /* who is told of it; see there */
  uint32_t admitted;
  unsigned ticket;
};

/* On a capturing stream, a node of the graph instead. Takes the correlation id of the call that the
   thread is in (simgpu_call_begin), or a new one. Returns at once. */
int simgpu_enqueue(struct simgpu_stream *stream, const struct simgpu_operation *operation);

/*
 * An open operation: as above, but it ends when its owner says so. `started` is called once, when
 * everything before it is resolved: on the enqueuing thread, before simgpu_enqueue_open returns,
 * or on the thread that resolves it. `start_ns` may lie in the future (kernels before it are still
 * "running"): do not wait for it, add it to what you compute. No lock of simgpu is held; it must
 * not block and may call simgpu_complete. SIMGPU_CAPTURE_UNSUPPORTED on a capturing stream.
 */
struct simgpu_open;
typedef void (*simgpu_started)(struct simgpu_open *open, void *state, uint64_t start_ns);
int simgpu_enqueue_open(struct simgpu_stream *stream, const struct simgpu_operation *operation,
                        simgpu_started started, void *state, struct simgpu_open **open);
/* Ends it at `end_ns` (the data must be in place now) and resolves what waited. `open` is gone. */
void simgpu_complete(struct simgpu_open *open, uint64_t end_ns);

/*
 * The same for a kernel launched through a library (cuLaunchKernelEx): the calling thread's next
 * kernel is an open one. `submit` is called once for each execution, in the order of launches: by
 * the launching thread, within the launch, or within the launch of the graph that the kernel was
 * captured into (`how` and `user` must then live for ever; the nodes of such a graph run one after
 * the other). What it returns is `state`.
 */
struct simgpu_open_kernel {
  void *(*submit)(void *user);
  simgpu_started start;
};
void simgpu_next_open(const struct simgpu_open_kernel *how, void *user);

/* Of the calling thread's next operation (not of copies and fills of 0 bytes). */
SIMGPU_EXPORT void simgpu_next_duration_ns(uint64_t duration_ns);

/* Runs function(user) when the stream comes there, on a thread of its own. */
int simgpu_enqueue_host(struct simgpu_stream *stream, void (*function)(void *), void *user);

/* ---- calls of the API --------------------------------------------------------------------- */

enum simgpu_domain { SIMGPU_DRIVER = 1, SIMGPU_RUNTIME = 2 };

/* One call of a CUDA function on the calling thread. Lies on the stack of that function. */
struct simgpu_call {
  enum simgpu_domain domain;
  uint32_t cbid; /* CUPTI's */
  const char *function;
  const void *parameters; /* as CUPTI's generated structures */
  const char *symbol;     /* of the kernel, or NULL */
  uint32_t correlation_id;
  uint64_t start_ns;
  uint64_t correlation_data; /* of the callback client */
  bool observed;
  struct simgpu_call *outer;
};

/* Nested calls have the outer one's correlation id. Fill in domain .. symbol before. */
void simgpu_call_begin(struct simgpu_call *call);
/* `result` is what the function is about to return. */
void simgpu_call_end(struct simgpu_call *call, int result);

/* ---- observers ---------------------------------------------------------------------------- */

struct simgpu_sync {
  uint32_t type; /* CUPTI's */
  uint32_t correlation_id, context, stream, event_id;
  uint64_t start_ns, end_ns;
};

struct simgpu_allocation {
  bool is_free, is_async;
  enum simgpu_memory_kind kind;
  uint64_t address, bytes, time_ns;
  uint32_t correlation_id, device, context, stream;
};

/*
 * libcupti's view. Called with no lock held, on whatever thread things happen, but for the two that
 * make a capture exact. Between the moment when an operation gets its times and the moment when
 * `operation` is called, its thread may lose the processor, and a client may switch kinds off and
 * flush. So `admit` (lock held) says, as the operation is enqueued and as it gets its times, what
 * is recorded now: bits of the observer's own, in `admitted`. `depart` (lock held) and `arrive` are
 * around the way; a flush waits for those who are on it.
 */
struct simgpu_observer {
  uint32_t (*admit)(void);
  unsigned (*depart)(void);
  void (*arrive)(unsigned ticket);
  void (*enter)(struct simgpu_call *call);
  void (*leave)(struct simgpu_call *call, int result, uint64_t end_ns);
  /* With its times, which may lie in the future. */
  void (*operation)(const struct simgpu_operation *operation);
  /* An open one began (start_ns is set); `operation` follows with the same sequence. */
  void (*started)(const struct simgpu_operation *operation);
  void (*sync)(const struct simgpu_sync *sync);
  void (*allocation)(const struct simgpu_allocation *allocation);
  void (*stream)(uint32_t context, uint32_t id, int priority);
  void (*context)(uint32_t device, uint32_t context);
};
/* NULL takes it away. The old one's functions may run a little longer on other threads. */
void simgpu_observe(const struct simgpu_observer *observer);
/* Runs change(argument) while no operation gets its times. */
void simgpu_between_operations(void (*change)(void *), void *argument);
const struct simgpu_observer *simgpu_observer(void);

#endif
