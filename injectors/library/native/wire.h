/* Generated from profiler/schema.py by `make gen`. Do not edit. */
#ifndef GPUTAP_WIRE_H
#define GPUTAP_WIRE_H
#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
#define GPUTAP_ASSERT(x) static_assert(x, #x)
#else
#define GPUTAP_ASSERT(x) _Static_assert(x, #x)
#endif
#define GPUTAP_ABI_VERSION 1u
#define GPUTAP_MAGIC 0x3143504154555047ull
#define GPUTAP_AGENT_MEMFD "gputap-agent"
#define GPUTAP_CONTROL_MEMFD "gputap-ctl"

enum gputap_event_kind {
  GPUTAP_EVENT_KIND_OPERATOR = 1,
  GPUTAP_EVENT_KIND_AUTOGRAD = 2,
  GPUTAP_EVENT_KIND_USER_SCOPE = 3,
  GPUTAP_EVENT_KIND_TORCHSCRIPT = 4,
  GPUTAP_EVENT_KIND_GC = 5,
  GPUTAP_EVENT_KIND_COLLECTIVE = 6,
  GPUTAP_EVENT_KIND_CUDA_API = 7,
  GPUTAP_EVENT_KIND_NCCL_API = 8,
};

enum gputap_event_flag {
  GPUTAP_EVENT_FLAG_ASYNC_END = 1,
  GPUTAP_EVENT_FLAG_NO_STACK = 2,
  GPUTAP_EVENT_FLAG_NAME_LOST = 4,
  GPUTAP_EVENT_FLAG_REDISPATCH = 8,
};

enum gputap_agent_state {
  GPUTAP_AGENT_STATE_IDLE = 0,
  GPUTAP_AGENT_STATE_CONFIGURED = 1,
  GPUTAP_AGENT_STATE_CAPTURING = 2,
  GPUTAP_AGENT_STATE_DETACHED = 3,
  GPUTAP_AGENT_STATE_FORKED = 4,
  GPUTAP_AGENT_STATE_FAILED = 5,
};

enum gputap_stop_reason {
  GPUTAP_STOP_REASON_NONE = 0,
  GPUTAP_STOP_REASON_ASKED = 1,
  GPUTAP_STOP_REASON_DEADLINE = 2,
  GPUTAP_STOP_REASON_GPUTAP_GONE = 3,
  GPUTAP_STOP_REASON_FORKED = 4,
  GPUTAP_STOP_REASON_INTERNAL = 5,
};

enum gputap_command {
  GPUTAP_COMMAND_CONFIGURE = 1,
  GPUTAP_COMMAND_START = 2,
  GPUTAP_COMMAND_STOP = 3,
  GPUTAP_COMMAND_RUN_PYTHON = 4,
  GPUTAP_COMMAND_DETACH = 5,
  GPUTAP_COMMAND_DEVICE_ON = 6,
  GPUTAP_COMMAND_DEVICE_OFF = 7,
  GPUTAP_COMMAND_SAMPLE_PYTHON = 8,
};

enum gputap_capture_mode {
  GPUTAP_CAPTURE_MODE_ALWAYS_ON = 0,
  GPUTAP_CAPTURE_MODE_BURSTS = 1,
  GPUTAP_CAPTURE_MODE_FULL = 2,
};

enum gputap_drop_cause {
  GPUTAP_DROP_CAUSE_RING_FULL = 0,
  GPUTAP_DROP_CAUSE_NO_RING = 1,
  GPUTAP_DROP_CAUSE_NO_CONTEXT = 2,
  GPUTAP_DROP_CAUSE_STRINGS_FULL = 3,
  GPUTAP_DROP_CAUSE_STACKS_FULL = 4,
  GPUTAP_DROP_CAUSE_STRAY_END = 5,
  GPUTAP_DROP_CAUSE_LATE_END = 6,
  GPUTAP_DROP_CAUSE_OPEN_AT_CLOSE = 7,
  GPUTAP_DROP_CAUSE_DEVICE_RING_FULL = 8,
  GPUTAP_DROP_CAUSE_DEVICE_NO_BUFFER = 9,
  GPUTAP_DROP_CAUSE_DEVICE_BY_CUPTI = 10,
  GPUTAP_DROP_CAUSE_DEVICE_NONSENSE = 11,
  GPUTAP_DROP_CAUSE_DEVICE_AT_CLOSE = 12,
};

enum gputap_op_field {
  GPUTAP_OP_FIELD_NAME_AND_TIME = 1,
  GPUTAP_OP_FIELD_SCOPE = 2,
  GPUTAP_OP_FIELD_SEQ = 4,
  GPUTAP_OP_FIELD_FORWARD_TID = 8,
  GPUTAP_OP_FIELD_STACK = 16,
  GPUTAP_OP_FIELD_MODULE = 32,
  GPUTAP_OP_FIELD_SHAPES = 64,
};

