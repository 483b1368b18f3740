"""Steps of a loop that has neither optimizer nor DataLoader: calls of the outermost module.

Nothing marks such a call, but every operator has a Python stack. A new call begins

* after an operator outside the module, or where the module is called from another line;
* where the program goes back up in the module's own code (`positions.py`).

Going back up may also be a `for` loop inside `forward`. Of all places that the program goes back
to, the highest is taken for the beginning of `forward`; a jump to it from a line that at other
times runs on downwards is taken for a loop, if calls also end further down. What stays ambiguous
is a `forward` that consists of one loop and nothing else: its turns are told from calls only if
operators outside the module lie between the calls and the loop calls a single module.

Without any module, the same is done with the user's own code; without stacks, a call is the
shortest period in the names of the operators.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from gputap.profiler.analysis.intervals import Index, Ints, Mask
from gputap.profiler.analysis.load import Codes, Frame
from gputap.profiler.analysis.positions import ranks
from gputap.profiler.analysis.track import OPERATOR, Track

LONGEST_PERIOD: Final = 4096
"""Operators in a call that is found by its period alone."""
_RARE: Final = 20
_SHORTEST_OFF_NS: Final = 2_000_000
"""The agent looks at its budget at most so often."""


@dataclass(frozen=True, slots=True, eq=False)
class Calls:
    """Calls in order; each reaches to the beginning of the next."""

    start: Ints
    end: Ints
    whole: Mask
    boundary: str
    """module, iteration or none."""


@dataclass(frozen=True, slots=True, eq=False)
class _Places:
    """Operators of the root module, in order, with where they stand in its code."""

    row: Index
    rank: Ints
    """Place in source order; equal for the same stack."""
    visit: Ints
    """Counts up where the module was certainly entered anew."""
    break_: Mask
    """Recording was interrupted before this operator."""
    children: int
    """Distinct modules called by the root itself; 0 if unknown."""


NO_CALLS: Final = Calls(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.bool_), "none")


def find_calls(thread: Track) -> Calls:
    """The calls; none if nothing repeats."""
    places, boundary = _places(thread)
    if places is None or len(places.row) < 2:
        return NO_CALLS
    if len(np.unique(places.rank)) > 1:
        heads = _returns(places)
    else:
        heads = _periods(thread, places)
    if _is_loop(places, heads):
        heads[:] = False
    heads[0] = True
    heads |= np.diff(places.visit, prepend=-1) != 0
    if heads.sum() < 2:
        return NO_CALLS
    return _calls(thread, places, heads, boundary)


def _places(thread: Track) -> tuple[_Places | None, str]:
    """Where each operator of the main root module stands; of the user's code if there is none."""
    events = thread.data.events
    rows = thread.items
    known = events.stack_id[rows] >= 0
    ids, first, inverse = np.unique(events.stack_id[rows], return_index=True, return_inverse=True)
    stacks = [thread.data.stacks.frames(i)[::-1] for i in ids.tolist()]
    roots = [_root(s) for s in stacks]
    names = [s[r][3] if r >= 0 else None for s, r in zip(stacks, roots, strict=True)]
    time = np.bincount(inverse, weights=(events.end - events.start)[rows], minlength=len(ids))
    root = _heaviest(names, time.tolist())
    operators = thread.labels == OPERATOR
    if root is None:
        mine = operators if not known.any() else operators & known
        return _user_code(thread, rows, mine, stacks, first, inverse), "iteration"
    inside = np.array([n == root for n in names])[inverse] & operators
    outer: dict[tuple[Frame, ...], int] = {}
    outer_of = [outer.setdefault(s[:r], len(outer)) for s, r in zip(stacks, roots, strict=True)]
    paths = [s[r + 1 :] for s, r in zip(stacks, roots, strict=True)]
    rank = np.array(ranks(paths, first.tolist()), np.int64)[inverse]
    key = np.where(inside, np.array(outer_of, np.int64)[inverse], -1)
    key[~known] = key[np.maximum.accumulate(np.where(known, np.arange(len(rows)), 0))][~known]
    visit = np.cumsum(np.diff(key, prepend=-2) != 0)
    children = {c for p, n in zip(paths, names, strict=True) if n == root for c in _child(p)}
    breaks = _breaks(thread, rows, inside)
    return _Places(rows[inside], rank[inside], visit[inside], breaks, len(children)), "module"


def _user_code(
    thread: Track,
    rows: Index,
    mine: Mask,
    stacks: list[tuple[Frame, ...]],
    first: Index,
    inverse: Index,
) -> _Places:
    rank = np.array(ranks(stacks, first.tolist()), np.int64)[inverse]
    visit = np.zeros(int(mine.sum()), np.int64)
    return _Places(rows[mine], rank[mine], visit, _breaks(thread, rows, mine), 0)


def _root(stack: tuple[Frame, ...]) -> int:
    """Index of the outermost module call in a stack given outermost first; -1 if none."""
    return next((i for i, frame in enumerate(stack) if frame.module is not None), -1)


