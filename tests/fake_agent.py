"""A stand-in for the agent in the target: lays the shared memory out by schema and writes to it.

For tests of everything that reads the shared memory. It keeps the agent's rules (a full ring drops
and counts, ids from 1, `ready` last) but not its speed, and it runs in the test's own process.
"""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from gputap.profiler import schema
from gputap.profiler.clock import Clock, clock_from_samples
from gputap.profiler.schema import AgentState, Command, DropCause, EventKind, RingState

PAGE = 4096


def _pages(size: int) -> int:
    return -(-size // PAGE) * PAGE


class FakeAgent:
    """One control memfd with `ring_count` rings, written by the test."""

    def __init__(
        self,
        ring_count: int = 4,
        ring_capacity: int = 1024,
        *,
        strings: int = 4096,
        codes: int = 1024,
        stacks: int = 1024,
        frames: int = 16384,
        arena: int = 1 << 20,
        clock: int = 64,
        device_ring: int = 1 << 16,
        device_clock: int = 64,
        request: int = 1 << 16,
        result: int = 1 << 16,
        samples: int = 16,
        pid: int | None = None,
    ) -> None:
        """Lay out sections of the given capacities; `pid` is the target's pid as it sees itself."""
        self.ring_capacity = ring_capacity
        stride = PAGE + _pages(ring_capacity * schema.EVENT_RECORD.size)
        sections = {
            "clock": (clock, schema.CLOCK_SAMPLE.size),
            "strings": (strings, schema.STRING_ENTRY.size),
            "codes": (codes, schema.CODE_ENTRY.size),
            "stacks": (stacks, schema.STACK_ENTRY.size),
            "frames": (frames, schema.STACK_FRAME.size),
            "arena": (arena, 1),
            "request": (request, 1),
            "result": (result, 1),
            "samples": (samples, schema.PYTHON_SAMPLE.size),
            "device_clock": (device_clock, schema.DEVICE_CLOCK_SAMPLE.size),
            "device_ring": (PAGE + device_ring, 1),
        }
        at = schema.CONTROL_HEADER.size
        offsets = {}
        for name, (capacity, size) in sections.items():
            offsets[name] = at
            at += _pages(capacity * size)
        rings_offset = at
        total = at + ring_count * stride
        self.fd = os.memfd_create(schema.CONTROL_MEMFD, os.MFD_CLOEXEC)
        os.ftruncate(self.fd, total)
        self._map = mmap.mmap(self.fd, total)
        self.header: Any = np.frombuffer(self._map, schema.dtype(schema.CONTROL_HEADER), 1)[0]
        header = self.header
        for name, (capacity, _) in sections.items():
            header[f"{name}_offset"] = offsets[name]
            header[f"{name}_capacity"] = capacity
        header["device_ring_capacity"] = device_ring
        header["abi"] = schema.ABI_VERSION
        header["header_bytes"] = schema.CONTROL_HEADER.size
        header["total_bytes"] = total
        header["build_id"] = 0xFA4E
        header["pid"] = os.getpid() if pid is None else pid
        header["session_id"] = 1
        header["rings_offset"] = rings_offset
        header["ring_stride"] = stride
        header["ring_count"] = ring_count
        header["ring_capacity"] = ring_capacity
        header["ring_data_offset"] = PAGE
        for name in ("strings", "codes", "stacks"):
            header[f"{name}_count"] = 1
        self._clock = self._section("clock", schema.CLOCK_SAMPLE)
        self._strings = self._section("strings", schema.STRING_ENTRY)
        self._codes = self._section("codes", schema.CODE_ENTRY)
        self._stacks = self._section("stacks", schema.STACK_ENTRY)
        self._frames = self._section("frames", schema.STACK_FRAME)
        self._device_clock = self._section("device_clock", schema.DEVICE_CLOCK_SAMPLE)
        base = offsets["device_ring"]
        self.device_ring: Any = np.frombuffer(self._map, schema.dtype(schema.DEVICE_RING), 1, base)[
            0
        ]
        self._device_bytes = np.frombuffer(self._map, np.uint8, device_ring, base + PAGE)
        self._ids: dict[str, int] = {}
        self._rings: list[Any] = []
        self._records: list[npt.NDArray[np.void]] = []
        for i in range(ring_count):
            base = rings_offset + i * stride
            self._rings.append(
                np.frombuffer(self._map, schema.dtype(schema.RING_HEADER), 1, base)[0]
            )
            self._records.append(
                np.frombuffer(
                    self._map, schema.dtype(schema.EVENT_RECORD), ring_capacity, base + PAGE
                )
            )
        header["magic"] = schema.MAGIC
        self._server: threading.Thread | None = None
        self._stop = threading.Event()

    @property
    def path(self) -> str:
        """Where a reader in this process opens the memory."""
        return f"/proc/self/fd/{self.fd}"

    def _section(self, name: str, struct: schema.Struct) -> npt.NDArray[np.void]:
        return np.frombuffer(
            self._map,
            schema.dtype(struct),
            int(self.header[f"{name}_capacity"]),
            int(self.header[f"{name}_offset"]),
        )

    # ------------------------------------------------------------------------------ events

    def ring(self, ring: int) -> Any:
        """The header of a ring, a writable record."""
        return self._rings[ring]

    def use_ring(
        self, ring: int, *, tid: int | None = None, torch_tid: int = 0, comm: str = "fake"
    ) -> None:
        """Give a ring to a thread of the target."""
        head = self._rings[ring]
        head["tid"] = 1000 + ring if tid is None else tid
        head["torch_tid"] = torch_tid
        raw = comm.encode()[:15]
        head["comm"][:] = np.frombuffer(raw.ljust(16, b"\0"), np.uint8)
        head["generation"] += 1
        head["state"] = RingState.IN_USE

    def record(
        self,
        start: int,
        end: int,
        name: str | int,
        *,
        kind: EventKind = EventKind.OPERATOR,
        depth: int = 0,
        tid: int = 1000,
        seq: int = -1,
        stack_id: int = 0,
        fwd_tid: int = 0,
        shapes: str = "",
        flags: int = 0,
    ) -> npt.NDArray[np.void]:
        """One event record as an array of length 1, for `emit_many`."""
        out = np.zeros(1, schema.dtype(schema.EVENT_RECORD))
        out["start_ticks"], out["end_ticks"], out["seq"] = start, end, seq
        out["name_id"] = self.intern(name) if isinstance(name, str) else name
        out["stack_id"], out["tid"], out["fwd_tid"] = stack_id, tid, fwd_tid
        out["shape_id"] = self.intern(shapes) if shapes else 0
        out["depth"], out["kind"], out["flags"] = depth, kind, flags
        return out

    def emit(
        self,
        ring: int,
        start: int,
        end: int,
        name: str | int,
        kind: EventKind = EventKind.OPERATOR,
        depth: int = 0,
        tid: int | None = None,
        seq: int = -1,
        stack_id: int = 0,
        *,
        fwd_tid: int = 0,
        shapes: str = "",
        flags: int = 0,
    ) -> bool:
        """Write one event; False if the ring was full (dropped and counted)."""
        if self._rings[ring]["state"] == RingState.FREE:
            self.use_ring(ring, tid=tid)
        record = self.record(
            start,
            end,
            name,
            kind=kind,
            depth=depth,
            tid=int(self._rings[ring]["tid"]) if tid is None else tid,
            seq=seq,
            stack_id=stack_id,
            fwd_tid=fwd_tid,
            shapes=shapes,
            flags=flags,
        )
        return self.emit_many(ring, record) == 1

    def emit_many(self, ring: int, records: npt.NDArray[np.void]) -> int:
        """Write as many of `records` as fit; returns how many, the rest is dropped and counted."""
        head = self._rings[ring]
        if head["state"] == RingState.FREE:
            self.use_ring(ring, tid=int(records["tid"][0]) if len(records) else None)
        at, room = int(head["head"]), self.ring_capacity - int(head["head"]) + int(head["tail"])
        n = min(room, len(records))
        slots = (at + np.arange(n)) & (self.ring_capacity - 1)
        self._records[ring][slots] = records[:n]
        head["head"] = at + n
        lost = len(records) - n
        head["dropped"] += lost
        self.header["dropped"][DropCause.RING_FULL] += lost
        self.header["events"] += n
        return n

    # --------------------------------------------------------------------------- interning

    def arena(self, data: bytes) -> int:
        """Put bytes into the arena; returns their offset."""
        at = int(self.header["arena_used"])
        if at + len(data) > int(self.header["arena_capacity"]):
            raise MemoryError("arena full")
        base = int(self.header["arena_offset"]) + at
        self._map[base : base + len(data)] = data
        self.header["arena_used"] = at + len(data)
        return at

    def intern(self, text: str) -> int:
        """Id of a string, entered on first sight."""
        if text in self._ids:
            return self._ids[text]
        raw = text.encode()
        i = int(self.header["strings_count"])
        entry = self._strings[i]
        entry["offset"], entry["length"] = self.arena(raw), len(raw)
        entry["ready"] = 1
        self.header["strings_count"] = i + 1
        self._ids[text] = i
        return i

    def code(
        self,
        name: str,
        filename: str,
        firstlineno: int = 1,
        linetable: bytes = b"",
        *,
        ptr: int = 0,
        is_module_call: bool = False,
    ) -> int:
        """Enter a code object; returns its id."""
        i = int(self.header["codes_count"])
        entry = self._codes[i]
        entry["code_ptr"] = ptr or 0x7F0000000000 + 64 * i
        entry["name_id"], entry["filename_id"] = self.intern(name), self.intern(filename)
        entry["firstlineno"] = firstlineno
        entry["linetable_offset"] = self.arena(linetable)
        entry["linetable_length"] = len(linetable)
        entry["is_module_call"] = int(is_module_call)
        entry["ready"] = 1
        self.header["codes_count"] = i + 1
        return i

    def stack(
        self,
        frames: Sequence[int | tuple[int, int] | tuple[int, int, int]],
        truncated: bool = False,
    ) -> int:
        """Enter a stack, innermost first: code ids or (code id, lasti[, module pointer])."""
        i, first = int(self.header["stacks_count"]), int(self.header["frames_count"])
        for at, frame in enumerate(frames):
            code_id, lasti, module = (
                (frame, -1, 0) if isinstance(frame, int) else (*frame, 0, 0)[:3]
            )
            entry = self._frames[first + at]
            entry["code_id"], entry["lasti"], entry["module_ptr"] = code_id, lasti, module
        self.header["frames_count"] = first + len(frames)
        stack = self._stacks[i]
        stack["hash"] = hash(tuple(map(str, frames))) & (2**64 - 1)
        stack["first_frame"], stack["frame_count"] = first, len(frames)
        stack["truncated"] = int(truncated)
        stack["ready"] = 1
        self.header["stacks_count"] = i + 1
        return i

    def clock_sample(self, ticks: int, mono_ns: int, unix_ns: int, width_ticks: int = 100) -> None:
        """Write a clock sample; the oldest is overwritten when the section is full."""
        i = int(self.header["clock_count"])
        entry = self._clock[i % int(self.header["clock_capacity"])]
        entry["ticks"], entry["mono_ns"], entry["unix_ns"] = ticks, mono_ns, unix_ns
        entry["width_ticks"] = width_ticks
        self.header["clock_count"] = i + 1

    # ------------------------------------------------------------------------------ device

    def device_clock_sample(self, ticks: int, device_ns: int, width_ticks: int = 100) -> None:
        """Write a sample of CUPTI's clock."""
        i = int(self.header["device_clock_count"])
        entry = self._device_clock[i % int(self.header["device_clock_capacity"])]
        entry["ticks"], entry["device_ns"], entry["width_ticks"] = ticks, device_ns, width_ticks
        self.header["device_clock_count"] = i + 1

    def claim_device(self, size: int) -> int:
        """Claim `size` bytes of the device ring, and what must be skipped before them."""
        head, capacity = int(self.device_ring["head"]), len(self._device_bytes)
        rest = capacity - head % capacity
        skipped = rest if size > rest else 0
        if head + skipped + size - int(self.device_ring["tail"]) > capacity:
            return -1
        if skipped:
            self._chunk_head(head % capacity, bytes=skipped, ready=2)
        self.device_ring["head"] = head + skipped + size
        return (head + skipped) % capacity

    def emit_device(self, records: Sequence[bytes], version: int = 1300, ready: int = 1) -> bool:
        """Write a chunk of CUPTI's records; False if the ring is full."""
        data = b"".join(records)
        offsets = np.cumsum([0, *(len(r) for r in records)])[:-1].astype("<u4").tobytes()
        size = -(-(schema.DEVICE_CHUNK.size + len(data) + len(offsets)) // 64) * 64
        at = self.claim_device(size)
        if at < 0:
            return False
        body = np.frombuffer(data + offsets, np.uint8)
        begin = at + schema.DEVICE_CHUNK.size
        self._device_bytes[begin : begin + len(body)] = body
        fields = {"data_bytes": len(data), "records": len(records), "version": version}
        self._chunk_head(at, bytes=size, ready=ready, **fields)
        return True

    def device_bytes(self) -> npt.NDArray[np.uint8]:
        """The bytes of the device ring, writable."""
        return self._device_bytes

    def _chunk_head(self, at: int, **fields: int) -> None:
        head = self._device_bytes[at : at + schema.DEVICE_CHUNK.size]
        record = head.view(schema.dtype(schema.DEVICE_CHUNK))[0]
        for name, value in fields.items():
            record[name] = value

    # ---------------------------------------------------------------------------- commands

    def request(self) -> str:
        """The Python source in the mailbox."""
        base, n = int(self.header["request_offset"]), int(self.header["request_length"])
        return bytes(self._map[base : base + n]).decode()

    def answer(self, text: str, status: int = 0) -> None:
        """Put an answer into the mailbox."""
        raw = text.encode()
        base = int(self.header["result_offset"])
        self._map[base : base + len(raw)] = raw
        self.header["result_length"] = len(raw)
        self.header["result_status"] = status

    def acknowledge(self, status: int = 0, message: str = "") -> None:
        """Answer the command in the header."""
        raw = message.encode()[:255]
        self.header["message"][:] = np.frombuffer(raw.ljust(256, b"\0"), np.uint8)
        self.header["ack_status"] = status
        self.header["ack_seq"] = self.header["command_seq"]

    def handle(self, command: Command) -> None:
        """Do what the agent would; RUN_PYTHON runs here, in the test's process."""
        states = {
            Command.CONFIGURE: AgentState.CONFIGURED,
            Command.START: AgentState.CAPTURING,
            Command.STOP: AgentState.CONFIGURED,
            Command.DETACH: AgentState.DETACHED,
        }
        if command == Command.RUN_PYTHON:
            scope: dict[str, Any] = {"__name__": "gputap_snippet"}
            try:
                exec(compile(self.request(), "<gputap>", "exec"), scope)
                self.answer(str(scope.get("result", "")))
            except Exception as exc:  # the agent reports any exception as text
                self.answer(f"{type(exc).__name__}: {exc}", 1)
        else:
            self.header["state"] = states[command]
        self.acknowledge()

    def serve(self, handler: Callable[[Command], None] | None = None) -> None:
        """Answer commands on a thread until `close`. `handler` replaces `handle`."""

        def turn() -> None:
            while not self._stop.wait(0.001):
                self.header["agent_ticks"] += 1
                if self.header["command_seq"] != self.header["ack_seq"]:
                    (handler or self.handle)(Command(int(self.header["command"])))

        self._server = threading.Thread(target=turn, daemon=True)
        self._server.start()

    def close(self) -> None:
        """Stop serving and close the descriptor. The mapping goes with the last view."""
        self._stop.set()
        if self._server is not None:
            self._server.join(5)
            self._server = None
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> FakeAgent:
        """Itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()


def unix_clock() -> Clock:
    """A clock whose ticks are ns since 1970."""
    samples = np.zeros(2, schema.dtype(schema.CLOCK_SAMPLE))
    for name in ("ticks", "mono_ns", "unix_ns"):
        samples[name] = (0, 10**9)
    return clock_from_samples(samples)