enum gputap_device_state {
  GPUTAP_DEVICE_STATE_OFF = 0,
  GPUTAP_DEVICE_STATE_STARTING = 1,
  GPUTAP_DEVICE_STATE_ON = 2,
  GPUTAP_DEVICE_STATE_STOPPING = 3,
  GPUTAP_DEVICE_STATE_YIELDED = 4,
  GPUTAP_DEVICE_STATE_NO_CUPTI = 5,
  GPUTAP_DEVICE_STATE_HELD = 6,
  GPUTAP_DEVICE_STATE_NO_DRIVER = 7,
  GPUTAP_DEVICE_STATE_FAILED = 8,
  GPUTAP_DEVICE_STATE_BUDGET = 9,
  GPUTAP_DEVICE_STATE_STUCK = 10,
};

enum gputap_ring_state {
  GPUTAP_RING_STATE_FREE = 0,
  GPUTAP_RING_STATE_IN_USE = 1,
  GPUTAP_RING_STATE_THREAD_ENDED = 2,
};

enum gputap_clock_kind {
  GPUTAP_CLOCK_KIND_MONOTONIC_NS = 0,
  GPUTAP_CLOCK_KIND_CPU_COUNTER = 1,
};

/* Something with a start and an end on a CPU thread of the target. */
struct gputap_event_record {
  uint64_t start_ticks; /* Start. */
  uint64_t end_ticks; /* End. */
  int64_t seq; /* Autograd sequence number; -1 if none. For GC: the generation. */
  uint32_t name_id; /* Id in the string table; 0 if unknown. */
  uint32_t stack_id; /* Id in the stack table; 0 if none. */
  uint32_t tid; /* Thread that started it, in the target's pid namespace. */
  uint32_t fwd_tid; /* torch's number of the forward thread of an autograd node; 0 if none. */
  uint32_t shape_id; /* String id of input shapes and dtypes as JSON; 0 if not asked for. */
  uint16_t depth; /* Nesting depth on the starting thread, outermost 0. */
  uint8_t kind; /* `EventKind`. */
  uint8_t flags; /* Bits of `EventFlag`. */
};
GPUTAP_ASSERT(sizeof(struct gputap_event_record) == 48);
GPUTAP_ASSERT(offsetof(struct gputap_event_record, start_ticks) == 0);
GPUTAP_ASSERT(offsetof(struct gputap_event_record, end_ticks) == 8);
GPUTAP_ASSERT(offsetof(struct gputap_event_record, seq) == 16);
GPUTAP_ASSERT(offsetof(struct gputap_event_record, name_id) == 24);
GPUTAP_ASSERT(offsetof(struct gputap_event_record, stack_id) == 28);
GPUTAP_ASSERT(offsetof(struct gputap_event_record, tid) == 32);
GPUTAP_ASSERT(offsetof(struct gputap_event_record, fwd_tid) == 36);
GPUTAP_ASSERT(offsetof(struct gputap_event_record, shape_id) == 40);
GPUTAP_ASSERT(offsetof(struct gputap_event_record, depth) == 44);
GPUTAP_ASSERT(offsetof(struct gputap_event_record, kind) == 46);
GPUTAP_ASSERT(offsetof(struct gputap_event_record, flags) == 47);

/* One writer (a thread of the target), one reader (gputap). Records follow at the next page. */
struct gputap_ring_header {
  uint64_t head; /* Records ever written. The writer's. */
  uint8_t pad0[56]; /* Own cache line for the writer. */
  uint64_t tail; /* Records ever read. The reader's. */
  uint8_t pad1[56]; /* Own cache line for the reader. */
  uint64_t dropped; /* Records that found the ring full. */
  uint32_t tid; /* The writer's thread id in the target's pid namespace. */
  uint32_t torch_tid; /* torch's own number of that thread; 0 if unknown. */
  uint32_t state; /* `RingState`. */
  uint32_t generation; /* Counts the threads that have used this slot. */
  uint8_t comm[16]; /* Thread name, NUL-terminated. */
  uint8_t pad2[88]; /* Reserved. */
};
GPUTAP_ASSERT(sizeof(struct gputap_ring_header) == 256);
GPUTAP_ASSERT(offsetof(struct gputap_ring_header, head) == 0);
GPUTAP_ASSERT(offsetof(struct gputap_ring_header, pad0) == 8);
GPUTAP_ASSERT(offsetof(struct gputap_ring_header, tail) == 64);
GPUTAP_ASSERT(offsetof(struct gputap_ring_header, pad1) == 72);
GPUTAP_ASSERT(offsetof(struct gputap_ring_header, dropped) == 128);
GPUTAP_ASSERT(offsetof(struct gputap_ring_header, tid) == 136);
GPUTAP_ASSERT(offsetof(struct gputap_ring_header, torch_tid) == 140);
GPUTAP_ASSERT(offsetof(struct gputap_ring_header, state) == 144);
GPUTAP_ASSERT(offsetof(struct gputap_ring_header, generation) == 148);
GPUTAP_ASSERT(offsetof(struct gputap_ring_header, comm) == 152);
GPUTAP_ASSERT(offsetof(struct gputap_ring_header, pad2) == 168);

