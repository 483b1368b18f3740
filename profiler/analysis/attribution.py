"""Which module and which Python stack every event belongs to, backward pass included.

Autograd nodes run without Python frames. A node carries the sequence number of the forward
operator that made it: of the operators with that number on the forward thread, the last one. What
runs inside a node inherits from it, and so does what the engine itself runs around it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gputap.profiler.analysis.intervals import Index, Ints, Mask
from gputap.profiler.analysis.load import Codes, RankData
from gputap.profiler.analysis.track import autograd
from gputap.profiler.schema import EventKind


@dataclass(frozen=True, slots=True, eq=False)
class Attribution:
    """One element per event of the rank."""

    module: Codes
    """Index into `Events.modules`, -1 if none."""
    stack_id: Codes
    """-1 if none."""
    backward: Mask
    """True for autograd nodes and all that runs inside them."""


def attribute(data: RankData, step_tid: int) -> Attribution:
    """Own module and stack where an event has them, else those of its forward operator."""
    events, parent = data.events, data.nesting.parent
    nodes = autograd(events)
    backward = spread(nodes, parent)
    module, stack = events.module.copy(), events.stack_id.copy()
    source = _forward_of(data, nodes, backward, step_tid)
    joined = np.flatnonzero(source >= 0)
    module[joined] = events.module[source[joined]]
    stack[joined] = events.stack_id[source[joined]]
    _from_node(module, parent, nodes)
    _from_node(stack, parent, nodes)
    _inherit(module, parent, backward)
    _inherit(stack, parent, backward)
    return Attribution(module, stack, backward)


def spread(mask: Mask, parent: Index) -> Mask:
    """Mark all that lies inside marked events."""
    result: Mask = mask.copy()
    open_rows = np.flatnonzero(~result & (parent >= 0))
    while len(open_rows):
        hit = result[parent[open_rows]]
        if not hit.any():
            break
        result[open_rows[hit]] = True
        open_rows = open_rows[~hit]
    return result


def _from_node(values: Codes, parent: Index, nodes: Mask) -> None:
    """Give what the engine does around a node, such as the sum for a bias, the node's value."""
    rows = np.flatnonzero(nodes & (values >= 0) & (parent >= 0))[::-1]
    rows = rows[nodes[parent[rows]] & (values[parent[rows]] < 0)]
    values[parent[rows]] = values[rows]  # the first of several is written last


def _inherit(values: Codes, parent: Index, backward: Mask) -> None:
    """Fill unknown values of the backward pass from the surrounding event, in place."""
    rows = np.flatnonzero((values < 0) & (parent >= 0) & backward)
    while len(rows):
        taken = values[parent[rows]]
        known = taken >= 0
        if not known.any():
            break
        values[rows[known]] = taken[known]
        rows = rows[~known]


def _forward_of(data: RankData, nodes: Mask, backward: Mask, step_tid: int) -> Index:
    """Row of the forward operator of each autograd node, -1 if unknown."""
    events = data.events
    source = np.full(len(events), -1, np.intp)
    makers = np.flatnonzero(events.of_kind(EventKind.OPERATOR) & ~backward & (events.seq >= 0))
    wanted = np.flatnonzero(nodes & (events.seq >= 0))
    if not len(makers) or not len(wanted):
        return source
    tids = np.unique(events.tid)
    keys = _key(events.seq[makers], events.tid[makers], tids)
    order = np.argsort(keys, kind="stable")  # rows ascend by start, so the last of a key is latest
    keys, makers = keys[order], makers[order]
    forward_tid = np.where(events.fwd_tid[wanted] >= 0, events.fwd_tid[wanted], step_tid)
    asked = _key(events.seq[wanted], forward_tid.astype(np.int32), tids)
    at = np.searchsorted(keys, asked, side="right") - 1
    found = (at >= 0) & (keys[at] == asked)
    source[wanted[found]] = makers[at[found]]
    return source


def _key(seq: Ints, tid: Codes, tids: Codes) -> Ints:
    return seq * len(tids) + np.searchsorted(tids, tid)
