"""Whether the window caught its first and its last step whole.

A step at the window's edge is whole if what is seen of it is what a usual step consists of. That is
judged by operators outside the optimizer, whose first call does more than later ones.
"""

from __future__ import annotations

import numpy as np

from gputap.profiler.analysis.intervals import Index, Ints, Mask, containing
from gputap.profiler.analysis.load import Frame
from gputap.profiler.analysis.sites import further_down
from gputap.profiler.analysis.track import Scopes, Track, count_between

_ENOUGH = 0.9
"""Part of the usual number of operators that makes a step whole: the number may vary."""


def first_begins(thread: Track, start: Ints, end: Ints, recorded: Mask) -> int | None:
    """When the first step began, if it did so inside the window; None if the edge cut it.

    With a DataLoader that is in every step user scopes suffice; else operators are needed.
    """
    if len(start) < 2:
        return None
    loads = thread.loader
    counts = count_between(loads.start, start, end)
    usual = int(np.median(counts[1:]))
    if usual and counts[0] < usual:
        return None
    if usual:
        return int(loads.start[np.searchsorted(loads.start, end[0]) - usual])
    return _first_operator(thread, start, end, recorded)


def last_ends(thread: Track, start: Ints, end: Ints, recorded: Mask) -> int | None:
    """When the last step ended, if all its operators are there; None if the edge cut it."""
    rows = thread.work
    pieces = _pieces(thread, rows, start, end)
    usual = [p for p, ok in zip(pieces[:-1], recorded[:-1], strict=True) if ok and len(p)]
    last = pieces[-1]
    if not usual or not len(last):
        return None
    enough = _ENOUGH * float(np.median([len(p) for p in usual]))
    alike = np.mean([_same(thread, p[-1], last[-1]) for p in usual[-8:]])
    if len(last) < enough or alike < 0.5:
        return None
    return int(thread.data.events.end[last[-1]])


def _first_operator(thread: Track, start: Ints, end: Ints, recorded: Mask) -> int | None:
    """Start of the first step by its operators.

    The usual step, from one optimizer call to the next, may begin with the tail of the turn
    before (metrics, logging): its own turn begins where the program goes back up in the source.
    """
    events, calls = thread.data.events, thread.optimizer
    likely = np.flatnonzero(recorded)[1:9] if recorded[0] else recorded[:0].nonzero()[0]
    if not len(likely):
        return None
    steps = np.concatenate([[0], likely])
    inside = containing(events.start[thread.work], calls.start, calls.end) >= 0
    mine, *usual = _pieces(thread, thread.work[~inside], start[steps], end[steps])
    usual = [p for p in usual if len(p)]
    if not usual:
        return int(calls.start[0])  # all of a step happens in the optimizer's closure
    usual.sort(key=len)
    typical = usual[len(usual) // 2]
    turn = _turn(thread, typical, calls)
    needed = int(_ENOUGH * (min(map(len, usual)) - turn))
    tried = mine[: max(len(mine) - needed + 1, 0)]
    hit = next((row for row in tried.tolist() if _same(thread, row, typical[turn])), None)
    return None if hit is None else _with_zero_grad(thread, hit, int(start[0]))


def _pieces(thread: Track, rows: Index, start: Ints, end: Ints) -> list[Index]:
    """The rows of each step."""
    times = thread.data.events.start[rows]
    low, high = np.searchsorted(times, start), np.searchsorted(times, end)
    return [rows[a:b] for a, b in zip(low.tolist(), high.tolist(), strict=True)]


def _turn(thread: Track, typical: Index, calls: Scopes) -> int:
    """Index of the operator with which a turn of the loop begins."""
    before = calls.row[np.searchsorted(calls.start, thread.data.events.start[typical[0]]) - 1]
    frames = _frames(thread, int(before))
    for i, row in enumerate(typical.tolist()):
        here = _frames(thread, row)
        if further_down(frames, here) is False:
            return i
        frames = here
    return 0


def _frames(thread: Track, row: int) -> tuple[Frame, ...]:
    return thread.data.stacks.frames(int(thread.data.events.stack_id[row]))


def _same(thread: Track, row: int, other: int) -> bool:
    """Whether two events have the same name and Python stack. Ids of stacks may be duplicates."""
    events = thread.data.events
    if events.name[row] != events.name[other]:
        return False
    same_id = bool(events.stack_id[row] == events.stack_id[other])
    return same_id or _frames(thread, row) == _frames(thread, other)


def _with_zero_grad(thread: Track, row: int, earliest: int) -> int:
    """Start of the operator, or of the `zero_grad` right before it."""
    events = thread.data.events
    start = int(events.start[row])
    at = int(np.searchsorted(thread.work, row))
    previous = int(events.end[thread.work[at - 1]]) if at else earliest
    scopes = thread.zero_grad
    before = scopes.start[(scopes.start >= max(previous, earliest)) & (scopes.end <= start)]
    return int(before[0]) if len(before) else start