/* The agent's clock against the kernel's, taken by the control thread. */
struct gputap_clock_sample {
  uint64_t ticks; /* Tick counter, middle of the bracket. */
  int64_t mono_ns; /* CLOCK_MONOTONIC. */
  int64_t unix_ns; /* CLOCK_REALTIME. */
  uint64_t width_ticks; /* Width of the bracket: twice the error bound. */
};
GPUTAP_ASSERT(sizeof(struct gputap_clock_sample) == 32);
GPUTAP_ASSERT(offsetof(struct gputap_clock_sample, ticks) == 0);
GPUTAP_ASSERT(offsetof(struct gputap_clock_sample, mono_ns) == 8);
GPUTAP_ASSERT(offsetof(struct gputap_clock_sample, unix_ns) == 16);
GPUTAP_ASSERT(offsetof(struct gputap_clock_sample, width_ticks) == 24);

/* One interned string; UTF-8 in the arena. Duplicates are possible and harmless. */
struct gputap_string_entry {
  uint32_t offset; /* Byte offset in the arena section. */
  uint32_t length; /* Length in bytes, no terminator. */
  uint32_t ready; /* 1 once the entry may be read. */
  uint32_t pad0; /* Reserved. */
};
GPUTAP_ASSERT(sizeof(struct gputap_string_entry) == 16);
GPUTAP_ASSERT(offsetof(struct gputap_string_entry, offset) == 0);
GPUTAP_ASSERT(offsetof(struct gputap_string_entry, length) == 4);
GPUTAP_ASSERT(offsetof(struct gputap_string_entry, ready) == 8);
GPUTAP_ASSERT(offsetof(struct gputap_string_entry, pad0) == 12);

/* One Python code object, copied on first sight because it may be freed later. */
struct gputap_code_entry {
  uint64_t code_ptr; /* Address of the PyCodeObject. */
  uint32_t name_id; /* co_qualname where it exists, else co_name; string id. */
  uint32_t filename_id; /* co_filename; string id. */
  int32_t firstlineno; /* co_firstlineno. */
  uint32_t linetable_offset; /* co_linetable (or co_lnotab) in the arena section. */
  uint32_t linetable_length; /* Its length in bytes; 0 if not kept. */
  uint32_t is_module_call; /* 1 for nn.Module._wrapped_call_impl (or _call_impl): local 0 is the module. */
  uint32_t ready; /* 1 once the entry may be read. */
  uint32_t pad0; /* Reserved. */
};
GPUTAP_ASSERT(sizeof(struct gputap_code_entry) == 40);
GPUTAP_ASSERT(offsetof(struct gputap_code_entry, code_ptr) == 0);
GPUTAP_ASSERT(offsetof(struct gputap_code_entry, name_id) == 8);
GPUTAP_ASSERT(offsetof(struct gputap_code_entry, filename_id) == 12);
GPUTAP_ASSERT(offsetof(struct gputap_code_entry, firstlineno) == 16);
GPUTAP_ASSERT(offsetof(struct gputap_code_entry, linetable_offset) == 20);
GPUTAP_ASSERT(offsetof(struct gputap_code_entry, linetable_length) == 24);
GPUTAP_ASSERT(offsetof(struct gputap_code_entry, is_module_call) == 28);
GPUTAP_ASSERT(offsetof(struct gputap_code_entry, ready) == 32);
GPUTAP_ASSERT(offsetof(struct gputap_code_entry, pad0) == 36);

/* One distinct Python stack: frames innermost first. */
struct gputap_stack_entry {
  uint64_t hash; /* Hash of the frames. */
  uint32_t first_frame; /* Index of the innermost frame in the frames section. */
  uint32_t frame_count; /* Number of frames. */
  uint32_t truncated; /* 1 if outer frames were left out. */
  uint32_t ready; /* 1 once the entry may be read. */
};
GPUTAP_ASSERT(sizeof(struct gputap_stack_entry) == 24);
GPUTAP_ASSERT(offsetof(struct gputap_stack_entry, hash) == 0);
GPUTAP_ASSERT(offsetof(struct gputap_stack_entry, first_frame) == 8);
GPUTAP_ASSERT(offsetof(struct gputap_stack_entry, frame_count) == 12);
GPUTAP_ASSERT(offsetof(struct gputap_stack_entry, truncated) == 16);
GPUTAP_ASSERT(offsetof(struct gputap_stack_entry, ready) == 20);

