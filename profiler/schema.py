"""The one schema: every record, enumeration and table of gputap, declared once.

From here come the C header of the shared memory (`injectors/library/native/wire.h`), the NumPy
types that read it, the Arrow types and Parquet columns of a capture, the names of OTLP attributes
and `docs/schema.md`. `make gen` writes the generated files; `make check` fails when one is stale.

Rules of the wire: little-endian, natural alignment, no implicit padding (`layout` refuses holes),
strings as ids into a string table, times in ticks of the agent's clock, a version in the header.
Ids are fixed integers: retire them in `RETIRED`, never reuse them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

ABI_VERSION: Final = 1
"""Version of the shared-memory layout. A resident agent of another version is not reused."""

CAPTURE_VERSION: Final = 1
"""Version of the capture on disk (manifest and tables). Readers accept this and older ones."""

MAGIC: Final = 0x3143504154555047
"""The first eight bytes of the control memory, `GPUTAPC1` read as a little-endian integer."""


AGENT_MEMFD: Final = "gputap-agent"
"""Name of the memfd that the agent library is loaded from; its mapping marks a resident agent."""

CONTROL_MEMFD: Final = "gputap-ctl"
"""Name of the memfd that holds the shared memory."""


# ---------------------------------------------------------------------------- enumerations


class EventKind(IntEnum):
    """What happened. The value is in the record; the lower-case name is in the Parquet column."""

    OPERATOR = 1
    AUTOGRAD = 2
    USER_SCOPE = 3
    TORCHSCRIPT = 4
    GC = 5
    COLLECTIVE = 6
    CUDA_API = 7
    """A call of the CUDA runtime or driver; `seq` is its correlation id."""
    NCCL_API = 8
    """A call of NCCL by a library other than torch; `shape_id` is its arguments as JSON."""


class EventFlag(IntEnum):
    """Bits of `EventRecord.flags`."""

    ASYNC_END = 1
    """Ended on another thread than it started on (futures, collectives)."""
    NO_STACK = 2
    """The thread had no Python frames, or they were not readable."""
    NAME_LOST = 4
    """The name did not fit the string table."""
    REDISPATCH = 8
    """Only child of an event of the same name: one call that torch dispatched twice. Set when
    records become rows; torch.profiler's tables leave such events out."""


class AgentState(IntEnum):
    """What the agent in the target is doing."""

    IDLE = 0
    CONFIGURED = 1
    CAPTURING = 2
    DETACHED = 3
    FORKED = 4
    FAILED = 5


class StopReason(IntEnum):
    """Why the agent closed its window."""

    NONE = 0
    ASKED = 1
    DEADLINE = 2
    GPUTAP_GONE = 3
    FORKED = 4
    INTERNAL = 5


class Command(IntEnum):
    """What gputap asks of the agent through the control header."""

    CONFIGURE = 1
    START = 2
    STOP = 3
    RUN_PYTHON = 4
    DETACH = 5
    DEVICE_ON = 6
    """Begin to take CUPTI; acknowledged at once, `device_state` tells how it goes."""
    DEVICE_OFF = 7
    SAMPLE_PYTHON = 8
    """Run the mailbox's source after steps from now on, in open windows; an empty one ends that."""


class CaptureMode(IntEnum):
    """How much of the window is recorded."""

    ALWAYS_ON = 0
    """User scopes only: steps, loader, optimizer."""
    BURSTS = 1
    """Whole steps of every operator, duty-cycled under the budget; user scopes all the time."""
    FULL = 2
    """Every operator of every step."""


class DropCause(IntEnum):
    """Index into `ControlHeader.dropped`: why an event was not recorded."""

    RING_FULL = 0
    NO_RING = 1
    NO_CONTEXT = 2
    STRINGS_FULL = 3
    STACKS_FULL = 4
    STRAY_END = 5
    LATE_END = 6
    OPEN_AT_CLOSE = 7
    DEVICE_RING_FULL = 8
    DEVICE_NO_BUFFER = 9
    """CUPTI asked for a buffer while all of ours were with it: what it then wrote was thrown away."""
    DEVICE_BY_CUPTI = 10
    """CUPTI's own count of records that it dropped."""
    DEVICE_NONSENSE = 11
    """What CUPTI delivered could not be stepped through."""
    DEVICE_AT_CLOSE = 12
    """Still with CUPTI when the window's time for the last records was over (buffers)."""


class OpField(IntEnum):
    """Bits of `ControlHeader.op_fields`: what the self-test in the target found trustworthy."""

    NAME_AND_TIME = 1
    SCOPE = 2
    SEQ = 4
    FORWARD_TID = 8
    STACK = 16
    MODULE = 32
    SHAPES = 64


class DeviceState(IntEnum):
    """How the agent stands with CUPTI."""

    OFF = 0
    STARTING = 1
    ON = 2
    STOPPING = 3
    YIELDED = 4
    """Let go for the target's own profiler; taken again when that has ended."""
    NO_CUPTI = 5
    """No libcupti is mapped: the process uses no CUDA, or not yet."""
    HELD = 6
    """Somebody else has subscribed."""
    NO_DRIVER = 7
    """CUPTI finds no driver, or one that is not up yet."""
    FAILED = 8
    BUDGET = 9
    """The window's number of records is used up."""
    STUCK = 10
    """A call into CUPTI has not returned."""


class RingState(IntEnum):
    """State of a ring slot."""

    FREE = 0
    IN_USE = 1
    THREAD_ENDED = 2


