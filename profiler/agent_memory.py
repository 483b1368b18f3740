"""The shared memory of an agent, as arrays: what gputap reads from a target goes through here.

The target may be anything, so nothing it writes is trusted: the geometry is copied and checked
once, every later count is cut to the checked capacities, nothing outside the mapping is ever read.
"""

from __future__ import annotations

import errno
import mmap
import os
import stat
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from gputap.profiler import schema
from gputap.profiler.errors import AttachFailed, ProfilerError, TargetGone, TargetNotPermitted
from gputap.profiler.schema import DropCause, RingState

Records = npt.NDArray[np.void]
"""A structured array of one of the schema's wire records."""

MAX_BYTES: Final = 64 << 30
"""Refuse to map more: no configuration of ours comes near it."""

MAX_RINGS: Final = 1 << 16

_HEADER = schema.CONTROL_HEADER
_OFFSETS = schema.layout(_HEADER)
_SECTIONS: Final = {
    "clock": schema.CLOCK_SAMPLE.size,
    "strings": schema.STRING_ENTRY.size,
    "codes": schema.CODE_ENTRY.size,
    "stacks": schema.STACK_ENTRY.size,
    "frames": schema.STACK_FRAME.size,
    "arena": 1,
    "request": 1,
    "result": 1,
    "samples": schema.PYTHON_SAMPLE.size,
}


@dataclass(frozen=True, slots=True)
class Ring:
    """A ring slot that a thread uses or used."""

    index: int
    tid: int
    """In the target's pid namespace."""
    torch_tid: int
    state: int
    generation: int
    comm: str
    dropped: int


class _Fence:
    """A full memory barrier for Python: a release, then an acquire.

    x86-64 keeps the order of loads by itself; on aarch64 a record could otherwise be read before
    the head that publishes it.
    """

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        """Hold the lock, so that each call releases and takes it."""
        self._lock = threading.Lock()
        self._lock.acquire()

    def __call__(self) -> None:
        """Order every access before against every access after."""
        self._lock.release()
        self._lock.acquire()


