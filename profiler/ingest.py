"""From the shared memory of a target to parts of a capture.

`Ingest` drains the rings of one process into raw chunks, and from time to time turns them into a
sorted Arrow table, which it hands to a sink (the store, and live exporters). Memory is bounded by
the part size plus one round of full rings.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from gputap.profiler import schema
from gputap.profiler.agent_memory import Ring
from gputap.profiler.clock import Clock, SessionClock
from gputap.profiler.columns import table
from gputap.profiler.convert import ModulesOf, Names, Records, events_table
from gputap.profiler.schema import EventKind

if TYPE_CHECKING:
    import pyarrow as pa

PART_ROWS: Final = 1 << 17
"""Rows at which a part is written: 6 MiB of records, which keeps the collector near 130 MB."""

PART_SECONDS: Final = 30.0
"""Age at which a part is written, so that a killed gputap loses no more than this."""

Sink = Callable[[str, "pa.Table"], object]
"""Takes the name of a table and rows for it."""


class Source(Protocol):
    """What ingest needs of an `AgentMemory`."""

    def get(self, field: str) -> int:
        """A number in the control header."""

    def pending(self) -> list[int]:
        """Rings with unread records."""

    def drain(self, ring: int) -> Records:
        """Take a ring's unread records."""

    def rings(self) -> list[Ring]:
        """The rings that a thread uses or used."""

    def ring(self, index: int) -> Ring:
        """One ring."""

    def strings(self, since: int = 1, *, final: bool = False) -> list[str]:
        """Interned strings from an id on."""

    def clock_samples(self, since: int = 0) -> tuple[Records, int]:
        """Clock samples from a number on, and the next number."""


@dataclass(slots=True)
class Thread:
    """A thread of the target, as its rings tell."""

    tid: int
    """In gputap's pid namespace."""
    name: str
    torch_tid: int
    events: int = 0
    dropped: int = 0


def no_modules(stack_ids: Sequence[int]) -> list[tuple[str | None, str | None]]:
    """The resolver of a target without Python stacks."""
    return [(None, None)] * len(stack_ids)


