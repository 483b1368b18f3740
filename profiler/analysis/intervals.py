"""Interval arithmetic on columns: exact integer ns, no loop over events.

Intervals are half open, `[start, end)`, given as two int64 arrays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Index = npt.NDArray[np.intp]
Mask = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.integer[Any]]

_MAX_CUTS = 64
"""Passes over intervals that do not nest; one suffices unless cut ones stick out again."""


@dataclass(frozen=True, slots=True, eq=False)
class Union:
    """Disjoint intervals in ascending order: what a set of intervals covers together."""

    start: Ints
    end: Ints
    before: Ints
    """Covered length before each interval; one element more, the last is the whole length."""

    def covered(self, lo: Ints, hi: Ints) -> Ints:
        """Covered length within each window `[lo, hi)`."""
        length: Ints = np.maximum(self._up_to(hi) - self._up_to(lo), 0)
        return length

    def _up_to(self, time: Ints) -> Ints:
        if not len(self.start):
            return np.zeros(len(time), np.int64)
        at = np.searchsorted(self.start, time, side="right") - 1
        inside = np.minimum(time, self.end[at]) - self.start[at]
        length: Ints = np.where(at >= 0, self.before[at] + inside, 0)
        return length


def union(start: Ints, end: Ints) -> Union:
    """Merge intervals, which may overlap and come in any order. Empty ones count nothing."""
    keep = end > start
    start, end = start[keep], end[keep]
    if not len(start):
        return Union(start, end, np.zeros(1, np.int64))
    if np.any(start[1:] < start[:-1]):
        order = np.argsort(start, kind="stable")
        start, end = start[order], end[order]
    reach = np.maximum.accumulate(end)
    first = np.concatenate([[True], start[1:] > reach[:-1]])
    heads = np.flatnonzero(first)
    tails = np.append(heads[1:], len(start)) - 1
    low, high = start[heads], reach[tails]
    before = np.concatenate([[0], np.cumsum(high - low)]).astype(np.int64)
    return Union(low, high, before)


def outermost(start: Ints, end: Ints) -> Mask:
    """Which intervals lie in none before them. Sorted by start, longest first; they nest."""
    if not len(start):
        return np.zeros(0, np.bool_)
    reach = np.maximum.accumulate(end)
    return np.concatenate([[True], start[1:] >= reach[:-1]])


def containing(time: Ints, start: Ints, end: Ints) -> Index:
    """Index of the interval that holds each time, -1 if none. Intervals disjoint, ascending."""
    if not len(start):
        return np.full(len(time), -1, np.intp)
    at = np.searchsorted(start, time, side="right") - 1
    return np.where((at >= 0) & (time < end[at]), at, -1)


def clip_overlaps(start: Ints, end: Ints) -> tuple[Ints, Ints]:
    """Make intervals sorted by start disjoint: the earlier one keeps what two claim."""
    if not len(start):
        return start, end
    reach = np.maximum.accumulate(end)
    low = np.concatenate([start[:1], np.maximum(start[1:], reach[:-1])])
    return low, np.maximum(end, low)


@dataclass(frozen=True, slots=True, eq=False)
class Nesting:
    """Who lies in whom, on each track."""

    parent: Index
    """Innermost interval around each; -1 if outermost."""
    self_ns: Ints
    """Length minus that of the children."""


def nest(track: IntArray, start: Ints, end: Ints) -> Nesting:
    """Parents and self times of intervals sorted by (track, start, longest first).

    An interval that sticks out of the one it began in is cut at that one's end for this purpose,
    so that no time counts twice. O(n log n), one pass per nesting level.
    """
    end = _cut(track, start, end)
    depth = _depths(track, start, end)
    parent = _parents(depth)
    inner = np.flatnonzero(parent >= 0)
    length = end - start
    # float64 is exact here: sums of ns stay below 2**53 (104 days)
    children = np.bincount(parent[inner], weights=length[inner], minlength=len(start))
    return Nesting(parent, np.maximum(length - children.astype(np.int64), 0))


def _keys(track: IntArray, start: Ints, end: Ints) -> tuple[Ints, Ints]:
    """Starts and ends on one axis, each track in a stretch of its own."""
    if not len(start):
        return start, end
    origin = start.min()
    span = end.max() - origin + 2
    change = np.concatenate([[0], np.cumsum(track[1:] != track[:-1])]).astype(np.int64)
    offset = change * span - origin
    return start + offset, end + offset


def _depths(track: IntArray, start: Ints, end: Ints) -> npt.NDArray[np.int32]:
    low, high = _keys(track, start, end)
    # An empty interval is never open; only those that start before it can hold it.
    lasting = high > low
    opened: Ints = np.cumsum(lasting) - lasting
    closed = np.searchsorted(np.sort(high[lasting], kind="stable"), low, side="right")
    return (opened - closed).astype(np.int32)


def _cut(track: IntArray, start: Ints, end: Ints) -> Ints:
    """Ends, cut where an interval outlasts the one it started in."""
    low, high = _keys(track, start, end)
    for _ in range(_MAX_CUTS if len(high) else 0):
        parent = _parents(_depths(track, low, high))
        limit = np.where(parent >= 0, np.maximum(high[parent], low), high)
        if not np.any(high > limit):
            break
        high = np.minimum(high, limit)
    return high - low + start


def _parents(depth: npt.NDArray[np.int32]) -> Index:
    """Nearest interval before each that lies one level up."""
    parent = np.full(len(depth), -1, np.intp)
    if not len(depth):
        return parent
    order = np.argsort(depth.astype(np.int16), kind="stable")
    edges = np.searchsorted(depth[order], np.arange(int(depth.max()) + 2))
    for level in range(1, int(depth.max()) + 1):
        above = order[edges[level - 1] : edges[level]]
        mine = order[edges[level] : edges[level + 1]]
        if len(above) and len(mine):
            parent[mine] = above[np.searchsorted(above, mine) - 1]
    return parent
