"""One collective seen by several ranks: who came when.

Ranks of one host share a clock. Their captures begin at different collectives, so two ranks'
sequences are laid over each other where operations agree and ends lie closest: a collective that
synchronises ends everywhere at nearly the same time, whoever came late.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from gputap.profiler.analysis.intervals import Index, Ints

if TYPE_CHECKING:
    import pyarrow as pa

SYNCHRONISING: Final = frozenset(
    {"all_reduce", "all_gather", "reduce_scatter", "all_to_all", "barrier"}
)
_FARTHEST: Final = 64
"""Collectives by which two captures of one window may begin apart."""


@dataclass(frozen=True, slots=True, eq=False)
class Matched:
    """Collectives that every rank took part in; one row per rank, one column per collective."""

    start: npt.NDArray[np.int64]
    duration: npt.NDArray[np.int64]
    row: Index
    """Row of each in the first rank's table."""

    @property
    def transfer(self) -> npt.NDArray[np.int64]:
        """From the last rank's coming to the end: without the waiting for each other."""
        length: npt.NDArray[np.int64] = (self.start + self.duration).max(axis=0) - self.start.max(
            axis=0
        )
        return length

    @property
    def wait(self) -> npt.NDArray[np.int64]:
        """How long each rank waited for the last one to come."""
        waits: npt.NDArray[np.int64] = self.start.max(axis=0) - self.start
        return np.minimum(waits, self.duration)

    @property
    def last(self) -> Index:
        """Which row came last."""
        row: Index = np.argmax(self.start, axis=0)
        return row


def match(tables: Sequence[pa.Table]) -> Matched | None:
    """Match the `collectives` tables of ranks on one clock. None if they cannot be matched."""
    ranks = [_columns(table) for table in tables]
    if len(ranks) < 2 or any(len(start) == 0 for _, start, _, _ in ranks):
        return None
    first_op, first_start, first_duration, first_row = ranks[0]
    rows = np.arange(len(first_op))
    places = [rows]
    for op, start, duration, _ in ranks[1:]:
        shift = _shift(first_op, first_start + first_duration, op, start + duration)
        if shift is None:
            return None
        places.append(rows + shift)
    sizes = [len(start) for _, start, _, _ in ranks]
    ok = np.all([(p >= 0) & (p < n) for p, n in zip(places, sizes, strict=True)], axis=0)
    pairs = [(r[1][p[ok]], r[2][p[ok]]) for r, p in zip(ranks, places, strict=True)]
    return Matched(
        np.stack([s for s, _ in pairs]), np.stack([d for _, d in pairs]), first_row[rows[ok]]
    )


def _columns(table: pa.Table) -> tuple[npt.NDArray[Any], Ints, Ints, Index]:
    op = np.array(table.column("op").to_pylist(), dtype=object)
    start = table.column("start_ns").to_numpy()
    duration = table.column("duration_ns").to_numpy()
    keep = np.isin(op, list(SYNCHRONISING)) if len(op) else np.zeros(0, np.bool_)
    return op[keep], start[keep], duration[keep], np.flatnonzero(keep)


def _shift(op: npt.NDArray[Any], end: Ints, other_op: npt.NDArray[Any], other: Ints) -> int | None:
    """By how many places the other rank's sequence lies off; None if operations never agree."""
    best: tuple[float, int] | None = None
    for shift in range(-_FARTHEST, _FARTHEST + 1):
        low, high = max(0, -shift), min(len(end), len(other) - shift)
        if 2 * (high - low) < min(len(end), len(other)):
            continue
        if not np.array_equal(op[low:high], other_op[low + shift : high + shift]):
            continue
        apart = float(np.median(np.abs(end[low:high] - other[low + shift : high + shift])))
        if best is None or apart < best[0]:
            best = (apart, shift)
    return None if best is None else best[1]