def _child(path: tuple[Frame, ...]) -> list[str]:
    return [f.module for f in path if f.module is not None][:1]


def _heaviest(names: list[str | None], time: list[float]) -> str | None:
    total: dict[str, float] = {}
    for name, ns in zip(names, time, strict=True):
        if name is not None:
            total[name] = total.get(name, 0.0) + ns
    return max(total, key=lambda name: total[name]) if total else None


def _breaks(thread: Track, rows: Index, mine: Mask) -> Mask:
    """Before which of some operators recording was off.

    These are the longest pauses between any operators, one fewer than bursts at most: a burst in
    which nothing ran leaves no trace.
    """
    found = np.zeros(len(rows), np.bool_)
    bursts = thread.data.bursts
    if thread.data.mode != "bursts" or bursts < 2 or len(rows) < 2:
        return found[mine]
    events = thread.data.events
    pause = events.start[rows][1:] - events.end[rows][:-1]
    longest = np.argsort(-pause, kind="stable")[: bursts - 1]
    found[1 + longest[pause[longest] >= _SHORTEST_OFF_NS]] = True
    return np.diff(np.cumsum(found)[mine], prepend=0) > 0


def _returns(places: _Places) -> Mask:
    """Where the program went back to the beginning of the module's code."""
    rank = places.rank
    jump = np.concatenate([[False], rank[1:] < rank[:-1]])
    entered = np.diff(places.visit, prepend=places.visit[0]) != 0
    jump &= ~entered & ~places.break_
    at = np.flatnonzero(jump)
    heads = np.zeros(len(rank), np.bool_)
    if not len(at):
        return heads
    source, target = rank[at - 1], rank[at]
    top = _beginning(rank[entered], target)
    from_end = source[target == top].max(initial=-1)
    runs_on = np.unique(rank[:-1][rank[1:] > rank[:-1]])
    ends = (source >= from_end) | ~np.isin(source, runs_on)
    heads[at[(target < top) | ((target == top) & ends)]] = True
    return heads


def _beginning(entries: Ints, targets: Ints) -> int:
    """Rank at which calls begin: where the module is entered for certain, else the highest."""
    if len(entries):
        return _mode(entries)
    places, counts = np.unique(targets, return_counts=True)
    by_chance = counts[0] == 1 and counts.max() >= _RARE
    return int(places[1] if by_chance and len(places) > 1 else places[0])


def _is_loop(places: _Places, heads: Mask) -> bool:
    """Whether the jumps are turns of a loop inside the module: see the module's docstring."""
    visits, first = np.unique(places.visit, return_index=True)
    if places.children > 1 or len(visits) < 3:
        return False
    turns = np.add.reduceat(heads.astype(np.int64), first)[1:-1]
    return bool(len(turns) and np.all(turns == turns[0]))


def _periods(thread: Track, places: _Places) -> Mask:
    """All operators stand at one place: cut at the shortest period of their names."""
    names = thread.data.events.name[places.row]
    heads = np.zeros(len(names), np.bool_)
    period = _period(names)
    if not period:
        return heads
    events = thread.data.events
    phase = np.arange(len(names)) % period
    pause = events.start[places.row][1:] - events.end[places.row][:-1]
    means = [float(np.median(pause[phase[1:] == p])) for p in range(period)] if period > 1 else [0]
    heads[phase == int(np.argmax(means))] = True
    return heads


def _period(names: Codes) -> int:
    """Shortest period with at least three repetitions; 0 if there is none."""
    for period in range(1, min(LONGEST_PERIOD, len(names) // 3) + 1):
        if names[period] == names[0] and np.array_equal(names[period:], names[:-period]):
            return period
    return 0


def _calls(thread: Track, places: _Places, heads: Mask, boundary: str) -> Calls:
    events = thread.data.events
    heads = heads | places.break_
    first = np.flatnonzero(heads)
    last = np.append(first[1:], len(heads)) - 1
    start = events.start[places.row[first]]
    end = np.append(start[1:], 0)
    finish = events.end[places.row[last]]
    interrupted = np.append(places.break_[first[1:]], True)
    end = np.where(interrupted, finish, end)
    size = last - first + 1
    usual_first = _mode(places.rank[first[1:]])
    usual_last = _mode(places.rank[last[:-1]])
    usual_size = np.median(size)
    whole = np.ones(len(first), np.bool_)
    edge = interrupted
    whole &= ~edge | ((places.rank[last] == usual_last) & (size >= 0.9 * usual_size))
    after_edge = np.concatenate([[True], places.break_[first[1:]]])
    whole &= ~after_edge | ((places.rank[first] == usual_first) & (size >= 0.9 * usual_size))
    return Calls(start, end, whole, boundary)


def _mode(values: Ints) -> int:
    unique, counts = np.unique(values, return_counts=True)
    return int(unique[np.argmax(counts)])
