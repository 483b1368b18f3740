"""Where the steps begin and end. No annotation by the user is needed.

1. An `Optimizer.step` ends a step. Several optimizers whose calls follow one another in the
   source make one step (`sites.py`); gradient accumulation makes no more steps.
2. Without an optimizer, a DataLoader's `__next__` begins a step. The one that ends an epoch
   yields no batch: it belongs to the wait for the next batch.
3. Without either, a call of the outermost nn.Module begins a step (`calls.py`).

A step reaches from the previous one's end to its own, so that the wait for its batch is its own.
An evaluation loop between two steps belongs to neither of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from gputap.profiler.analysis import sites
from gputap.profiler.analysis.calls import Calls, find_calls
from gputap.profiler.analysis.edges import first_begins, last_ends
from gputap.profiler.analysis.intervals import Ints, Mask
from gputap.profiler.analysis.load import RankData
from gputap.profiler.analysis.track import (
    LOADER,
    OPTIMIZER_STEP,
    Scopes,
    Track,
    autograd,
    busiest,
    count_between,
    track,
)
from gputap.profiler.schema import EventKind

_LONG: Final = 3.0
_SHORT_NS: Final = 2_000_000
"""Scopes of longer steps cost too little to be switched off between bursts."""


@dataclass(frozen=True, slots=True, eq=False)
class Cuts:
    """Steps of one rank, in order. Where nothing marks a step there are none."""

    start: Ints
    end: Ints
    whole: Mask
    """False where an edge of the window cut the step."""
    recorded: Mask
    """True where every operator was recorded."""
    tid: int
    boundary: str
    """optimizer, loader, module or iteration; none without steps."""

    def __len__(self) -> int:
        """Number of steps, cut ones included."""
        return len(self.start)


def cut_steps(data: RankData) -> tuple[Cuts, Track]:
    """The steps of a rank, and the thread that runs them."""
    events = data.events
    scopes = events.of_kind(EventKind.USER_SCOPE)
    for prefix, cut in ((OPTIMIZER_STEP, _by_optimizer), (LOADER, _by_loader)):
        tid = busiest(data, scopes & events.starting_with(prefix))
        if tid >= 0:
            thread = track(data, tid)
            return cut(thread), thread
    return _by_calls(data)


def no_steps(tid: int) -> Cuts:
    """Nothing that marks a step was seen."""
    none = np.zeros(0, np.int64)
    return Cuts(none, none, none.astype(np.bool_), none.astype(np.bool_), tid, "none")


# ------------------------------------------------------------------------------- optimizer


def _by_optimizer(thread: Track) -> Cuts:
    marks = thread.optimizer
    joined = _joined_optimizers(thread, marks)
    inside = sites.continues(thread.data, marks, joined)
    last = sites.ends_turn(thread.data, marks, joined, inside)
    ends = marks.end[last]
    low, high = thread.data.window
    starts = np.concatenate([[min(low, int(marks.start[0]))], ends[:-1]])
    cuts = _cuts(thread, starts, ends, "optimizer")
    cuts = replace(cuts, recorded=_all_recorded(thread, marks.end, cuts))
    cuts = _gated(thread, cuts)
    cuts = _without_evaluation(thread, cuts)
    begin = first_begins(thread, cuts.start, cuts.end, cuts.recorded)
    cuts = _whole_from(cuts, begin)
    return _with_tail(thread, cuts, int(ends[-1]), max(high, int(ends[-1])))


def _joined_optimizers(thread: Track, marks: Scopes) -> Mask:
    """For each neighbouring pair: no backward pass lies between, so they end the same step."""
    events = thread.data.events
    nodes = np.sort(events.start[autograd(events)])
    low, high = marks.end[:-1], marks.end[1:]
    recorded = count_between(events.start[thread.work], low, high) > 0
    idle = recorded & (count_between(nodes, low, high) == 0)
    if not len(nodes) or np.all(idle == recorded):
        return np.zeros(len(low), np.bool_)
    return _by_analogy(marks.start[1:] - low, recorded, idle)


def _by_analogy(gap: Ints, known: Mask, joined: Mask) -> Mask:
    """Judge unrecorded pairs by their distance, where the recorded ones tell it apart."""
    near, far = gap[known & joined], gap[known & ~joined]
    if not len(near) or not len(far) or near.max() >= far.min():
        return joined
    limit = np.sqrt(float(near.max()) * float(far.min()))
    return np.where(known, joined, gap <= limit)


def _all_recorded(thread: Track, flips: Ints, cuts: Cuts) -> Mask:
    """Steps recorded throughout.

    The agent switches recording at boundaries alone, so between two of them either all
    operators are there or none; a step made of several such stretches needs all of them.
    """
    if thread.data.mode == "full":
        return np.ones(len(cuts), np.bool_)
    events = thread.data.events
    edges = np.unique(np.concatenate([cuts.start, cuts.end, flips]))
    edges = edges[(edges >= cuts.start[0]) & (edges <= cuts.end[-1])]
    blank = count_between(events.start[thread.work], edges[:-1], edges[1:]) == 0
    blanks = np.concatenate([[0], np.cumsum(blank)])
    low = np.searchsorted(edges, cuts.start)
    high = np.searchsorted(edges, cuts.end)
    recorded: Mask = blanks[high] == blanks[low]
    return recorded & ~_cut_by_burst(thread, cuts, recorded)


def _cut_by_burst(thread: Track, cuts: Cuts, recorded: Mask) -> Mask:
    """Steps at a burst's edge with fewer items than usual: the burst began or ended inside.

    That happens where slices of time turn into bursts of steps, and where steps turn out to be
    far dearer than the budget.
    """
    around = np.concatenate([[False], recorded, [False]])
    inner = around[:-2] & around[2:]
    count = count_between(thread.data.events.start[thread.work], cuts.start, cuts.end)
    known = recorded & inner if np.any(recorded & inner) else recorded
    usual = float(np.median(count[known])) if known.any() else 0.0
    cut: Mask = recorded & ~inner & (count < 0.9 * usual)
    return cut


def _gated(thread: Track, cuts: Cuts) -> Cuts:
    """Where even user scopes were seen in bursts only, what lies between bursts is no step.

    Very short steps are watched so. A stretch without operators is then many steps, unless it is
    as short as one.
    """
    mode, seen_ns = thread.data.mode, thread.data.scopes_seen_ns
    duration = cuts.end - cuts.start
    if mode != "bursts" or not np.any(cuts.recorded[1:]):
        return cuts
    usual = float(np.median(duration[1:][cuts.recorded[1:]]))
    long = ~cuts.recorded & (duration > _LONG * usual)
    bursts = int(np.sum(np.diff(cuts.recorded.astype(np.int8)) == 1))
    window = thread.data.window[1] - thread.data.window[0]
    gated = usual < _SHORT_NS and bursts <= 2 * int(long.sum()) <= 3 * bursts + 2
    if seen_ns is not None:
        gated = seen_ns < 0.98 * window
    return replace(cuts, whole=cuts.whole & ~long) if gated else cuts


def _without_evaluation(thread: Track, cuts: Cuts) -> Cuts:
    """Begin a step after the evaluation loop that ran before it, if one did.

    An evaluation loop is a loader that is seen in at most half of the steps, beside one that is
    seen in more than half of them, or several times wherever it is seen.
    """
    loads = thread.loader
    if not len(loads):
        return cuts
    step = np.searchsorted(cuts.end, loads.start, side="right")
    inside = step < len(cuts)
    site = sites.labels(thread.data, loads)
    rare = sites.rare(site[inside], step[inside], len(cuts))
    if not len(rare):
        return cuts
    start = cuts.start.copy()
    evaluation = inside & np.isin(site, rare)
    training = inside & ~np.isin(site, rare)
    for k in np.unique(step[evaluation]):
        over = loads.end[evaluation & (step == k)][-1]
        after = loads.start[training & (step == k) & (loads.start >= over)]
        start[k] = after[0] if len(after) else over
    return replace(cuts, start=start)


# ---------------------------------------------------------------------------------- loader


def _by_loader(thread: Track) -> Cuts:
    marks = thread.loader
    joined = _joined_loads(thread, marks)
    heads = ~np.concatenate([[False], joined])
    starts = marks.start[heads]
    low, high = thread.data.window
    cuts = _cuts(thread, starts[:-1], starts[1:], "loader")
    if len(cuts):
        recorded = _all_recorded(thread, marks.start, cuts)
        cuts = replace(cuts, recorded=recorded, whole=np.ones(len(cuts), np.bool_))
        cuts = _gated(thread, cuts)
    cuts = _with_tail(thread, cuts, int(starts[-1]), max(high, int(marks.end[-1])))
    if len(cuts) > len(starts) - 1:
        cuts = _whole_to(cuts, last_ends(thread, cuts.start, cuts.end, cuts.recorded))
    return _with_head(thread, cuts, low)


def _joined_loads(thread: Track, marks: Scopes) -> Mask:
    """For each neighbouring pair: nothing was done with the first one's batch, if it had any."""
    events = thread.data.events
    work = thread.work
    modules = work[events.module[work] >= 0]
    used = modules if len(modules) else work
    low, high = marks.end[:-1], marks.start[1:]
    recorded = count_between(events.start[work], marks.start[:-1], high) > 0
    if thread.data.mode == "full":
        recorded = np.ones(len(low), np.bool_)
    idle = recorded & (count_between(events.start[used], low, high) == 0)
    gap = high - low
    if np.all(idle == recorded):
        idle = np.zeros(len(low), np.bool_)
    if not np.any(idle) and len(gap):
        short: Mask = ~recorded & np.asarray(gap * 20 < np.median(gap))
        return short
    return _by_analogy(gap, recorded, idle)