/* One Python frame of a stack. */
struct gputap_stack_frame {
  uint32_t code_id; /* Index in the codes section. */
  int32_t lasti; /* Byte offset of the current instruction in co_code; -1 if unknown. */
  uint64_t module_ptr; /* Address of the nn.Module called by this frame; 0 if it is no module call. */
};
GPUTAP_ASSERT(sizeof(struct gputap_stack_frame) == 16);
GPUTAP_ASSERT(offsetof(struct gputap_stack_frame, code_id) == 0);
GPUTAP_ASSERT(offsetof(struct gputap_stack_frame, lasti) == 4);
GPUTAP_ASSERT(offsetof(struct gputap_stack_frame, module_ptr) == 8);

/* CUPTI's clock against the agent's. */
struct gputap_device_clock_sample {
  uint64_t ticks; /* Tick counter, middle of the bracket. */
  uint64_t device_ns; /* What cuptiGetTimestamp said. */
  uint64_t width_ticks; /* Width of the bracket: twice the error bound. */
  uint64_t pad0; /* Reserved. */
};
GPUTAP_ASSERT(sizeof(struct gputap_device_clock_sample) == 32);
GPUTAP_ASSERT(offsetof(struct gputap_device_clock_sample, ticks) == 0);
GPUTAP_ASSERT(offsetof(struct gputap_device_clock_sample, device_ns) == 8);
GPUTAP_ASSERT(offsetof(struct gputap_device_clock_sample, width_ticks) == 16);
GPUTAP_ASSERT(offsetof(struct gputap_device_clock_sample, pad0) == 24);

/* Bytes from many writers (CUPTI's threads) to one reader (gputap). Chunks follow at the next page. */
struct gputap_device_ring {
  uint64_t head; /* Bytes ever claimed. The writers'. */
  uint8_t pad0[56]; /* Own cache line for the writers. */
  uint64_t tail; /* Bytes ever read. The reader's. */
  uint8_t pad1[56]; /* Own cache line for the reader. */
  uint64_t dropped; /* Records that found the ring full. */
  uint8_t pad2[120]; /* Reserved. */
};
GPUTAP_ASSERT(sizeof(struct gputap_device_ring) == 256);
GPUTAP_ASSERT(offsetof(struct gputap_device_ring, head) == 0);
GPUTAP_ASSERT(offsetof(struct gputap_device_ring, pad0) == 8);
GPUTAP_ASSERT(offsetof(struct gputap_device_ring, tail) == 64);
GPUTAP_ASSERT(offsetof(struct gputap_device_ring, pad1) == 72);
GPUTAP_ASSERT(offsetof(struct gputap_device_ring, dropped) == 128);
GPUTAP_ASSERT(offsetof(struct gputap_device_ring, pad2) == 136);

/* Some records as CUPTI wrote them, their strings replaced by string ids. Behind this header come `data_bytes` of records, then the offset of each as u4. */
struct gputap_device_chunk {
  uint32_t ready; /* 0 while it is being written, 1 to be read, 2 to be skipped. */
  uint32_t bytes; /* Size of the chunk, this header included; a multiple of 64. */
  uint32_t data_bytes; /* Bytes of records. */
  uint32_t records; /* How many. */
  uint32_t version; /* CUDA version of the CUPTI that wrote them: major * 100 + minor. */
  uint8_t pad0[44]; /* Reserved. */
};
GPUTAP_ASSERT(sizeof(struct gputap_device_chunk) == 64);
GPUTAP_ASSERT(offsetof(struct gputap_device_chunk, ready) == 0);
GPUTAP_ASSERT(offsetof(struct gputap_device_chunk, bytes) == 4);
GPUTAP_ASSERT(offsetof(struct gputap_device_chunk, data_bytes) == 8);
GPUTAP_ASSERT(offsetof(struct gputap_device_chunk, records) == 12);
GPUTAP_ASSERT(offsetof(struct gputap_device_chunk, version) == 16);
GPUTAP_ASSERT(offsetof(struct gputap_device_chunk, pad0) == 20);