class ClockKind(IntEnum):
    """What a tick is."""

    MONOTONIC_NS = 0
    CPU_COUNTER = 1


RETIRED: Final[dict[str, frozenset[int]]] = {}
"""Ids that were once given out, by enumeration. They are never given out again."""

ENUMS: Final = (
    EventKind,
    EventFlag,
    AgentState,
    StopReason,
    Command,
    CaptureMode,
    DropCause,
    OpField,
    DeviceState,
    RingState,
    ClockKind,
)


# ------------------------------------------------------------------------------ wire records


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a wire record: NumPy type code, element count, unit and meaning."""

    name: str
    type: str
    doc: str
    count: int = 1
    unit: str = ""

    @property
    def size(self) -> int:
        """Size in bytes, all elements."""
        return np.dtype(self.type).itemsize * self.count


@dataclass(frozen=True, slots=True)
class Struct:
    """One fixed-size wire record."""

    name: str
    size: int
    doc: str
    fields: tuple[Field, ...]


def layout(struct: Struct) -> dict[str, int]:
    """Offset of every field of `struct`. Raises ValueError on a hole or a wrong size."""
    offsets: dict[str, int] = {}
    at = 0
    for field in struct.fields:
        if at % np.dtype(field.type).itemsize:
            raise ValueError(f"{struct.name}.{field.name} at {at} needs padding before it")
        offsets[field.name] = at
        at += field.size
    if at != struct.size:
        raise ValueError(f"{struct.name} is {at} bytes, declared {struct.size}")
    return offsets


@cache
def dtype(struct: Struct) -> np.dtype[np.void]:
    """NumPy type that reads `struct` from shared memory."""
    offsets = layout(struct)
    return np.dtype(
        {
            "names": [f.name for f in struct.fields],
            "formats": [(f.type, (f.count,)) if f.count > 1 else f.type for f in struct.fields],
            "offsets": [offsets[f.name] for f in struct.fields],
            "itemsize": struct.size,
        }
    )


EVENT_RECORD: Final = Struct(
    "EventRecord",
    48,
    "Something with a start and an end on a CPU thread of the target.",
    (
        Field("start_ticks", "<u8", "Start.", unit="ticks"),
        Field("end_ticks", "<u8", "End.", unit="ticks"),
        Field("seq", "<i8", "Autograd sequence number; -1 if none. For GC: the generation."),
        Field("name_id", "<u4", "Id in the string table; 0 if unknown."),
        Field("stack_id", "<u4", "Id in the stack table; 0 if none."),
        Field("tid", "<u4", "Thread that started it, in the target's pid namespace."),
        Field(
            "fwd_tid", "<u4", "torch's number of the forward thread of an autograd node; 0 if none."
        ),
        Field(
            "shape_id", "<u4", "String id of input shapes and dtypes as JSON; 0 if not asked for."
        ),
        Field("depth", "<u2", "Nesting depth on the starting thread, outermost 0."),
        Field("kind", "<u1", "`EventKind`."),
        Field("flags", "<u1", "Bits of `EventFlag`."),
    ),
)

RING_HEADER: Final = Struct(
    "RingHeader",
    256,
    "One writer (a thread of the target), one reader (gputap). Records follow at the next page.",
    (
        Field("head", "<u8", "Records ever written. The writer's."),
        Field("pad0", "<u1", "Own cache line for the writer.", count=56),
        Field("tail", "<u8", "Records ever read. The reader's."),
        Field("pad1", "<u1", "Own cache line for the reader.", count=56),
        Field("dropped", "<u8", "Records that found the ring full."),
        Field("tid", "<u4", "The writer's thread id in the target's pid namespace."),
        Field("torch_tid", "<u4", "torch's own number of that thread; 0 if unknown."),
        Field("state", "<u4", "`RingState`."),
        Field("generation", "<u4", "Counts the threads that have used this slot."),
        Field("comm", "<u1", "Thread name, NUL-terminated.", count=16),
        Field("pad2", "<u1", "Reserved.", count=88),
    ),
)

CLOCK_SAMPLE: Final = Struct(
    "ClockSample",
    32,
    "The agent's clock against the kernel's, taken by the control thread.",
    (
        Field("ticks", "<u8", "Tick counter, middle of the bracket.", unit="ticks"),
        Field("mono_ns", "<i8", "CLOCK_MONOTONIC.", unit="ns"),
        Field("unix_ns", "<i8", "CLOCK_REALTIME.", unit="ns"),
        Field("width_ticks", "<u8", "Width of the bracket: twice the error bound.", unit="ticks"),
    ),
)

STRING_ENTRY: Final = Struct(
    "StringEntry",
    16,
    "One interned string; UTF-8 in the arena. Duplicates are possible and harmless.",
    (
        Field("offset", "<u4", "Byte offset in the arena section."),
        Field("length", "<u4", "Length in bytes, no terminator."),
        Field("ready", "<u4", "1 once the entry may be read."),
        Field("pad0", "<u4", "Reserved."),
    ),
)

CODE_ENTRY: Final = Struct(
    "CodeEntry",
    40,
    "One Python code object, copied on first sight because it may be freed later.",
    (
        Field("code_ptr", "<u8", "Address of the PyCodeObject."),
        Field("name_id", "<u4", "co_qualname where it exists, else co_name; string id."),
        Field("filename_id", "<u4", "co_filename; string id."),
        Field("firstlineno", "<i4", "co_firstlineno."),
        Field("linetable_offset", "<u4", "co_linetable (or co_lnotab) in the arena section."),
        Field("linetable_length", "<u4", "Its length in bytes; 0 if not kept."),
        Field(
            "is_module_call",
            "<u4",
            "1 for nn.Module._wrapped_call_impl (or _call_impl): local 0 is the module.",
        ),
        Field("ready", "<u4", "1 once the entry may be read."),
        Field("pad0", "<u4", "Reserved."),
    ),
)

STACK_ENTRY: Final = Struct(
    "StackEntry",
    24,
    "One distinct Python stack: frames innermost first.",
    (
        Field("hash", "<u8", "Hash of the frames."),
        Field("first_frame", "<u4", "Index of the innermost frame in the frames section."),
        Field("frame_count", "<u4", "Number of frames."),
        Field("truncated", "<u4", "1 if outer frames were left out."),
        Field("ready", "<u4", "1 once the entry may be read."),
    ),
)

STACK_FRAME: Final = Struct(
    "StackFrame",
    16,
    "One Python frame of a stack.",
    (
        Field("code_id", "<u4", "Index in the codes section."),
        Field("lasti", "<i4", "Byte offset of the current instruction in co_code; -1 if unknown."),
        Field(
            "module_ptr",
            "<u8",
            "Address of the nn.Module called by this frame; 0 if it is no module call.",
        ),
    ),
)

DEVICE_CLOCK_SAMPLE: Final = Struct(
    "DeviceClockSample",
    32,
    "CUPTI's clock against the agent's.",
    (
        Field("ticks", "<u8", "Tick counter, middle of the bracket.", unit="ticks"),
        Field("device_ns", "<u8", "What cuptiGetTimestamp said.", unit="ns"),
        Field("width_ticks", "<u8", "Width of the bracket: twice the error bound.", unit="ticks"),
        Field("pad0", "<u8", "Reserved."),
    ),
)

DEVICE_RING: Final = Struct(
    "DeviceRing",
    256,
    "Bytes from many writers (CUPTI's threads) to one reader (gputap). Chunks follow at the next page.",
    (
        Field("head", "<u8", "Bytes ever claimed. The writers'."),
        Field("pad0", "<u1", "Own cache line for the writers.", count=56),
        Field("tail", "<u8", "Bytes ever read. The reader's."),
        Field("pad1", "<u1", "Own cache line for the reader.", count=56),
        Field("dropped", "<u8", "Records that found the ring full."),
        Field("pad2", "<u1", "Reserved.", count=120),
    ),
)

DEVICE_CHUNK: Final = Struct(
    "DeviceChunk",
    64,
    "Some records as CUPTI wrote them, their strings replaced by string ids. Behind this header come"
    " `data_bytes` of records, then the offset of each as u4.",
    (
        Field("ready", "<u4", "0 while it is being written, 1 to be read, 2 to be skipped."),
        Field("bytes", "<u4", "Size of the chunk, this header included; a multiple of 64."),
        Field("data_bytes", "<u4", "Bytes of records."),
        Field("records", "<u4", "How many."),
        Field("version", "<u4", "CUDA version of the CUPTI that wrote them: major * 100 + minor."),
        Field("pad0", "<u1", "Reserved.", count=44),
    ),
)

PYTHON_SAMPLE: Final = Struct(
    "PythonSample",
    4096,
    "What Python in the target said between two steps; one slot of a ring.",
    (
        Field("wanted_ticks", "<u8", "When it was asked: the end of a step.", unit="ticks"),
        Field("begin_ticks", "<u8", "When Python began, the GIL being ours.", unit="ticks"),
        Field("end_ticks", "<u8", "When it was done.", unit="ticks"),
        Field("boundary", "<u8", "Number of that step's end; 0: none came, so it was a timer."),
        Field("status", "<i4", "As `result_status`; after an exception no more are taken."),
        Field("length", "<u4", "Bytes of the answer."),
        Field("text", "<u1", "The answer, UTF-8.", count=4056),
    ),
)

TORCH_LAYOUT: Final = Struct(
    "TorchLayout",
    64,
    "Where things are in libtorch's RecordFunction. Chosen by gputap from its version table; -1 = unknown.",
    (
        Field("version", "<u4", "torch version as major * 1000 + minor, e.g. 2013."),
        Field("cxx11_abi", "<u4", "1 for the new std::string ABI."),
        Field("thread_id", "<i4", "Offset of threadId_ (u64)."),
        Field("scope", "<i4", "Offset of scope_ (u8)."),
        Field("fn_index", "<i4", "Offset of the index of fn_'s variant (u8): 0 string, 1 schema."),
        Field("seq", "<i4", "Offset of sequenceNr_ (i64)."),
        Field("forward_thread_id", "<i4", "Offset of fwdThreadId_ (u64)."),
        Field(
            "inputs",
            "<i4",
            "Offset of inputs_ (pointer and length); -1 = use the exported accessors only.",
        ),
        Field("pad0", "<u1", "Reserved.", count=32),
    ),
)

PYTHON_LAYOUT: Final = Struct(
    "PythonLayout",
    128,
    "Where things are in CPython's frames and code objects. Chosen by gputap; -1 = absent.",
    (
        Field("version", "<u4", "CPython version as major * 256 + minor, e.g. 0x030b."),
        Field("enabled", "<u4", "1 if stacks may be walked."),
        Field("tstate_frame", "<i4", "PyThreadState: pointer to the frame, or to the cframe."),
        Field("cframe_current", "<i4", "cframe: current_frame (3.11, 3.12); -1 = no cframe."),
        Field("frame_back", "<i4", "Frame: the caller's frame."),
        Field("frame_code", "<i4", "Frame: the code object (f_code, f_executable)."),
        Field(
            "frame_instr", "<i4", "Frame: instruction pointer (3.11+) or f_lasti (int, 3.8-3.10)."
        ),
        Field(
            "instr_is_lasti",
            "<i4",
            "1 if frame_instr holds an int f_lasti, 2 if that counts code units.",
        ),
        Field("frame_locals", "<i4", "Frame: the first fast local."),
        Field(
            "frame_owner",
            "<i4",
            "Frame: owner byte (3.12+); frames owned by the C stack are skipped.",
        ),
        Field("owner_cstack", "<i4", "Value of the owner byte that means a C-stack shim."),
        Field(
            "pointer_tag_mask",
            "<i4",
            "Low bits to clear from executable and locals (3.14 stack references).",
        ),
        Field("code_name", "<i4", "Code: co_name."),
        Field("code_qualname", "<i4", "Code: co_qualname; -1 before 3.11."),
        Field("code_filename", "<i4", "Code: co_filename."),
        Field("code_firstlineno", "<i4", "Code: co_firstlineno (int)."),
        Field("code_linetable", "<i4", "Code: co_linetable or co_lnotab (bytes)."),
        Field(
            "code_instructions",
            "<i4",
            "Code: first instruction (co_code_adaptive); -1 before 3.11.",
        ),
        Field("ob_type", "<i4", "PyObject: type."),
        Field("unicode_length", "<i4", "str: length in code points."),
        Field("unicode_state", "<i4", "str: state word (compact and ascii bits)."),
        Field(
            "unicode_ascii_mask", "<u4", "Bits of the state that must be set: compact and ascii."
        ),
        Field("unicode_ascii_data", "<i4", "str: characters of a compact ascii string."),
        Field("bytes_size", "<i4", "bytes: length."),
        Field("bytes_data", "<i4", "bytes: first byte."),
        Field(
            "unicode_data", "<i4", "str: characters of a compact non-ascii string; 0 = not known."
        ),
        Field("unicode_kind_shift", "<i4", "str: where the 3 bits of the kind are in the state."),
        Field("pad0", "<u1", "Reserved.", count=20),
    ),
)

CONTROL_HEADER: Final = Struct(
    "ControlHeader",
    4096,
    "First page of the shared memory: who, where everything is, commands, counters.",
    (
        # --- identity, written once by the agent
        Field("magic", "<u8", "`MAGIC`."),
        Field("abi", "<u4", "`ABI_VERSION`."),
        Field("header_bytes", "<u4", "Size of this header."),
        Field("total_bytes", "<u8", "Size of the whole memory."),
        Field("build_id", "<u8", "Identifies the agent's build."),
        Field("pid", "<u4", "The target's pid as it sees itself."),
        Field("clock_kind", "<u4", "`ClockKind`."),
        Field("session_id", "<u8", "Chosen by the agent at each attach."),
        # --- sections, written once by the agent: byte offset and element count
        Field("rings_offset", "<u8", "First ring header."),
        Field("ring_stride", "<u8", "Distance from ring to ring.", unit="bytes"),
        Field("ring_count", "<u4", "Ring slots."),
        Field("ring_capacity", "<u4", "Records per ring, a power of two."),
        Field("ring_data_offset", "<u4", "From a ring's header to its first record."),
        Field("pad0", "<u4", "Reserved."),
        Field("clock_offset", "<u8", "Clock samples (`ClockSample`), a ring."),
        Field("strings_offset", "<u8", "String entries."),
        Field("codes_offset", "<u8", "Code entries."),
        Field("stacks_offset", "<u8", "Stack entries."),
        Field("frames_offset", "<u8", "Stack frames."),
        Field("arena_offset", "<u8", "Bytes of strings and line tables."),
        Field("request_offset", "<u8", "Python source to run in the target, UTF-8."),
        Field("result_offset", "<u8", "What it answered, UTF-8."),
        Field("clock_capacity", "<u4", "Clock samples kept."),
        Field("strings_capacity", "<u4", "String entries."),
        Field("codes_capacity", "<u4", "Code entries."),
        Field("stacks_capacity", "<u4", "Stack entries."),
        Field("frames_capacity", "<u4", "Stack frames."),
        Field("arena_capacity", "<u4", "Bytes in the arena."),
        Field("request_capacity", "<u4", "Bytes."),
        Field("result_capacity", "<u4", "Bytes."),
        # --- fill levels, written by the agent (ids from 1; id 0 means none)
        Field("clock_count", "<u4", "Clock samples ever taken."),
        Field("strings_count", "<u4", "String ids given out, id 0 included."),
        Field("codes_count", "<u4", "Code ids given out, id 0 included."),
        Field("stacks_count", "<u4", "Stack ids given out, id 0 included."),
        Field("frames_count", "<u4", "Stack frames used."),
        Field("arena_used", "<u4", "Arena bytes used."),
        # --- commands: gputap writes, then raises command_seq (futex word); the agent answers
        Field("command_seq", "<u4", "Raised by gputap for each command."),
        Field("command", "<u4", "`Command`."),
        Field("ack_seq", "<u4", "Set to command_seq when done (futex word)."),
        Field("ack_status", "<i4", "0, or a negative errno."),
        Field(
            "message",
            "<u1",
            "Why a command failed, or the last self-test's words; NUL-terminated.",
            count=256,
        ),
        # --- window, written by gputap before START
        Field("mode", "<u4", "`CaptureMode`."),
        Field("budget_ppm", "<u4", "Share of the target's time we may cost in BURSTS.", unit="ppm"),
        Field(
            "window_ns",
            "<u8",
            "Length of the window; the agent closes it by itself. 0 = until STOP.",
            unit="ns",
        ),
        Field("event_cost_ns", "<u4", "What one recorded event costs the target.", unit="ns"),
        Field("armed_cost_ns", "<u4", "What one seen but unrecorded event costs.", unit="ns"),
        Field("want_stacks", "<u4", "1: walk Python stacks and module paths."),
        Field("want_shapes", "<u4", "1: record input shapes and dtypes."),
        Field("want_gc", "<u4", "1: record garbage collections."),
        Field("min_burst_steps", "<u4", "A burst records at least so many whole steps."),
        # --- Python mailbox
        Field("request_length", "<u4", "Bytes of source."),
        Field(
            "request_timeout_ms", "<u4", "How long to wait for the GIL and the answer.", unit="ms"
        ),
        Field("result_length", "<u4", "Bytes of the answer."),
        Field(
            "result_status",
            "<i4",
            "0 ok, 1 exception (answer is its text), -110 time-out, -95 no Python.",
        ),
        # --- state and counters, written by the agent
        Field("state", "<u4", "`AgentState`."),
        Field("stop_reason", "<u4", "`StopReason`."),
        Field("op_fields", "<u4", "Bits of `OpField` that the self-test trusts."),
        Field("recording", "<u4", "1 while every operator is recorded."),
        Field("agent_ticks", "<u8", "Heartbeat: raised at each turn of the control thread."),
        Field("window_start_ticks", "<u8", "When START took effect.", unit="ticks"),
        Field("window_end_ticks", "<u8", "When the window closed; 0 while open.", unit="ticks"),
        Field(
            "recorded_ticks", "<u8", "Time during which every operator was recorded.", unit="ticks"
        ),
        Field("events", "<u8", "Events recorded, all rings."),
        Field("armed_events", "<u8", "Events seen while armed but not recorded."),
        Field("boundaries", "<u8", "Step boundaries seen (optimizer ends, loader iterations)."),
        Field("bursts", "<u8", "Bursts recorded."),
        Field("dropped", "<u8", "Lost events by `DropCause`.", count=16),
        Field("user_events", "<u8", "User scopes seen, recorded or not."),
        Field("user_ticks", "<u8", "Time during which user scopes were recorded.", unit="ticks"),
        Field(
            "spent_ns", "<u8", "What the events so far cost the target, by these prices.", unit="ns"
        ),
        Field(
            "user_cost_ns",
            "<u4",
            "What one user scope costs the target; written before START, 0 = the agent's default.",
            unit="ns",
        ),
        Field("pad3", "<u4", "Reserved."),
        Field("pad1", "<u8", "Reserved.", count=4),
        # --- layouts, written by gputap before CONFIGURE
        Field("torch_layout", "<u1", "`TorchLayout`.", count=64),
        Field("python_layout", "<u1", "`PythonLayout`.", count=128),
        # --- device: sections, wishes (written by gputap before DEVICE_ON), state and counters
        Field("device_ring_offset", "<u8", "`DeviceRing`."),
        Field("device_clock_offset", "<u8", "Device clock samples (`DeviceClockSample`), a ring."),
        Field("device_ring_capacity", "<u4", "Bytes for chunks, a power of two."),
        Field("device_clock_capacity", "<u4", "Device clock samples kept."),
        Field("device_clock_count", "<u4", "Device clock samples ever taken."),
        Field(
            "device_flush_ms", "<u4", "How often CUPTI is asked for what is complete.", unit="ms"
        ),
        Field("device_kinds", "<u8", "Activity kinds that are wanted, by bit number."),
        Field("device_record_limit", "<u8", "After so many records it ends; 0 = never."),
        Field("device_calls", "<u4", "1: record the CUDA calls that launch, copy, wait, allocate."),
        Field("device_state", "<u4", "`DeviceState`."),
        Field("device_error", "<u4", "CUptiResult of the call that failed; 0 if none."),
        Field("device_api_version", "<u4", "What cuptiGetVersion said."),
        Field("device_version", "<u4", "CUDA version of the CUPTI: major * 100 + minor."),
        Field("device_yields", "<u4", "How often it was let go for the target's own profiler."),
        Field("device_enabled", "<u8", "Activity kinds that are enabled, by bit number."),
        Field("device_records", "<u8", "Records copied out."),
        Field("device_buffers", "<u8", "Buffers that CUPTI handed back."),
        Field("device_zero_times", "<u8", "Kernels, copies and fills without start or end."),
        Field("device_on_ticks", "<u8", "Time during which it was on.", unit="ticks"),
        Field(
            "device_torch_is_idle",
            "<u4",
            "1: after HELD, gputap has asked torch: its profiler, which keeps CUPTI for good, is idle.",
        ),
        Field("device_pad", "<u4", "Reserved."),
        Field("device_message", "<u1", "Why it is not on; NUL-terminated.", count=128),
        # --- Python between steps: section and fill level, how often
        Field("samples_offset", "<u8", "Python samples (`PythonSample`), a ring."),
        Field("samples_capacity", "<u4", "Python samples kept."),
        Field("samples_count", "<u4", "Python samples ever taken."),
        Field(
            "sample_period_ms",
            "<u4",
            "Least time between two; written before SAMPLE_PYTHON.",
            unit="ms",
        ),
        Field("pad4", "<u4", "Reserved."),
        Field("pad2", "<u1", "Reserved.", count=2832),
    ),
)

STRUCTS: Final = (
    EVENT_RECORD,
    RING_HEADER,
    CLOCK_SAMPLE,
    STRING_ENTRY,
    CODE_ENTRY,
    STACK_ENTRY,
    STACK_FRAME,
    DEVICE_CLOCK_SAMPLE,
    DEVICE_RING,
    DEVICE_CHUNK,
    PYTHON_SAMPLE,
    TORCH_LAYOUT,
    PYTHON_LAYOUT,
    CONTROL_HEADER,
)


# ------------------------------------------------------------------------ tables of a capture


class DeviceKind(IntEnum):
    """What a row of `device` is; the lower-case name is in the column."""

    KERNEL = 0
    MEMCPY = 1
    MEMSET = 2
    SYNC = 3
    OVERHEAD = 4
    GRAPH = 5


class DeviceFlag(IntEnum):
    """Bits of `device.flags`."""

    ASYNC = 1
    """A copy or fill that its caller did not wait for."""
    DEVICE_LAUNCHED = 2
    """Launched by the device itself (CUDA 13.0 or later says so)."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a capture's table. `type` is an Arrow type by name."""

    name: str
    type: str
    doc: str
    unit: str = ""
    otlp: str = ""
    """Name of the OTLP attribute, where the column is exported."""


