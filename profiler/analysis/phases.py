"""Where each step's time went on the thread that runs it.

The row of items (`track.py`) falls into runs of one label; the phases are made of these:

* data_wait: every DataLoader `__next__`.
* backward: from the first to the last of consecutive autograd nodes, wherever they ran. Nodes on
  another thread count while the step thread has nothing else to do, as it waits for them.
* forward: operators of modules from the first one on, and what follows them up to the backward
  pass (the loss). Without module names, the operators right before a backward pass; in a loop
  that never goes backward, all operators.
* optimizer: `Optimizer.step` and `zero_grad`, less forward and backward passes of a closure.
* other: the rest, e.g. Python, metrics, gradient clipping, copies of the batch.

A run includes the pauses between its items. Runs never overlap, so the five add up exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gputap.profiler.analysis.collectives import collective_union
from gputap.profiler.analysis.intervals import (
    Index,
    Ints,
    Mask,
    clip_overlaps,
    containing,
    outermost,
    union,
)
from gputap.profiler.analysis.steps import Cuts
from gputap.profiler.analysis.track import NODE, OPERATOR, WAIT, Scopes, Track, autograd
from gputap.profiler.analysis.track import count_between as _count
from gputap.profiler.schema import EventKind

_OPTIMIZER = 3


@dataclass(frozen=True, slots=True, eq=False)
class StepPhases:
    """One element per step. `gap_ns` is -1 where operators were not recorded."""

    data_wait_ns: Ints
    forward_ns: Ints
    backward_ns: Ints
    optimizer_ns: Ints
    other_ns: Ints
    gap_ns: Ints
    gc_ns: Ints
    collective_ns: Ints
    micro_steps: Ints
    events: Ints


@dataclass(frozen=True, slots=True, eq=False)
class _Row:
    """Disjoint items in order, with what the phases need to know of each."""

    start: Ints
    end: Ints
    label: npt.NDArray[np.int8]
    module: Mask
    step: Index
    closure: Index
    """Which optimizer call with a backward pass in it the item is part of; -1 if none."""


@dataclass(frozen=True, slots=True, eq=False)
class _Runs:
    """Consecutive items of one label, step and closure."""

    first: Index
    last: Index
    label: npt.NDArray[np.int8]
    step: Index
    before_backward: Mask


def step_phases(thread: Track, cuts: Cuts) -> StepPhases:
    """Phases, gaps and counts of every step."""
    helpers = helper_nodes(thread)
    row, closures = _row(thread, cuts, helpers)
    runs = _runs(row)
    start, end, forward = _hulls(thread, cuts, row, runs)
    lengths = np.maximum(end - start, 0)
    backward = runs.label == NODE
    in_closure = row.closure[runs.first] >= 0
    size = len(cuts)
    items = row.end - row.start
    wait_ns = _sum(row.step, items, row.label == WAIT, size)
    forward_ns = _sum(runs.step, lengths, forward, size)
    backward_ns = _sum(runs.step, lengths, backward, size)
    optimizer_ns = _sum(row.step, items, row.label == _OPTIMIZER, size)
    optimizer_ns += _closure_rest(
        cuts, closures, row, runs, lengths, in_closure & (forward | backward)
    )
    parts = wait_ns + forward_ns + backward_ns + optimizer_ns
    duration = cuts.end - cuts.start
    gc = thread.data.events.take(thread.data.events.of_kind(EventKind.GC))
    return StepPhases(
        data_wait_ns=wait_ns,
        forward_ns=forward_ns,
        backward_ns=backward_ns,
        optimizer_ns=optimizer_ns,
        other_ns=duration - parts,
        gap_ns=np.where(cuts.recorded, duration - _covered(thread, cuts, helpers, gc), -1),
        gc_ns=union(gc.start, gc.end).covered(cuts.start, cuts.end),
        collective_ns=collective_union(thread.data).covered(cuts.start, cuts.end),
        micro_steps=_micro_steps(thread, cuts, runs),
        events=_events_in(thread, cuts),
    )


def helper_nodes(thread: Track) -> Index:
    """Outermost autograd nodes that other threads ran for this one."""
    events = thread.data.events
    nodes = autograd(events)
    nodes[thread.rows] = False
    known = events.of_kind(EventKind.AUTOGRAD) & nodes & (events.fwd_tid >= 0)
    for tid in np.unique(events.tid[known]):
        mine = known & (events.tid == tid)
        if not np.any(events.fwd_tid[mine] == thread.tid):
            nodes &= events.tid != tid
    rows = np.flatnonzero(nodes)
    same = np.concatenate([[True], events.tid[rows][1:] == events.tid[rows][:-1]])
    if len(rows) and not same.all():
        pieces = np.split(rows, np.flatnonzero(~same))
        rows = np.concatenate([p[outermost(events.start[p], events.end[p])] for p in pieces])
        return rows[np.argsort(events.start[rows], kind="stable")]
    return rows[outermost(events.start[rows], events.end[rows])]


def _row(thread: Track, cuts: Cuts, helpers: Index) -> tuple[_Row, Scopes]:
    """All items in order: operators, nodes, waits, and optimizer calls as one item each."""
    events = thread.data.events
    rows = np.concatenate([thread.items, helpers])
    label = np.concatenate([thread.labels, np.full(len(helpers), NODE, np.int8)])
    nodes = np.sort(events.start[rows[label == NODE]])
    calls = thread.optimizer
    has_backward = _count(nodes, calls.start, calls.end) > 0
    closures = Scopes(calls.start[has_backward], calls.end[has_backward], calls.row[has_backward])
    plain = np.concatenate([calls.row[~has_backward], thread.zero_grad.row])
    rows = np.concatenate([rows, plain])
    label = np.concatenate([label, np.full(len(plain), _OPTIMIZER, np.int8)])
    order = np.lexsort((label != _OPTIMIZER, -events.end[rows], events.start[rows]))
    rows, label = rows[order], label[order]
    keep = outermost(events.start[rows], events.end[rows]) | (events.tid[rows] != thread.tid)
    start, end = clip_overlaps(events.start[rows[keep]], events.end[rows[keep]])
    closure = containing(start, closures.start, closures.end)
    step = containing(start, cuts.start, cuts.end)
    inside = step >= 0
    end = np.minimum(end, np.where(inside, cuts.end[step], end)) if len(cuts) else end
    module = events.module[rows[keep]] >= 0
    row = _Row(start, end, label[keep], module, step, closure)
    return _Row(*(getattr(row, f)[inside] for f in _Row.__slots__)), closures


def _runs(row: _Row) -> _Runs:
    key = np.stack([row.label.astype(np.int64), row.step, row.closure])
    change = np.any(key[:, 1:] != key[:, :-1], axis=0)
    first = np.concatenate([[True] if len(row.start) else [], change]).astype(np.bool_).nonzero()[0]
    last = np.append(first[1:], len(row.start))[: len(first)] - 1
    label, step = row.label[first], row.step[first]
    before_backward = np.zeros(len(first), np.bool_)
    before_backward[:-1] = (label[1:] == NODE) & (step[1:] == step[:-1])
    return _Runs(first, last, label, step, before_backward)


def _hulls(thread: Track, cuts: Cuts, row: _Row, runs: _Runs) -> tuple[Ints, Ints, Mask]:
    """Start and end of each run, and which runs are forward passes."""
    start, end = row.start[runs.first], row.end[runs.last]
    operators = runs.label == OPERATOR
    places = np.arange(len(row.start))
    big = len(row.start)
    at = np.where(row.module, places, big)
    first_module = np.minimum.reduceat(at, runs.first) if big else runs.first
    last_module = np.maximum.reduceat(np.where(row.module, places, -1), runs.first) if big else at
    has_module = operators & (first_module < big)
    if big:
        start = np.where(has_module, row.start[np.minimum(first_module, big - 1)], start)
        trimmed = has_module & ~runs.before_backward
        end = np.where(trimmed, row.end[last_module], end)
    forward = operators & (has_module | runs.before_backward)
    never_backward = not np.any(runs.label == NODE) and cuts.boundary != "optimizer"
    if never_backward and not np.any(row.module):
        forward = operators
    return start, end, forward


def _closure_rest(
    cuts: Cuts, closures: Scopes, row: _Row, runs: _Runs, lengths: Ints, passes: Mask
) -> Ints:
    """Time of optimizer calls with a closure, less what ran inside as another phase."""
    step = containing(closures.start, cuts.start, cuts.end)
    inside = step >= 0
    low, high = closures.start[inside], closures.end[inside]
    step = step[inside]
    high = np.minimum(high, cuts.end[step]) if len(step) else high
    total = _sum(step, high - low, np.ones(len(step), np.bool_), len(cuts))
    total -= _sum(runs.step, lengths, passes, len(cuts))
    items = row.end - row.start
    taken = (row.closure >= 0) & ((row.label == WAIT) | (row.label == _OPTIMIZER))
    return total - _sum(row.step, items, taken, len(cuts))


def _covered(thread: Track, cuts: Cuts, helpers: Index, gc: object) -> Ints:
    """Time with an operator, a wait or a garbage collection on the thread, or a helper's node."""
    events = thread.data.events
    pauses = thread.rows[events.kind[thread.rows] == np.int8(EventKind.GC)]
    rows = np.concatenate([thread.items, helpers, pauses])
    return union(events.start[rows], events.end[rows]).covered(cuts.start, cuts.end)