/* What Python in the target said between two steps; one slot of a ring. */
struct gputap_python_sample {
  uint64_t wanted_ticks; /* When it was asked: the end of a step. */
  uint64_t begin_ticks; /* When Python began, the GIL being ours. */
  uint64_t end_ticks; /* When it was done. */
  uint64_t boundary; /* Number of that step's end; 0: none came, so it was a timer. */
  int32_t status; /* As `result_status`; after an exception no more are taken. */
  uint32_t length; /* Bytes of the answer. */
  uint8_t text[4056]; /* The answer, UTF-8. */
};
GPUTAP_ASSERT(sizeof(struct gputap_python_sample) == 4096);
GPUTAP_ASSERT(offsetof(struct gputap_python_sample, wanted_ticks) == 0);
GPUTAP_ASSERT(offsetof(struct gputap_python_sample, begin_ticks) == 8);
GPUTAP_ASSERT(offsetof(struct gputap_python_sample, end_ticks) == 16);
GPUTAP_ASSERT(offsetof(struct gputap_python_sample, boundary) == 24);
GPUTAP_ASSERT(offsetof(struct gputap_python_sample, status) == 32);
GPUTAP_ASSERT(offsetof(struct gputap_python_sample, length) == 36);
GPUTAP_ASSERT(offsetof(struct gputap_python_sample, text) == 40);

/* Where things are in libtorch's RecordFunction. Chosen by gputap from its version table; -1 = unknown. */
struct gputap_torch_layout {
  uint32_t version; /* torch version as major * 1000 + minor, e.g. 2013. */
  uint32_t cxx11_abi; /* 1 for the new std::string ABI. */
  int32_t thread_id; /* Offset of threadId_ (u64). */
  int32_t scope; /* Offset of scope_ (u8). */
  int32_t fn_index; /* Offset of the index of fn_'s variant (u8): 0 string, 1 schema. */
  int32_t seq; /* Offset of sequenceNr_ (i64). */
  int32_t forward_thread_id; /* Offset of fwdThreadId_ (u64). */
  int32_t inputs; /* Offset of inputs_ (pointer and length); -1 = use the exported accessors only. */
  uint8_t pad0[32]; /* Reserved. */
};
GPUTAP_ASSERT(sizeof(struct gputap_torch_layout) == 64);
GPUTAP_ASSERT(offsetof(struct gputap_torch_layout, version) == 0);
GPUTAP_ASSERT(offsetof(struct gputap_torch_layout, cxx11_abi) == 4);
GPUTAP_ASSERT(offsetof(struct gputap_torch_layout, thread_id) == 8);
GPUTAP_ASSERT(offsetof(struct gputap_torch_layout, scope) == 12);
GPUTAP_ASSERT(offsetof(struct gputap_torch_layout, fn_index) == 16);
GPUTAP_ASSERT(offsetof(struct gputap_torch_layout, seq) == 20);
GPUTAP_ASSERT(offsetof(struct gputap_torch_layout, forward_thread_id) == 24);
GPUTAP_ASSERT(offsetof(struct gputap_torch_layout, inputs) == 28);
GPUTAP_ASSERT(offsetof(struct gputap_torch_layout, pad0) == 32);