# ----------------------------------------------------------------------------------- calls


def _by_calls(data: RankData) -> tuple[Cuts, Track]:
    events = data.events
    operators = events.of_kind(EventKind.OPERATOR)
    modules = operators & (events.module >= 0)
    tid = busiest(data, modules if modules.any() else operators)
    thread = track(data, tid)
    calls: Calls = find_calls(thread)
    if not len(calls.start):
        return no_steps(tid), thread
    cuts = Cuts(
        start=calls.start,
        end=calls.end,
        whole=calls.whole,
        recorded=calls.whole.copy(),
        tid=tid,
        boundary=calls.boundary,
    )
    return cuts, thread


# --------------------------------------------------------------------------------- helpers


def _cuts(thread: Track, start: Ints, end: Ints, boundary: str) -> Cuts:
    whole = np.ones(len(start), np.bool_)
    whole[:1] = False
    recorded = np.full(len(start), thread.data.mode == "full")
    return Cuts(start, end, whole, recorded, thread.tid, boundary)


def _whole_from(cuts: Cuts, begin: int | None) -> Cuts:
    """The first step is whole, and begins then."""
    if begin is None:
        return cuts
    start, whole = cuts.start.copy(), cuts.whole.copy()
    start[0], whole[0] = max(int(start[0]), begin), True
    return replace(cuts, start=start, whole=whole)