def _micro_steps(thread: Track, cuts: Cuts, runs: _Runs) -> Ints:
    """Backward passes of recorded steps; of others, the waits for a batch or the usual number."""
    passes = np.bincount(runs.step[runs.label == NODE], minlength=len(cuts)).astype(np.int64)
    known = cuts.recorded & cuts.whole & (passes > 0)
    if known.any():
        fallback: Ints = np.full(len(cuts), int(np.median(passes[known])), np.int64)
    else:
        fallback = _count(thread.loader.start, cuts.start, cuts.end)
        if cuts.boundary != "optimizer":
            fallback = np.ones(len(cuts), np.int64)
    count: Ints = np.maximum(np.where(cuts.recorded, passes, fallback), 1)
    return count


def _events_in(thread: Track, cuts: Cuts) -> Ints:
    """Events of all threads that begin in each step."""
    events = thread.data.events
    total = _count(np.sort(thread.data.flights.start), cuts.start, cuts.end)
    edges = np.flatnonzero(np.diff(events.tid)) + 1
    for piece in np.split(events.start, edges):
        total += _count(piece, cuts.start, cuts.end)
    return total


def _sum(step: Index, length: Ints, mask: Mask, size: int) -> Ints:
    """Sum of lengths per step, exact below 2**53 ns."""
    return np.bincount(step[mask], weights=length[mask], minlength=size).astype(np.int64)
