"""What torch's device allocator held, by step and over the window, from the table `samples`.

A reading belongs to the step that ended just before it: the agent asks at the end of a step, and
the answer comes when Python is next free to give it. One that comes later than a tenth of a step
tells of the middle of the next, and is no step's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from gputap.profiler.analysis.intervals import Ints, Mask
from gputap.profiler.analysis.model import Memory
from gputap.profiler.memory_samples import (
    ALLOCATED,
    ALLOCATED_PEAK,
    ALLOCATIONS,
    INACTIVE_SPLIT,
    METRICS,
    OOMS,
    RESERVED,
    RESERVED_PEAK,
    RETRIES,
    SEGMENTS,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from gputap.profiler.analysis.steps import Cuts

SAMPLE_COLUMNS: Final = ("time_ns", "metric", "value", "hw_id")

STEP_FIGURES: Final = {
    "memory_allocated": ALLOCATED,
    "memory_peak": ALLOCATED_PEAK,
    "memory_reserved": RESERVED,
    "memory_inactive": INACTIVE_SPLIT,
}
"""Columns of `steps`, in bytes, and what they are at the step's end."""

STEP_COUNTS: Final = {"alloc_retries": RETRIES, "alloc_ooms": OOMS}
"""Columns of `steps`, counted since the reading before."""

_SOON_NS: Final = 2_000_000
_SOON: Final = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class Readings:
    """The readings of one device, in order. All metrics are read at once."""

    device: str
    time: Ints
    values: dict[str, Ints]


def memory_readings(samples: pa.Table) -> tuple[Readings, ...]:
    """The allocator's rows of a `samples` table (`schema.SAMPLES`) by device."""
    import pyarrow.compute as pc

    out = []
    for device in sorted(set(samples.column("hw_id").unique().to_pylist()) - {None}):
        rows = samples.filter(pc.equal(samples.column("hw_id"), device))
        columns = {}
        for metric, _ in METRICS:
            some = rows.filter(pc.equal(rows.column("metric"), metric)).sort_by("time_ns")
            times = some.column("time_ns").to_numpy()
            columns[metric] = (times, some.column("value").to_numpy().astype(np.int64))
        time = columns[ALLOCATED][0]
        # A part that could not be read may lack some: only whole readings tell anything.
        for times, _ in columns.values():
            time = np.intersect1d(time, times)
        if len(time):
            values = {m: v[np.isin(t, time)] for m, (t, v) in columns.items()}
            out.append(Readings(device, time, values))
    return tuple(out)


def memory_totals(cuts: Cuts, readings: tuple[Readings, ...]) -> tuple[Memory, ...]:
    """What each device's allocator did over the window."""
    return tuple(_total(cuts, one) for one in readings)


def _total(cuts: Cuts, one: Readings) -> Memory:
    _, ends = _of_steps(cuts, one.time)
    allocated = one.values[ALLOCATED][ends] if len(ends) else one.values[ALLOCATED]
    return Memory(
        device=one.device,
        step_ends=len(ends),
        allocated=int(allocated[-1]),
        allocated_least=int(allocated.min()),
        allocated_most=int(allocated.max()),
        allocated_peak=int(one.values[ALLOCATED_PEAK][-1]),
        reserved=int(one.values[RESERVED][-1]),
        reserved_peak=int(one.values[RESERVED_PEAK][-1]),
        inactive_split=int(one.values[INACTIVE_SPLIT][-1]),
        allocations=_gained(one.values[ALLOCATIONS]),
        segments=_gained(one.values[SEGMENTS]),
        retries=_gained(one.values[RETRIES]),
        ooms=_gained(one.values[OOMS]),
    )


def _gained(counter: Ints) -> int:
    """How far a counter came; the target may have set it back to zero."""
    return int(np.maximum(np.diff(counter), 0).sum())


def step_memory(cuts: Cuts, readings: tuple[Readings, ...]) -> dict[str, tuple[Ints, Mask]]:
    """Values of each step and where there are none, by column of `steps`; devices are added up."""
    out = {}
    names = STEP_FIGURES | STEP_COUNTS
    for column, metric in names.items():
        total = np.zeros(len(cuts), np.int64)
        known = np.zeros(len(cuts), np.bool_)
        for one in readings:
            step, at = _of_steps(cuts, one.time)
            values = one.values[metric]
            if column in STEP_COUNTS:
                values = np.maximum(np.diff(values, prepend=values[:1]), 0)
            total[step] += values[at]
            known[step] = True
        out[column] = (total, ~known)
    return out


def _of_steps(cuts: Cuts, time: Ints) -> tuple[Ints, Ints]:
    """Steps that have a reading, ascending, and which one: the first after the step's end."""
    step = np.searchsorted(cuts.end, time, side="right") - 1
    at = np.flatnonzero(step >= 0)
    if not len(at):
        return at, at
    lengths = cuts.end - cuts.start
    soon = np.maximum(_SOON_NS, (_SOON * np.median(lengths)).astype(np.int64))
    at = at[time[at] - cuts.end[step[at]] <= soon]
    steps, first = np.unique(step[at], return_index=True)
    return steps, at[first]