def _whole_to(cuts: Cuts, end: int | None) -> Cuts:
    """The last step is whole and recorded, and ends then."""
    if end is None:
        return cuts
    ends, whole, recorded = cuts.end.copy(), cuts.whole.copy(), cuts.recorded.copy()
    ends[-1], whole[-1], recorded[-1] = end, True, True
    return replace(cuts, end=ends, whole=whole, recorded=recorded)


def _with_tail(thread: Track, cuts: Cuts, start: int, end: int) -> Cuts:
    """Add what follows the last boundary, if anything was done there."""
    return _add(cuts, start, end, at_end=True) if _busy(thread, start, end) else cuts


def _with_head(thread: Track, cuts: Cuts, start: int) -> Cuts:
    """Add what precedes the first boundary, if anything was done there."""
    end = int(cuts.start[0]) if len(cuts) else start
    return _add(cuts, start, end, at_end=False) if _busy(thread, start, end) else cuts


def _busy(thread: Track, start: int, end: int) -> bool:
    events = thread.data.events
    work = thread.work
    modules = work[events.module[work] >= 0]
    used = modules if len(modules) else work
    times = events.start[used]
    return end > start and int(np.searchsorted(times, end) - np.searchsorted(times, start)) > 0


def _add(cuts: Cuts, start: int, end: int, *, at_end: bool) -> Cuts:
    at = len(cuts) if at_end else 0
    return replace(
        cuts,
        start=np.insert(cuts.start, at, start),
        end=np.insert(cuts.end, at, end),
        whole=np.insert(cuts.whole, at, False),
        recorded=np.insert(cuts.recorded, at, False),
    )
