"""How intervals on one track nest, for all of them at once.

A timeline can draw, and a trace can parent, only intervals that nest: two of them are apart, or
one holds the other. Events of a thread do, but for the odd asynchronous one; those go on lanes.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_MAX_PASSES: Final = 16


@dataclass(frozen=True, slots=True)
class Nesting:
    """Intervals in preorder. Arrays are by place in that order."""

    order: Ints
    """Which interval of the input is at this place. Strays are not in it."""
    depth: Ints
    """0 is outermost."""
    parent: Ints
    """Place of the interval around it; -1 for none."""
    size: Ints
    """Intervals in it, itself included."""
    strays: Ints
    """Intervals of the input that overlap others without nesting, by start."""


def nest(start_ns: Ints, end_ns: Ints, depth: Ints) -> Nesting:
    """Nest the intervals of one track. `depth` only decides between equal intervals. O(n log n).

    An interval that ends in another one which it began before is a stray.
    """
    order = np.lexsort((depth, -end_ns, start_ns))
    strays: list[Ints] = []
    for attempt in range(_MAX_PASSES):
        depths = _open_at_start(start_ns[order], end_ns[order])
        parent = _parents(depths)
        bad = _breaks_out(start_ns[order], end_ns[order], parent)
        if not bad.any():
            break
        if attempt == _MAX_PASSES - 2:
            bad = depths > 0  # what began while nothing was open cannot overlap
        strays.append(order[bad])
        order = order[~bad]
    stray = np.concatenate(strays) if strays else np.empty(0, np.int64)
    stray = stray[np.argsort(start_ns[stray], kind="stable")]
    return Nesting(order, depths, parent, _sizes(depths, parent), stray)


def _open_at_start(start: Ints, end: Ints) -> Ints:
    """How many intervals are open when each one starts, in the order (start, -end)."""
    instant = start == end
    ended = np.searchsorted(np.sort(end[~instant]), start, side="right")
    # Instants before it in order have ended; of those at the same time only the earlier ones.
    instants_before = np.cumsum(instant) - instant
    out: Ints = np.arange(len(start)) - ended - instants_before
    return out


def by_depth(depth: Ints) -> list[Ints]:
    """Places at each depth, outermost first."""
    order = np.argsort(depth, kind="stable")
    return np.split(order, np.cumsum(np.bincount(depth))[:-1]) if len(depth) else []


def _parents(depth: Ints) -> Ints:
    parent = np.full(len(depth), -1, np.int64)
    levels = by_depth(depth)
    for above, level in pairwise(levels):
        parent[level] = above[np.searchsorted(above, level) - 1]
    return parent


def _breaks_out(start: Ints, end: Ints, parent: Ints) -> Bools:
    """True for intervals that do not lie in their parent. Before strays are out, parents err."""
    at = np.maximum(parent, 0)
    out: Bools = (parent >= 0) & ((end > end[at]) | (start > end[at]))
    return out


def _sizes(depth: Ints, parent: Ints) -> Ints:
    size = np.ones(len(depth), np.int64)
    for level in reversed(by_depth(depth)[1:]):
        np.add.at(size, parent[level], size[level])
    return size


def lanes(start_ns: Ints, end_ns: Ints) -> Ints:
    """Lane of each interval, given by start, such that none on a lane overlap; fewest lanes.

    A Python loop where some overlap: for the few that do not nest.
    """
    out = np.zeros(len(start_ns), np.int64)
    if (start_ns[1:] >= end_ns[:-1]).all():
        return out
    free: list[tuple[int, int]] = []
    count = 0
    for i, (start, end) in enumerate(zip(start_ns.tolist(), end_ns.tolist(), strict=True)):
        if free and free[0][0] <= start:
            lane = heapq.heappop(free)[1]
        else:
            lane, count = count, count + 1
        out[i] = lane
        heapq.heappush(free, (end, lane))
    return out