@dataclass(frozen=True, slots=True)
class Table:
    """One table of a capture. `job`, `host` and `rank` are partition keys in every table's path."""

    name: str
    doc: str
    columns: tuple[Column, ...]


EVENTS: Final = Table(
    "events",
    "One row per recorded interval on a CPU thread, sorted by tid and start within each file.",
    (
        Column("start_ns", "int64", "Start, unix time.", unit="ns"),
        Column("duration_ns", "int64", "Length.", unit="ns"),
        Column(
            "tid", "int32", "OS thread id, as seen from gputap's pid namespace.", otlp="thread.id"
        ),
        Column("depth", "int16", "Nesting depth among recorded events of the thread, outermost 0."),
        Column(
            "kind",
            "dictionary",
            "operator, autograd, user_scope, torchscript, gc, collective.",
            otlp="gputap.kind",
        ),
        Column("name", "dictionary", "Operator, autograd node or scope name, whole."),
        Column(
            "seq", "int64", "Autograd sequence number joining forward and backward; null if none."
        ),
        Column(
            "fwd_tid",
            "int32",
            "Thread of the forward operator of an autograd node; null if unknown.",
        ),
        Column(
            "module",
            "dictionary",
            "Qualified name of the innermost nn.Module; '' is the root; null if none.",
            otlp="gputap.module",
        ),
        Column("module_class", "dictionary", "Class of that module.", otlp="gputap.module.class"),
        Column("stack_id", "int32", "Row group in `stacks`; null if no Python stack."),
        Column(
            "shapes",
            "dictionary",
            "Input shapes and dtypes as JSON; null if not asked for.",
            otlp="gputap.input.shapes",
        ),
        Column("flags", "int8", "Bits of `EventFlag`."),
    ),
)