class AgentMemory:
    """The agent's memory mapped into this process. One reader per memory, on one thread."""

    def __init__(self, source: str | os.PathLike[str] | int) -> None:
        """Map `source`: a path such as /proc/PID/fd/N, or a descriptor (which is duplicated).

        Raises TargetGone, TargetNotPermitted, or AttachFailed if it is not an agent's memory.
        """
        self.fd: Final = _open(source)
        try:
            self._map = self._mapped()
            self._bytes = np.frombuffer(self._map, np.uint8)
            self._header: Records = np.frombuffer(self._map, schema.dtype(_HEADER), 1)
            self._check_identity()
            self._offset, self._capacity = self._sections()
            self._check_rings()
        except BaseException:
            os.close(self.fd)
            raise
        self._fence = _Fence()
        rings = (self._ring_count,)
        self._rings: Records = np.ndarray(
            rings,
            schema.dtype(schema.RING_HEADER),
            self._map,
            self._rings_offset,
            (self._ring_stride,),
        )
        # Copies as bytes are one memcpy; structured copies go field by field.
        self._records: npt.NDArray[np.uint8] = np.ndarray(
            (*rings, self._ring_capacity, schema.EVENT_RECORD.size),
            np.uint8,
            self._map,
            self._rings_offset + self._ring_data,
            (self._ring_stride, schema.EVENT_RECORD.size, 1),
        )
        self._tails = self._rings["tail"].tolist()
        self.resyncs = 0
        """How often a ring made no sense and was skipped to its head."""

    # ---------------------------------------------------------------------------- opening

    def _mapped(self) -> mmap.mmap:
        size = os.fstat(self.fd).st_size
        if not _HEADER.size <= size <= MAX_BYTES:
            raise _nonsense(f"its size is {size} bytes")
        try:
            return mmap.mmap(self.fd, size)
        except (OSError, ValueError) as exc:
            raise _nonsense(f"it cannot be mapped ({exc})") from exc

    def _check_identity(self) -> None:
        if self.get("magic") != schema.MAGIC:
            raise _nonsense("its first bytes are not an agent's")
        if self.get("abi") != schema.ABI_VERSION:
            raise AttachFailed(
                f"The agent in the target speaks version {self.get('abi')} of the shared memory,"
                f" this gputap version {schema.ABI_VERSION}.",
                hint="Restart the target, or use the gputap that attached first.",
            )
        if self.get("header_bytes") != _HEADER.size:
            raise _nonsense(f"its header has {self.get('header_bytes')} bytes")
        if not _HEADER.size <= self.get("total_bytes") <= len(self._map):
            raise _nonsense("its total size is wrong")

    def _sections(self) -> tuple[dict[str, int], dict[str, int]]:
        offsets, capacities = {}, {}
        for name, size in _SECTIONS.items():
            offset, capacity = self.get(f"{name}_offset"), self.get(f"{name}_capacity")
            self._check_range(name, offset, capacity * size)
            offsets[name], capacities[name] = offset, capacity
        return offsets, capacities

    def _check_rings(self) -> None:
        self._rings_offset = self.get("rings_offset")
        self._ring_stride = self.get("ring_stride")
        self._ring_count = self.get("ring_count")
        self._ring_capacity = self.get("ring_capacity")
        self._ring_data = self.get("ring_data_offset")
        capacity, data = self._ring_capacity, self._ring_data
        if not 0 < self._ring_count <= MAX_RINGS:
            raise _nonsense(f"it has {self._ring_count} rings")
        if capacity <= 0 or capacity & (capacity - 1):
            raise _nonsense(f"its rings hold {capacity} records")
        if data < schema.RING_HEADER.size or data % 8 or self._ring_stride % 8:
            raise _nonsense("its rings overlap their headers")
        if self._ring_stride < data + capacity * schema.EVENT_RECORD.size:
            raise _nonsense("its rings overlap")
        self._check_range("rings", self._rings_offset, self._ring_count * self._ring_stride)

    def _check_range(self, name: str, offset: int, size: int) -> None:
        if offset % 8 or offset < _HEADER.size or offset + size > len(self._map):
            raise _nonsense(f"its section `{name}` does not fit")

    # ----------------------------------------------------------------------------- header

    def get(self, field: str) -> int:
        """A number in the header."""
        return int(self._header[field][0])

    def set(self, field: str, value: int) -> None:
        """Write a number into the header."""
        self._header[field][0] = value

    def array(self, field: str) -> npt.NDArray[Any]:
        """The view of an array field of the header, e.g. `torch_layout`."""
        view: npt.NDArray[Any] = self._header[field][0]
        return view

    def text(self, field: str) -> str:
        """A NUL-terminated text field of the header."""
        return bytes(self.array(field)).split(b"\0", 1)[0].decode(errors="replace")

    def address(self, field: str) -> int:
        """Address of a header field in this process, for futex calls."""
        return int(self._bytes.ctypes.data) + _OFFSETS[field]

    def fence(self) -> None:
        """Full memory barrier between accesses to the shared memory."""
        self._fence()

    def section(self, name: str) -> npt.NDArray[np.uint8]:
        """The bytes of a section: request, result, arena."""
        at = self._offset[name]
        return self._bytes[at : at + self._capacity[name] * _SECTIONS[name]]

    def part(self, name: str, size: int, *, aligned: bool = False) -> npt.NDArray[np.uint8]:
        """The `size` bytes that begin at `<name>_offset` of the header.

        Raises AttachFailed if they do not lie inside; `aligned`: if they do not begin at a page.
        """
        offset = self.get(f"{name}_offset")
        self._check_range(name, offset, size)
        if aligned and offset % mmap.PAGESIZE:
            raise _nonsense(f"its section `{name}` begins in the middle of a page")
        return self._bytes[offset : offset + size]

    def nonsense(self, why: str) -> AttachFailed:
        """The error for a memory that cannot be an agent's."""
        return _nonsense(why)

    def dropped(self) -> dict[DropCause, int]:
        """Lost events by cause."""
        counts = self.array("dropped").tolist()
        return {cause: counts[cause] for cause in DropCause}

    # ------------------------------------------------------------------------------ events

    @property
    def ring_capacity(self) -> int:
        """Records per ring."""
        return self._ring_capacity

    def rings(self) -> list[Ring]:
        """The ring slots that a thread uses or used."""
        return [self.ring(int(i)) for i in np.flatnonzero(self._rings["state"] != RingState.FREE)]

    def ring(self, index: int) -> Ring:
        """Who writes ring `index`."""
        head = self._rings[index]
        return Ring(
            index=index,
            tid=int(head["tid"]),
            torch_tid=int(head["torch_tid"]),
            state=int(head["state"]),
            generation=int(head["generation"]),
            comm=bytes(head["comm"]).split(b"\0", 1)[0].decode(errors="replace"),
            dropped=int(head["dropped"]),
        )

    def pending(self) -> list[int]:
        """Indices of the rings with unread records. A few microseconds for 256 rings."""
        unread = self._rings["head"] != np.array(self._tails, np.uint64)
        return [int(i) for i in np.flatnonzero(unread)]

    def drain(self, ring: int) -> Records:
        """Take every unread record of a ring, oldest first, as a copy; then free their slots."""
        head, tail = int(self._rings["head"][ring]), self._tails[ring]
        count = (head - tail) % (1 << 64)
        if count > self._ring_capacity:
            self.resyncs += 1
            count = 0
        self._fence()
        out = self._copy(ring, tail, count)
        self._fence()
        self._tails[ring] = head
        self._rings["tail"][ring] = head
        return out

    def _copy(self, ring: int, tail: int, count: int) -> Records:
        raw = np.empty((count, schema.EVENT_RECORD.size), np.uint8)
        at = tail & (self._ring_capacity - 1)
        first = min(count, self._ring_capacity - at)
        raw[:first] = self._records[ring, at : at + first]
        raw[first:] = self._records[ring, : count - first]
        return raw.view(schema.dtype(schema.EVENT_RECORD)).reshape(count)

    # --------------------------------------------------------------------------- interning

    def strings(self, since: int = 1, *, final: bool = False) -> list[str]:
        """The strings with ids from `since` on, up to the first that is still being written.

        `final` passes over such entries as empty strings: use it once the window is closed.
        """
        entries = self._entries("strings", schema.STRING_ENTRY, since, final)
        lengths = entries["length"].astype(np.int64)
        ends = entries["offset"] + lengths
        capacity = self._capacity["arena"]
        # No two strings share bytes, so more bytes than the arena has are nonsense.
        lengths[(ends > capacity) | (np.cumsum(lengths) > capacity) | (entries["ready"] != 1)] = 0
        with memoryview(self._map) as memory:
            return [
                str(memory[at : at + n], "utf-8", "replace")
                for at, n in zip(
                    (entries["offset"] + np.int64(self._offset["arena"])).tolist(),
                    lengths.tolist(),
                    strict=True,
                )
            ]

    def codes(self, since: int = 1, *, final: bool = False) -> Records:
        """The code entries with ids from `since` on; a copy. `final` as for `strings`."""
        return self._entries("codes", schema.CODE_ENTRY, since, final)

    def stacks(self, since: int = 1, *, final: bool = False) -> Records:
        """The stack entries with ids from `since` on; a copy. `final` as for `strings`."""
        return self._entries("stacks", schema.STACK_ENTRY, since, final)

    def frames(self, stacks: Records) -> tuple[Records, npt.NDArray[np.int64]]:
        """The frames of `stacks` one after another, and how many each stack has.

        Stacks whose frames lie outside the section have none.
        """
        capacity = self._capacity["frames"]
        first = stacks["first_frame"].astype(np.int64)
        counts = stacks["frame_count"].astype(np.int64)
        counts[(first + counts > capacity) | (stacks["ready"] != 1)] = 0
        counts[np.cumsum(counts) > capacity] = 0  # stacks share no frames
        starts = np.repeat(first - np.cumsum(counts) + counts, counts)
        index = starts + np.arange(len(starts))
        return self._view("frames", schema.STACK_FRAME)[index], counts

    def arena(self, offset: int, length: int) -> bytes:
        """Bytes of the arena; empty if they lie outside."""
        section = self.section("arena")
        return (
            section[offset : offset + length].tobytes() if offset + length <= len(section) else b""
        )

    def clock_samples(self, since: int = 0) -> tuple[Records, int]:
        """The clock samples from number `since` on, and the number to ask for next.

        Older samples than the section keeps are gone; the oldest kept may be in the making.
        """
        return self._kept("clock", schema.CLOCK_SAMPLE, since)

    def python_samples(self, since: int = 0) -> tuple[Records, int]:
        """What Python said between steps, from number `since` on, and the number to ask for next.

        As for `clock_samples`.
        """
        return self._kept("samples", schema.PYTHON_SAMPLE, since)

    def _kept(self, name: str, struct: schema.Struct, since: int) -> tuple[Records, int]:
        """Entries of a section that is written round and round."""
        count, capacity = self.get(f"{name}_count"), self._capacity[name]
        if not capacity:
            return np.empty(0, schema.dtype(struct)), count
        self._fence()
        oldest = max(0, count - capacity + 1)
        numbers = np.arange(max(since, oldest), max(since, count))
        return self._view(name, struct)[numbers % capacity], max(since, count)

    def _view(self, name: str, struct: schema.Struct) -> Records:
        return np.frombuffer(
            self._map, schema.dtype(struct), self._capacity[name], self._offset[name]
        )

    def _entries(self, name: str, struct: schema.Struct, since: int, final: bool) -> Records:
        """Copy entries [since, count) that are ready, ids being indices."""
        count = min(self.get(f"{name}_count"), self._capacity[name])
        if since >= count:
            return np.empty(0, schema.dtype(struct))
        view = self._view(name, struct)[since:count]
        unready = np.flatnonzero(view["ready"] != 1)
        self._fence()
        out: Records = (view if final or not len(unready) else view[: unready[0]]).copy()
        return out

    # ----------------------------------------------------------------------------- closing

    def close(self) -> None:
        """Unmap and close. Idempotent; what was drained stays valid."""
        if self._map is None:
            return
        mapping = self._map
        del self._bytes, self._header, self._rings, self._records
        self._map = None  # type: ignore[assignment]
        try:
            mapping.close()
        except BufferError:  # somebody keeps a view: the mapping goes when they let go
            pass
        os.close(self.fd)

    def __enter__(self) -> AgentMemory:
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


def _nonsense(why: str) -> AttachFailed:
    return AttachFailed(f"What should be the agent's shared memory is not: {why}.")


def _open(source: str | os.PathLike[str] | int) -> int:
    if isinstance(source, int):
        fd = os.dup(source)
    else:
        try:
            # A pipe or a device must not be opened at all: that may block or do things.
            if not stat.S_ISREG(os.stat(source).st_mode):
                raise _nonsense("it is not a memory file")
            fd = os.open(source, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError as exc:
            raise _open_error(source, exc) from exc
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise _nonsense("it is not a memory file")
    return fd


def _open_error(source: str | os.PathLike[str], exc: OSError) -> ProfilerError:
    if exc.errno in (errno.ENOENT, errno.ESRCH):
        return TargetGone(f"The agent's memory {os.fspath(source)} is gone.")
    if exc.errno in (errno.EACCES, errno.EPERM):
        return TargetNotPermitted(f"Opening the agent's memory {os.fspath(source)} was refused.")
    return AttachFailed(f"The agent's memory cannot be opened: {exc}.")