/* Where things are in CPython's frames and code objects. Chosen by gputap; -1 = absent. */
struct gputap_python_layout {
  uint32_t version; /* CPython version as major * 256 + minor, e.g. 0x030b. */
  uint32_t enabled; /* 1 if stacks may be walked. */
  int32_t tstate_frame; /* PyThreadState: pointer to the frame, or to the cframe. */
  int32_t cframe_current; /* cframe: current_frame (3.11, 3.12); -1 = no cframe. */
  int32_t frame_back; /* Frame: the caller's frame. */
  int32_t frame_code; /* Frame: the code object (f_code, f_executable). */
  int32_t frame_instr; /* Frame: instruction pointer (3.11+) or f_lasti (int, 3.8-3.10). */
  int32_t instr_is_lasti; /* 1 if frame_instr holds an int f_lasti, 2 if that counts code units. */
  int32_t frame_locals; /* Frame: the first fast local. */
  int32_t frame_owner; /* Frame: owner byte (3.12+); frames owned by the C stack are skipped. */
  int32_t owner_cstack; /* Value of the owner byte that means a C-stack shim. */
  int32_t pointer_tag_mask; /* Low bits to clear from executable and locals (3.14 stack references). */
  int32_t code_name; /* Code: co_name. */
  int32_t code_qualname; /* Code: co_qualname; -1 before 3.11. */
  int32_t code_filename; /* Code: co_filename. */
  int32_t code_firstlineno; /* Code: co_firstlineno (int). */
  int32_t code_linetable; /* Code: co_linetable or co_lnotab (bytes). */
  int32_t code_instructions; /* Code: first instruction (co_code_adaptive); -1 before 3.11. */
  int32_t ob_type; /* PyObject: type. */
  int32_t unicode_length; /* str: length in code points. */
  int32_t unicode_state; /* str: state word (compact and ascii bits). */
  uint32_t unicode_ascii_mask; /* Bits of the state that must be set: compact and ascii. */
  int32_t unicode_ascii_data; /* str: characters of a compact ascii string. */
  int32_t bytes_size; /* bytes: length. */
  int32_t bytes_data; /* bytes: first byte. */
  int32_t unicode_data; /* str: characters of a compact non-ascii string; 0 = not known. */
  int32_t unicode_kind_shift; /* str: where the 3 bits of the kind are in the state. */
  uint8_t pad0[20]; /* Reserved. */
};
GPUTAP_ASSERT(sizeof(struct gputap_python_layout) == 128);
GPUTAP_ASSERT(offsetof(struct gputap_python_layout, version) == 0);
GPUTAP_ASSERT(offsetof(struct gputap_python_layout, enabled) == 4);
GPUTAP_ASSERT(offsetof(struct gputap_python_layout, tstate_frame) == 8);
GPUTAP_ASSERT(offsetof(struct gputap_python_layout, cframe_current) == 12);
GPUTAP_ASSERT(offsetof(struct gputap_python_layout, frame_back) == 16);
GPUTAP_ASSERT(offsetof(struct gputap_python_layout, frame_code) == 20);
GPUTAP_ASSERT(offsetof(struct gputap_python_layout, frame_instr) == 24);
GPUTAP_ASSERT(offsetof(struct gputap_python_layout, instr_is_lasti) == 28);
GPUTAP_ASSERT(offsetof(struct gputap_python_layout, frame_locals) == 32);
GPUTAP_ASSERT(offsetof(struct gputap_python_layout, frame_owner) == 36);
GPUTAP_ASSERT(offsetof(struct gputap_python_layout, owner_cstack) == 40);
GPUTAP_ASSERT(offsetof(struct gputap_python_layout, pointer_tag_mask) == 44);
GPUTAP_ASSERT(offsetof(struct gputap_python_layout, code_name) == 48);
GPUTAP_ASSERT(offsetof(struct gputap_python_layout, code_qualname) == 52);
GPUTAP_ASSERT(offsetof(struct gputap_python_layout, code_filename) == 56);
GPUTAP_ASSERT(offsetof(struct gputap_python_layout, code_firstlineno) == 60);
GPUTAP_ASSERT(offsetof(struct gputap_python_layout, code_linetable) == 64);
GPUTAP_ASSERT(offsetof(struct gputap_python_layout, code_instructions) == 68);
GPUTAP_ASSERT(offsetof(struct gputap_python_layout, ob_type) == 72);
GPUTAP_ASSERT(offsetof(struct gputap_python_layout, unicode_length) == 76);
GPUTAP_ASSERT(offsetof(struct gputap_python_layout, unicode_state) == 80);
GPUTAP_ASSERT(offsetof(struct gputap_python_layout, unicode_ascii_mask) == 84);
GPUTAP_ASSERT(offsetof(struct gputap_python_layout, unicode_ascii_data) == 88);
GPUTAP_ASSERT(offsetof(struct gputap_python_layout, bytes_size) == 92);
GPUTAP_ASSERT(offsetof(struct gputap_python_layout, bytes_data) == 96);
GPUTAP_ASSERT(offsetof(struct gputap_python_layout, unicode_data) == 100);
GPUTAP_ASSERT(offsetof(struct gputap_python_layout, unicode_kind_shift) == 104);
GPUTAP_ASSERT(offsetof(struct gputap_python_layout, pad0) == 108);