STACKS: Final = Table(
    "stacks",
    "Python stacks, one row per frame, innermost first.",
    (
        Column("stack_id", "int32", "Joins `events.stack_id` within a rank."),
        Column("frame", "int16", "0 is the innermost frame."),
        Column(
            "function", "dictionary", "Qualified name of the function.", otlp="code.function.name"
        ),
        Column("file", "dictionary", "Source file.", otlp="code.file.path"),
        Column("line", "int32", "Line being executed; 0 if unknown.", otlp="code.line.number"),
        Column(
            "module", "dictionary", "nn.Module called by this frame; null if it is no module call."
        ),
        Column("module_class", "dictionary", "Class of that module."),
    ),
)

STEPS: Final = Table(
    "steps",
    "One row per step. The phases add up to the duration to the nanosecond.",
    (
        Column("step", "int64", "Counts from 0 within the capture.", otlp="gputap.step"),
        Column("start_ns", "int64", "Start, unix time.", unit="ns"),
        Column("duration_ns", "int64", "Length.", unit="ns"),
        Column("tid", "int32", "Thread that runs the steps."),
        Column(
            "boundary", "dictionary", "What marks the step: optimizer, loader, module, iteration."
        ),
        Column("recorded", "bool", "True if every operator of the step was recorded."),
        Column("whole", "bool", "False if the window's edge cut the step."),
        Column("micro_steps", "int32", "Forward-backward passes in it (gradient accumulation)."),
        Column("data_wait_ns", "int64", "Waiting for the next batch.", unit="ns"),
        Column("forward_ns", "int64", "Forward pass and loss; 0 if not recorded.", unit="ns"),
        Column("backward_ns", "int64", "Backward pass; 0 if not recorded.", unit="ns"),
        Column("optimizer_ns", "int64", "Optimizer step and zero_grad.", unit="ns"),
        Column("other_ns", "int64", "The rest: Python, gaps, unrecorded work.", unit="ns"),
        Column(
            "gap_ns",
            "int64",
            "Part of the step with no operator on the step's thread; null if not recorded.",
            unit="ns",
        ),
        Column("gc_ns", "int64", "Python garbage collection.", unit="ns"),
        Column("collective_ns", "int64", "At least one collective in flight.", unit="ns"),
        Column("events", "int64", "Events recorded in it."),
        Column(
            "gpu_busy_ns",
            "int64",
            "With work on some GPU; null below level `device`.",
            unit="ns",
        ),
        Column(
            "memory_allocated",
            "int64",
            "In live tensors on its GPUs at the step's end; this and the next five are null where "
            "torch's allocator was not looked at just then.",
            unit="bytes",
        ),
        Column(
            "memory_peak",
            "int64",
            "The most that was ever allocated, since the process began or set it back.",
            unit="bytes",
        ),
        Column("memory_reserved", "int64", "What the allocator has of the GPUs.", unit="bytes"),
        Column(
            "memory_inactive",
            "int64",
            "Free, but in segments that are partly used: fragmentation.",
            unit="bytes",
        ),
        Column("alloc_retries", "int64", "Whole caches given back, since the look before."),
        Column("alloc_ooms", "int64", "Requests that failed, since the look before."),
    ),
)

