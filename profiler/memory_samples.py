"""Statistics of torch's device allocator, as the target's Python tells them between steps.

The snippet `memory` (injectors/library/snippets) answers a row for each device; each number of a
row becomes a row of the table `samples`. Answers come from somebody else's process: what makes no
sense is left out and counted.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from gputap.profiler import schema
from gputap.profiler.columns import table

if TYPE_CHECKING:
    from gputap.profiler.clock import Clock
    from gputap.profiler.convert import Records
    from gputap.profiler.ingest import Sink

ALLOCATED: Final = "gputap.memory.allocated"
ALLOCATED_PEAK: Final = "gputap.memory.allocated_peak"
RESERVED: Final = "gputap.memory.reserved"
RESERVED_PEAK: Final = "gputap.memory.reserved_peak"
INACTIVE_SPLIT: Final = "gputap.memory.inactive_split"
ALLOCATIONS: Final = "gputap.memory.allocations"
SEGMENTS: Final = "gputap.memory.segments_allocated"
RETRIES: Final = "gputap.memory.alloc_retries"
OOMS: Final = "gputap.memory.ooms"

METRICS: Final = (
    (ALLOCATED, "By"),
    (ALLOCATED_PEAK, "By"),
    (RESERVED, "By"),
    (RESERVED_PEAK, "By"),
    (INACTIVE_SPLIT, "By"),
    (ALLOCATIONS, "{allocation}"),
    (SEGMENTS, "{segment}"),
    (RETRIES, "{retry}"),
    (OOMS, "{error}"),
)
"""Name and unit of each number of the snippet's rows, which begin with the device."""

_MOST_DEVICES: Final = 64
_PART_READINGS: Final = 2000


class Source(Protocol):
    """What is needed of an `AgentMemory`."""

    def python_samples(self, since: int = 0) -> tuple[Records, int]:
        """Samples from a number on, and the next number."""


class MemoryIngest:
    """Reads what the snippet answers. Call `poll` now and then, `finish` at the end."""

    def __init__(self, source: Source, sink: Sink, *, clock: Callable[[], Clock]) -> None:
        """`clock` gives the clock of the agent's ticks by all samples so far."""
        self._source = source
        self._sink = sink
        self._clock = clock
        self._at = 0
        self._read: list[tuple[int, str, list[int]]] = []
        """Ticks, device, numbers."""
        self.readings = 0
        """Answers that told of a device."""
        self.missed = 0
        """Answers that came faster than they were read."""
        self.nonsense = 0
        """Answers that were none."""
        self.cost_ticks = 0
        """Time that they took in the target, all together."""
        self.failure = ""
        """What Python raised; none came after that."""

    def poll(self) -> None:
        """Take what has come; write a part if it is due."""
        samples, at = self._source.python_samples(self._at)
        self.missed += at - self._at - len(samples)
        self._at = at
        for sample in samples:
            self._take(sample)
        if len(self._read) >= _PART_READINGS:
            self.flush()

    def finish(self) -> None:
        """Take and write all that is left."""
        self.poll()
        self.flush()

    def flush(self) -> None:
        """Hand everything taken to the sink as one part."""
        if not self._read:
            return
        read, self._read = self._read, []
        times = self._clock().to_unix_ns(np.array([ticks for ticks, _, _ in read], np.int64))
        rows = [
            (time_ns, metric, float(value), unit, device)
            for time_ns, (_, device, values) in zip(times.tolist(), read, strict=True)
            for (metric, unit), value in zip(METRICS, values, strict=True)
        ]
        names = [column.name for column in schema.SAMPLES.columns]
        columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
        self._sink("samples", table(schema.SAMPLES, columns))

    def _take(self, sample: Any) -> None:
        begin, end = int(sample["begin_ticks"]), int(sample["end_ticks"])
        text = bytes(sample["text"])[: int(sample["length"])].decode(errors="replace")
        self.cost_ticks += max(0, end - begin)
        if sample["status"] != 0:
            self.failure = text or f"status {sample['status']}"
            return
        rows = _rows(text)
        if rows is None:
            self.nonsense += 1
            return
        self.readings += bool(rows)
        self._read += [(begin + (end - begin) // 2, device, values) for device, values in rows]


def _rows(text: str) -> list[tuple[str, list[int]]] | None:
    """Device and numbers of each row of an answer; None if it is none."""
    try:
        rows = json.loads(text)["rows"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    if not isinstance(rows, list) or len(rows) > _MOST_DEVICES:
        return None
    out = []
    for row in rows:
        if not isinstance(row, list) or len(row) != 1 + len(METRICS):
            return None
        device, *values = row
        if not isinstance(device, str) or not all(
            type(v) is int and 0 <= v < 2**63 for v in values
        ):
            return None
        out.append((device[:40], values))
    return out