/* First page of the shared memory: who, where everything is, commands, counters. */
struct gputap_control_header {
  uint64_t magic; /* `MAGIC`. */
  uint32_t abi; /* `ABI_VERSION`. */
  uint32_t header_bytes; /* Size of this header. */
  uint64_t total_bytes; /* Size of the whole memory. */
  uint64_t build_id; /* Identifies the agent's build. */
  uint32_t pid; /* The target's pid as it sees itself. */
  uint32_t clock_kind; /* `ClockKind`. */
  uint64_t session_id; /* Chosen by the agent at each attach. */
  uint64_t rings_offset; /* First ring header. */
  uint64_t ring_stride; /* Distance from ring to ring. */
  uint32_t ring_count; /* Ring slots. */
  uint32_t ring_capacity; /* Records per ring, a power of two. */
  uint32_t ring_data_offset; /* From a ring's header to its first record. */
  uint32_t pad0; /* Reserved. */
  uint64_t clock_offset; /* Clock samples (`ClockSample`), a ring. */
  uint64_t strings_offset; /* String entries. */
  uint64_t codes_offset; /* Code entries. */
  uint64_t stacks_offset; /* Stack entries. */
  uint64_t frames_offset; /* Stack frames. */
  uint64_t arena_offset; /* Bytes of strings and line tables. */
  uint64_t request_offset; /* Python source to run in the target, UTF-8. */
  uint64_t result_offset; /* What it answered, UTF-8. */
  uint32_t clock_capacity; /* Clock samples kept. */
  uint32_t strings_capacity; /* String entries. */
  uint32_t codes_capacity; /* Code entries. */
  uint32_t stacks_capacity; /* Stack entries. */
  uint32_t frames_capacity; /* Stack frames. */
  uint32_t arena_capacity; /* Bytes in the arena. */
  uint32_t request_capacity; /* Bytes. */
  uint32_t result_capacity; /* Bytes. */
  uint32_t clock_count; /* Clock samples ever taken. */
  uint32_t strings_count; /* String ids given out, id 0 included. */
  uint32_t codes_count; /* Code ids given out, id 0 included. */
  uint32_t stacks_count; /* Stack ids given out, id 0 included. */
  uint32_t frames_count; /* Stack frames used. */
  uint32_t arena_used; /* Arena bytes used. */
  uint32_t command_seq; /* Raised by gputap for each command. */
  uint32_t command; /* `Command`. */
  uint32_t ack_seq; /* Set to command_seq when done (futex word). */
  int32_t ack_status; /* 0, or a negative errno. */
  uint8_t message[256]; /* Why a command failed, or the last self-test's words; NUL-terminated. */
  uint32_t mode; /* `CaptureMode`. */
  uint32_t budget_ppm; /* Share of the target's time we may cost in BURSTS. */
  uint64_t window_ns; /* Length of the window; the agent closes it by itself. 0 = until STOP. */
  uint32_t event_cost_ns; /* What one recorded event costs the target. */
  uint32_t armed_cost_ns; /* What one seen but unrecorded event costs. */
  uint32_t want_stacks; /* 1: walk Python stacks and module paths. */
  uint32_t want_shapes; /* 1: record input shapes and dtypes. */
  uint32_t want_gc; /* 1: record garbage collections. */
  uint32_t min_burst_steps; /* A burst records at least so many whole steps. */
  uint32_t request_length; /* Bytes of source. */
  uint32_t request_timeout_ms; /* How long to wait for the GIL and the answer. */
  uint32_t result_length; /* Bytes of the answer. */
  int32_t result_status; /* 0 ok, 1 exception (answer is its text), -110 time-out, -95 no Python. */
  uint32_t state; /* `AgentState`. */
  uint32_t stop_reason; /* `StopReason`. */
  uint32_t op_fields; /* Bits of `OpField` that the self-test trusts. */
  uint32_t recording; /* 1 while every operator is recorded. */
  uint64_t agent_ticks; /* Heartbeat: raised at each turn of the control thread. */
  uint64_t window_start_ticks; /* When START took effect. */
  uint64_t window_end_ticks; /* When the window closed; 0 while open. */
  uint64_t recorded_ticks; /* Time during which every operator was recorded. */
  uint64_t events; /* Events recorded, all rings. */
  uint64_t armed_events; /* Events seen while armed but not recorded. */
  uint64_t boundaries; /* Step boundaries seen (optimizer ends, loader iterations). */
  uint64_t bursts; /* Bursts recorded. */
  uint64_t dropped[16]; /* Lost events by `DropCause`. */
  uint64_t user_events; /* User scopes seen, recorded or not. */
  uint64_t user_ticks; /* Time during which user scopes were recorded. */
  uint64_t spent_ns; /* What the events so far cost the target, by these prices. */
  uint32_t user_cost_ns; /* What one user scope costs the target; written before START, 0 = the agent's default. */
  uint32_t pad3; /* Reserved. */
  uint64_t pad1[4]; /* Reserved. */
  uint8_t torch_layout[64]; /* `TorchLayout`. */
  uint8_t python_layout[128]; /* `PythonLayout`. */
  uint64_t device_ring_offset; /* `DeviceRing`. */
  uint64_t device_clock_offset; /* Device clock samples (`DeviceClockSample`), a ring. */
  uint32_t device_ring_capacity; /* Bytes for chunks, a power of two. */
  uint32_t device_clock_capacity; /* Device clock samples kept. */
  uint32_t device_clock_count; /* Device clock samples ever taken. */
  uint32_t device_flush_ms; /* How often CUPTI is asked for what is complete. */
  uint64_t device_kinds; /* Activity kinds that are wanted, by bit number. */
  uint64_t device_record_limit; /* After so many records it ends; 0 = never. */
  uint32_t device_calls; /* 1: record the CUDA calls that launch, copy, wait, allocate. */
  uint32_t device_state; /* `DeviceState`. */
  uint32_t device_error; /* CUptiResult of the call that failed; 0 if none. */
  uint32_t device_api_version; /* What cuptiGetVersion said. */
  uint32_t device_version; /* CUDA version of the CUPTI: major * 100 + minor. */
  uint32_t device_yields; /* How often it was let go for the target's own profiler. */
  uint64_t device_enabled; /* Activity kinds that are enabled, by bit number. */
  uint64_t device_records; /* Records copied out. */
  uint64_t device_buffers; /* Buffers that CUPTI handed back. */
  uint64_t device_zero_times; /* Kernels, copies and fills without start or end. */
  uint64_t device_on_ticks; /* Time during which it was on. */
  uint32_t device_torch_is_idle; /* 1: after HELD, gputap has asked torch: its profiler, which keeps CUPTI for good, is idle. */
  uint32_t device_pad; /* Reserved. */
  uint8_t device_message[128]; /* Why it is not on; NUL-terminated. */
  uint64_t samples_offset; /* Python samples (`PythonSample`), a ring. */
  uint32_t samples_capacity; /* Python samples kept. */
  uint32_t samples_count; /* Python samples ever taken. */
  uint32_t sample_period_ms; /* Least time between two; written before SAMPLE_PYTHON. */
  uint32_t pad4; /* Reserved. */
  uint8_t pad2[2832]; /* Reserved. */
};
GPUTAP_ASSERT(sizeof(struct gputap_control_header) == 4096);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, magic) == 0);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, abi) == 8);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, header_bytes) == 12);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, total_bytes) == 16);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, build_id) == 24);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, pid) == 32);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, clock_kind) == 36);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, session_id) == 40);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, rings_offset) == 48);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, ring_stride) == 56);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, ring_count) == 64);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, ring_capacity) == 68);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, ring_data_offset) == 72);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, pad0) == 76);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, clock_offset) == 80);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, strings_offset) == 88);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, codes_offset) == 96);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, stacks_offset) == 104);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, frames_offset) == 112);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, arena_offset) == 120);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, request_offset) == 128);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, result_offset) == 136);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, clock_capacity) == 144);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, strings_capacity) == 148);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, codes_capacity) == 152);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, stacks_capacity) == 156);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, frames_capacity) == 160);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, arena_capacity) == 164);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, request_capacity) == 168);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, result_capacity) == 172);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, clock_count) == 176);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, strings_count) == 180);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, codes_count) == 184);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, stacks_count) == 188);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, frames_count) == 192);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, arena_used) == 196);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, command_seq) == 200);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, command) == 204);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, ack_seq) == 208);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, ack_status) == 212);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, message) == 216);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, mode) == 472);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, budget_ppm) == 476);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, window_ns) == 480);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, event_cost_ns) == 488);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, armed_cost_ns) == 492);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, want_stacks) == 496);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, want_shapes) == 500);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, want_gc) == 504);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, min_burst_steps) == 508);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, request_length) == 512);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, request_timeout_ms) == 516);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, result_length) == 520);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, result_status) == 524);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, state) == 528);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, stop_reason) == 532);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, op_fields) == 536);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, recording) == 540);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, agent_ticks) == 544);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, window_start_ticks) == 552);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, window_end_ticks) == 560);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, recorded_ticks) == 568);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, events) == 576);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, armed_events) == 584);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, boundaries) == 592);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, bursts) == 600);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, dropped) == 608);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, user_events) == 736);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, user_ticks) == 744);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, spent_ns) == 752);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, user_cost_ns) == 760);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, pad3) == 764);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, pad1) == 768);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, torch_layout) == 800);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, python_layout) == 864);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, device_ring_offset) == 992);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, device_clock_offset) == 1000);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, device_ring_capacity) == 1008);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, device_clock_capacity) == 1012);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, device_clock_count) == 1016);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, device_flush_ms) == 1020);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, device_kinds) == 1024);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, device_record_limit) == 1032);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, device_calls) == 1040);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, device_state) == 1044);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, device_error) == 1048);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, device_api_version) == 1052);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, device_version) == 1056);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, device_yields) == 1060);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, device_enabled) == 1064);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, device_records) == 1072);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, device_buffers) == 1080);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, device_zero_times) == 1088);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, device_on_ticks) == 1096);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, device_torch_is_idle) == 1104);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, device_pad) == 1108);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, device_message) == 1112);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, samples_offset) == 1240);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, samples_capacity) == 1248);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, samples_count) == 1252);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, sample_period_ms) == 1256);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, pad4) == 1260);
GPUTAP_ASSERT(offsetof(struct gputap_control_header, pad2) == 1264);

#endif