COLLECTIVES: Final = Table(
    "collectives",
    "One row per collective and rank.",
    (
        Column("start_ns", "int64", "Start, by `timing_source`, unix time.", unit="ns"),
        Column(
            "duration_ns",
            "int64",
            "Length. A rank that comes early waits in it for the others.",
            unit="ns",
        ),
        Column("tid", "int32", "Thread that called it."),
        Column(
            "op",
            "dictionary",
            "all_reduce, all_gather, broadcast, ...",
            otlp="gputap.collective.op",
        ),
        Column(
            "backend",
            "dictionary",
            "gloo, nccl, mpi, ucc; null if unknown.",
            otlp="gputap.collective.backend",
        ),
        Column(
            "group_name",
            "dictionary",
            "Process group; null if unknown.",
            otlp="gputap.collective.group",
        ),
        Column("seq", "int64", "Sequence number in its group.", otlp="gputap.collective.seq"),
        Column(
            "bytes",
            "int64",
            "Payload of this rank's input; null if unknown.",
            unit="bytes",
            otlp="gputap.collective.bytes",
        ),
        Column(
            "dtype", "dictionary", "Element type; null if unknown.", otlp="gputap.collective.dtype"
        ),
        Column("world_size", "int32", "Ranks in the group; null if unknown."),
        Column("group_rank", "int32", "This rank's place in the group; null if unknown."),
        Column(
            "communicator",
            "dictionary",
            "NCCL's handle in this process, of calls in `nccl_calls`; null if torch told of it.",
        ),
        Column(
            "algbw",
            "float64",
            "Payload over this rank's time on the GPU, by nccl-tests' formulas: the least, since "
            "the time holds the waiting for other ranks. Null unless timed by the device.",
            unit="bytes/s",
        ),
        Column("busbw", "float64", "The same as load of the bus.", unit="bytes/s"),
        Column("step", "int64", "Step that it began in; null if outside."),
        Column("enqueued_ns", "int64", "When it was called, unix time.", unit="ns"),
        Column(
            "algorithm", "dictionary", "ring, tree, ..., by the kernel's name; null if not known."
        ),
        Column("protocol", "dictionary", "ll, ll128, simple; null if not known."),
        Column(
            "timing_source",
            "dictionary",
            "host_call, host_work, flight_recorder, device.",
            otlp="gputap.timing_source",
        ),
    ),
)

