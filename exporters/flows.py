"""Arrows from the operator of the forward pass to the autograd node that it gave rise to."""

from __future__ import annotations

from typing import Final

import numpy as np

from gputap.exporters.nesting import Ints
from gputap.exporters.source import NULL, Columns
from gputap.exporters.span_tree import engine_calls

_RANK_BITS: Final = 40


def forward_backward(events: Columns, rank: int) -> tuple[Ints, Ints]:
    """Flow id that leaves, and that arrives at, each event; 0 for none.

    Autograd numbers its nodes as they are made, so several operators inside one another carry the
    number of the node that the innermost makes: the last one to start has it. A node that runs
    twice gets the arrow the first time.
    """
    outgoing = np.zeros(len(events), np.int64)
    incoming = outgoing.copy()
    seq, start = events.ints["seq"], events.start_ns
    kinds = events.texts["kind"]
    numbered = (seq != NULL) & (seq >= 0)
    forward = np.flatnonzero(
        numbered & kinds.lookup(np.array([w == "operator" for w in kinds.words], bool), False)
        & ~engine_calls(events)
    )  # fmt: skip
    backward = np.flatnonzero(
        numbered & kinds.lookup(np.array([w == "autograd" for w in kinds.words], bool), False)
    )
    if not len(forward) or not len(backward):
        return outgoing, incoming
    threads = events.ints["tid"][forward]
    wanted = events.ints["fwd_tid"][backward]
    # An unknown forward thread is taken for the busiest one.
    busiest = np.bincount(np.unique(threads, return_inverse=True)[1]).argmax()
    wanted = np.where(wanted == NULL, np.unique(threads)[busiest], wanted)
    key = np.concatenate([_key(seq[forward], threads), _key(seq[backward], wanted)])
    _, key = np.unique(key, return_inverse=True)
    rows = np.concatenate([forward, backward])
    is_backward = np.arange(len(rows)) >= len(forward)
    order = np.lexsort((start[rows], is_backward, key))
    # The last forward operator of a number, directly followed by its first node.
    same = key[order][1:] == key[order][:-1]
    pair = np.flatnonzero(same & ~is_backward[order][:-1] & is_backward[order][1:])
    source, sink = rows[order[pair]], rows[order[pair + 1]]
    later = start[sink] >= start[source]
    source, sink = source[later], sink[later]
    ids = (rank + 1) * (1 << _RANK_BITS) + np.arange(1, len(source) + 1)
    outgoing[source] = ids
    incoming[sink] = ids
    return outgoing, incoming


def _key(seq: Ints, tid: Ints) -> Ints:
    """One number for both; thread ids are below 2**22."""
    return seq * (1 << 22) + (tid & ((1 << 22) - 1))
