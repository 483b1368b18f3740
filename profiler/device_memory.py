"""The device section of an agent's memory: CUPTI's raw records and samples of CUPTI's clock.

Nothing in it is trusted: what makes no sense is skipped and counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from gputap.profiler import schema

if TYPE_CHECKING:
    from gputap.profiler.agent_memory import AgentMemory, Records

_DATA_OFFSET: Final = 4096
"""Chunks follow the ring's header at the next page."""

_ALIGN: Final = 64
_WRITTEN: Final = 1
_SKIPPED: Final = 2
_HEAD: Final = schema.DEVICE_CHUNK.size


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some records of CUPTI, as they are, their strings replaced by ids."""

    data: npt.NDArray[np.uint8]
    offsets: npt.NDArray[np.uint32]
    """Of each record in `data`."""
    version: int
    """CUDA's, major * 100 + minor."""


class DeviceMemory:
    """Reads the device section of one agent's memory. On the thread that reads that memory."""

    def __init__(self, memory: AgentMemory) -> None:
        """Raises AttachFailed if the section does not fit the memory."""
        self._memory = memory
        self._capacity = memory.get("device_ring_capacity")
        raw = memory.part("device_ring", _DATA_OFFSET + self._capacity, aligned=True)
        if self._capacity < _ALIGN or self._capacity & (self._capacity - 1):
            raise memory.nonsense(f"its device ring holds {self._capacity} bytes")
        self._bytes = raw[_DATA_OFFSET:]
        dtype = schema.dtype(schema.DEVICE_RING)
        self._ring: Records = raw[: schema.DEVICE_RING.size].view(dtype)
        self._tail = int(self._ring["tail"][0])
        self.resyncs = 0
        """How often the ring made no sense and was skipped to its head."""

    def drain(self, most_bytes: int) -> list[Chunk]:
        """Take chunks that are ready, oldest first, until they are more than `most_bytes`."""
        out: list[Chunk] = []
        taken = 0
        while taken < most_bytes:
            unread = (int(self._ring["head"][0]) - self._tail) % (1 << 64)
            if not unread:
                break
            self._memory.fence()
            at = self._tail & (self._capacity - 1)
            head = self._bytes[at : at + _HEAD].view(schema.dtype(schema.DEVICE_CHUNK))[0]
            ready, size = int(head["ready"]), int(head["bytes"])
            if ready == 0 and unread <= self._capacity:
                break  # being written
            if not self._fits(at, size, unread):
                self._skip_all(unread)
                break
            if ready == _WRITTEN and (chunk := self._chunk(at, size, head)) is not None:
                out.append(chunk)
                taken += size
            self._free(at, size)
        return out

    def clock_samples(self, since: int = 0) -> tuple[Records, int]:
        """Samples (`schema.DEVICE_CLOCK_SAMPLE`) from a number on, and the next number."""
        count = self._memory.get("device_clock_count")
        kept = self._memory.get("device_clock_capacity")
        dtype = schema.dtype(schema.DEVICE_CLOCK_SAMPLE)
        raw = self._memory.part("device_clock", kept * dtype.itemsize)
        self._memory.fence()
        # The oldest that is kept may be in the making.
        numbers = np.arange(max(since, count - kept + 1, 0), count)
        samples: Records = raw.view(dtype)[numbers % max(kept, 1)]
        return samples, max(since, count)

    def _fits(self, at: int, size: int, unread: int) -> bool:
        inside = _HEAD <= size <= self._capacity - at
        return inside and size % _ALIGN == 0 and size <= unread <= self._capacity

    def _chunk(self, at: int, size: int, head: np.void) -> Chunk | None:
        records, data = int(head["records"]), int(head["data_bytes"])
        if data % 8 or _HEAD + data + 4 * records > size:
            self.resyncs += 1
            return None
        raw = self._bytes[at + _HEAD : at + _HEAD + data + 4 * records].copy()
        return Chunk(raw[:data], raw[data:].view(np.uint32), int(head["version"]))

    def _free(self, at: int, size: int) -> None:
        """Give the space back, zeroed: a later chunk is not ready before its writer says so."""
        self._bytes[at : at + size] = 0
        self._memory.fence()
        self._tail = (self._tail + size) % (1 << 64)
        self._ring["tail"][0] = self._tail

    def _skip_all(self, unread: int) -> None:
        self.resyncs += 1
        self._bytes[:] = 0
        self._memory.fence()
        self._tail = (self._tail + unread) % (1 << 64)
        self._ring["tail"][0] = self._tail