NCCL_CALLS: Final = Table(
    "nccl_calls",
    "Calls of NCCL by libraries other than torch, sorted by tid and start. Torch's own are in "
    "`collectives` by what torch tells of them.",
    (
        Column("start_ns", "int64", "Start of the call, unix time.", unit="ns"),
        Column("duration_ns", "int64", "Length of the call, not of the work.", unit="ns"),
        Column("tid", "int32", "Thread that called."),
        Column("name", "dictionary", "Function, e.g. ncclAllReduce, ncclGroupEnd."),
        Column("op", "dictionary", "all_reduce, send, ...; null for ncclGroupEnd."),
        Column("count", "int64", "Elements, as the function counts them."),
        Column("dtype", "dictionary", "Element type; null if NCCL's number is not known."),
        Column("bytes", "int64", "Payload of this rank's input.", unit="bytes"),
        Column("reduction", "dictionary", "sum, prod, max, min, avg or custom; null if none."),
        Column("peer", "int32", "Root of the collective, or peer of a send or receive."),
        Column("communicator", "dictionary", "Its handle in this process."),
        Column("comm_rank", "int32", "Rank in the communicator; null if it was not ready."),
        Column("comm_size", "int32", "Ranks in the communicator."),
        Column("device_id", "int32", "CUDA's number of its device."),
        Column("stream", "dictionary", "Handle of the stream."),
        Column("return_value", "int32", "ncclResult_t."),
    ),
)