class Ingest:
    """Reads one target. Call `poll` often enough that no ring fills up, `finish` at the end."""

    def __init__(
        self,
        source: Source,
        sink: Sink,
        *,
        clock: SessionClock | None = None,
        modules_of: ModulesOf = no_modules,
        host_tids: Mapping[int, int] | None = None,
        part_rows: int = PART_ROWS,
        part_seconds: float = PART_SECONDS,
    ) -> None:
        """`host_tids` maps the target's thread ids to ours; absent ones are the same in both.

        It may grow, and may be a dict with `__missing__` that looks threads up.
        """
        self._source = source
        self._sink = sink
        self.clock: Final = clock or SessionClock()
        self._modules_of = modules_of
        self._host_tids: Mapping[int, int] = host_tids if host_tids is not None else {}
        self._part_rows = part_rows
        self._part_seconds = part_seconds
        self._strings = [""]
        self._clock_at = 0
        self._chunks: dict[int, list[Records]] = {}
        self._calls: dict[int, list[Records]] = {}
        """CUDA calls, which have a table of their own."""
        self._nccl: dict[int, list[Records]] = {}
        """So have NCCL's."""
        self._rows = 0
        self._oldest = 0.0
        self._threads: dict[int, Thread] = {}
        self._ring_dropped: dict[int, int] = {}
        self._torch_tids: dict[int, int] = {}
        self.events = 0
        """Records drained so far."""

    @property
    def buffered(self) -> int:
        """Records drained and not yet handed on."""
        return self._rows

    def poll(self) -> int:
        """Drain every ring; write a part if it is due. Returns how many records came."""
        count = 0
        for index in self._source.pending():
            records = self._source.drain(index)
            self._see(self._source.ring(index))
            self._take(records)
            count += len(records)
            if self._rows >= self._part_rows:
                self.flush()
        if self._rows and time.monotonic() - self._oldest >= self._part_seconds:
            self.flush()
        return count

    def clock_now(self) -> Clock:
        """The clock by all samples that the target has taken so far."""
        samples, self._clock_at = self._source.clock_samples(self._clock_at)
        self.clock.add(samples)
        return self.clock.clock()

    def flush(self) -> None:
        """Hand everything drained to the sink as one sorted part."""
        if not self._rows:
            return
        chunks, self._chunks = self._chunks, {}
        calls, self._calls, self._rows = self._calls, {}, 0
        nccl, self._nccl = self._nccl, {}
        clock = self.clock_now()
        for ring in self._source.rings():
            self._see(ring)
        if calls:
            # Loaded only where CUDA calls come, with all that knows their names.
            from gputap.profiler.call_events import call_rows

            self._sink("cuda_api", call_rows(calls, clock, self.strings(_highest(calls))))
        if nccl:
            from gputap.profiler.nccl_calls import nccl_rows

            self._sink("nccl_calls", nccl_rows(nccl, clock, self.strings(_highest(nccl))))
        if chunks:
            self._sink("events", events_table(chunks, clock, self._names(chunks)))

    def finish(
        self, *, main_tid: int | None = None, thread_names: Mapping[int, str] | None = None
    ) -> None:
        """Drain and write what is left, and the table of threads. The window must be closed.

        `main_tid` and the keys of `thread_names` (Python's names) are thread ids of ours.
        """
        while self.poll():
            pass
        self.flush()
        self.clock_now()
        for ring in self._source.rings():
            self._see(ring)
        self._sink("threads", self.threads(main_tid=main_tid, thread_names=thread_names))

    def threads(
        self, *, main_tid: int | None = None, thread_names: Mapping[int, str] | None = None
    ) -> pa.Table:
        """The table of threads seen so far."""
        names = thread_names or {}
        rows = [self._threads[tid] for tid in sorted(self._threads)]
        columns: dict[str, Sequence[object]] = {
            "tid": [t.tid for t in rows],
            "name": [names.get(t.tid, t.name) for t in rows],
            "torch_tid": [t.torch_tid or None for t in rows],
            "is_main": [t.tid == main_tid if main_tid is not None else None for t in rows],
            "events": [t.events for t in rows],
            "dropped": [t.dropped for t in rows],
        }
        return table(schema.THREADS, columns)

    def _take(self, records: Records) -> None:
        """Keep records by the thread that started them; nearly always the ring's own."""
        if not len(records):
            return
        if not self._rows:
            self._oldest = time.monotonic()
        self._rows += len(records)
        self.events += len(records)
        tids = records["tid"]
        if (tids == tids[0]).all():
            self._keep(int(tids[0]), records)
            return
        # Ended on another thread than it started on (futures, collectives).
        for tid in np.unique(tids).tolist():
            self._keep(tid, records[tids == tid])

    def _keep(self, tid: int, records: Records) -> None:
        thread = self._thread(tid)
        kinds = records["kind"]
        for kind, kept in ((EventKind.CUDA_API, self._calls), (EventKind.NCCL_API, self._nccl)):
            calls = kinds == kind
            if calls.any():
                kept.setdefault(thread.tid, []).append(records[calls])
                records, kinds = records[~calls], kinds[~calls]
        if len(records):
            thread.events += len(records)
            self._chunks.setdefault(thread.tid, []).append(records)

    def _thread(self, tid: int) -> Thread:
        try:
            host_tid = self._host_tids[tid]
        except KeyError:
            host_tid = tid
        return self._threads.setdefault(host_tid, Thread(host_tid, "", 0))

    def _see(self, ring: Ring) -> None:
        """Learn from a ring's header who writes it and what it lost since last time."""
        thread = self._thread(ring.tid)
        thread.name = ring.comm or thread.name
        if ring.torch_tid:
            thread.torch_tid = ring.torch_tid
            self._torch_tids[ring.torch_tid] = thread.tid
        before = self._ring_dropped.get(ring.index, 0)
        lost = ring.dropped - before if ring.dropped >= before else ring.dropped
        self._ring_dropped[ring.index] = ring.dropped
        thread.dropped += lost

    def strings(self, highest: int) -> Sequence[str]:
        """Interned strings by id, up to id `highest` at least where the target has it."""
        self._strings += self._source.strings(len(self._strings))
        if highest < len(self._strings):
            return self._strings
        # An unfinished entry holds up those behind it; look past it, for this time only.
        return self._strings + self._source.strings(len(self._strings), final=True)

    def _names(self, chunks: Mapping[int, Sequence[Records]]) -> Names:
        return Names(
            strings=self.strings(_highest(chunks)),
            stack_count=self._source.get("stacks_count"),
            modules_of=self._modules_of,
            host_tid_of_torch=self._torch_tids,
        )


def _highest(chunks: Mapping[int, Sequence[Records]]) -> int:
    """The highest string id in the records."""
    ids = ("name_id", "shape_id")
    return max(int(c[i].max()) for thread in chunks.values() for c in thread for i in ids)