THREADS: Final = Table(
    "threads",
    "Threads of the target that were seen.",
    (
        Column("tid", "int32", "OS thread id, as seen from gputap's pid namespace."),
        Column(
            "name", "dictionary", "Python's name of the thread where it has one, else the kernel's."
        ),
        Column("torch_tid", "int32", "torch's own number; null if unknown."),
        Column("is_main", "bool", "True for the main thread."),
        Column("events", "int64", "Events recorded on it."),
        Column("dropped", "int64", "Events that found its ring full."),
    ),
)

SAMPLES: Final = Table(
    "samples",
    "Observations on a timer.",
    (
        Column("time_ns", "int64", "When, unix time.", unit="ns"),
        Column("metric", "dictionary", "What, by its OpenTelemetry name where there is one."),
        Column("value", "float64", "How much."),
        Column("unit", "dictionary", "UCUM unit."),
        Column("hw_id", "dictionary", "Device; null for the process.", otlp="hw.id"),
    ),
)

DEVICE: Final = Table(
    "device",
    "What a GPU did and what was waited for, one row each, sorted by device, stream and start.",
    (
        Column("start_ns", "int64", "Start, unix time.", unit="ns"),
        Column("duration_ns", "int64", "Length.", unit="ns"),
        Column("kind", "dictionary", "kernel, memcpy, memset, sync, overhead, graph."),
        Column("name", "dictionary", "Whole name, demangled; null if CUPTI gave none."),
        Column("short_name", "dictionary", "The part of a kernel's name that tells it apart."),
        Column("category", "dictionary", "What it computes, by its name: gemm, attention, ..."),
        Column("device_id", "int32", "CUDA's number of the device; null if unknown."),
        Column("context_id", "int32", "CUPTI's number of the context; null if none."),
        Column("stream_id", "int32", "CUPTI's number of the stream; null if none."),
        Column("correlation_id", "int64", "Joins the CUDA call that asked for it."),
        Column("graph_id", "int64", "CUDA graph that it ran in; null if none."),
        Column("graph_node_id", "int64", "Node of that graph; null if none."),
        Column("bytes", "int64", "Size of a copy or fill.", unit="bytes"),
        Column("copy_kind", "dictionary", "htod, dtoh, dtod, ptop, ...; null if no copy."),
        Column("src_kind", "dictionary", "Memory read: pageable, pinned, device, managed, ..."),
        Column("dst_kind", "dictionary", "Memory written."),
        Column("peer_device_id", "int32", "The other device of a copy between two."),
        Column("grid_x", "int32", "Blocks of a kernel's grid."),
        Column("grid_y", "int32", "Blocks of a kernel's grid."),
        Column("grid_z", "int32", "Blocks of a kernel's grid."),
        Column("block_x", "int32", "Threads of a block."),
        Column("block_y", "int32", "Threads of a block."),
        Column("block_z", "int32", "Threads of a block."),
        Column("registers", "int32", "Registers of a thread."),
        Column("static_shared", "int32", "Shared memory of a block, declared.", unit="bytes"),
        Column("dynamic_shared", "int32", "Shared memory of a block, asked for.", unit="bytes"),
        Column("local_bytes", "int32", "Local memory of a thread.", unit="bytes"),
        Column("priority", "int32", "Priority of the launch; null before CUDA 13.1."),
        Column("sync_type", "dictionary", "event, stream_wait, stream, context; null if no wait."),
        Column("flags", "int8", "Bits of `DeviceFlag`."),
    ),
)

CUDA_API: Final = Table(
    "cuda_api",
    "Calls of the CUDA runtime and driver, sorted by tid and start, outer calls first.",
    (
        Column("start_ns", "int64", "Start, unix time.", unit="ns"),
        Column("duration_ns", "int64", "Length.", unit="ns"),
        Column("tid", "int32", "OS thread id, as CUPTI gives it."),
        Column("name", "dictionary", "Function, e.g. cudaLaunchKernel."),
        Column("correlation_id", "int64", "Joins the device's work; null if none."),
        Column("group", "dictionary", "launch, copy, set, sync, memory, graph; null if other."),
        Column("return_value", "int32", "cudaError_t or CUresult."),
    ),
)

LAUNCHES: Final = Table(
    "launches",
    "One row per CUDA call that made a GPU work, and what it was made for.",
    (
        Column("correlation_id", "int64", "Joins `device` and `cuda_api` within a rank."),
        Column("start_ns", "int64", "Start of the call, unix time.", unit="ns"),
        Column("duration_ns", "int64", "Length of the call.", unit="ns"),
        Column("tid", "int32", "Thread that called."),
        Column("call", "dictionary", "Function of CUDA."),
        Column("operator", "dictionary", "Innermost event around the call; null if unknown."),
        Column("module", "dictionary", "Its nn.Module, of the forward pass for backward work."),
        Column("backward", "bool", "Part of a backward pass; null if unknown."),
        Column("step", "int64", "Step that the call was made in; null if outside."),
        Column("device_start_ns", "int64", "When the first piece of work began.", unit="ns"),
        Column("device_ns", "int64", "Length of the work, all pieces together.", unit="ns"),
        Column("device_rows", "int32", "Pieces of work: more than one in a CUDA graph."),
    ),
)

TABLES: Final = (
    EVENTS,
    STACKS,
    STEPS,
    COLLECTIVES,
    THREADS,
    SAMPLES,
    DEVICE,
    CUDA_API,
    NCCL_CALLS,
    LAUNCHES,
)


def arrow_schema(table: Table) -> pa.Schema:
    """Arrow schema of a capture's table. Units and docs travel as field metadata."""
    import pyarrow as pa

    types = {
        "int8": pa.int8(),
        "int16": pa.int16(),
        "int32": pa.int32(),
        "int64": pa.int64(),
        "float64": pa.float64(),
        "bool": pa.bool_(),
        "dictionary": pa.dictionary(pa.int32(), pa.string()),
    }
    return pa.schema(
        [
            pa.field(c.name, types[c.type], metadata={"doc": c.doc, "unit": c.unit})
            for c in table.columns
        ]
    )
