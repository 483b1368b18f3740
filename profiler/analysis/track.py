"""The step thread as a row of items: what the program does there, one thing after another.

An item is an outermost operator, autograd node or loader wait. Scopes that only wrap (the
optimizer's, the user's own) are looked through, because a closure may run a whole forward and
backward pass inside `optimizer.step`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from gputap.profiler.analysis.intervals import Index, Ints, Mask, outermost
from gputap.profiler.analysis.load import Events, RankData
from gputap.profiler.schema import EventKind

OPTIMIZER_STEP: Final = "Optimizer.step#"
ZERO_GRAD: Final = "Optimizer.zero_grad#"
LOADER: Final = "enumerate(DataLoader)#"
BACKWARD: Final = "autograd::engine::evaluate_function"
"""torch wraps every autograd node that it runs in an operator of this name."""

WAIT, NODE, OPERATOR = 0, 1, 2


@dataclass(frozen=True, slots=True, eq=False)
class Scopes:
    """Outermost user scopes of one sort on one thread, in order."""

    start: Ints
    end: Ints
    row: Index
    """Index into the rank's events."""

    def __len__(self) -> int:
        """Number of scopes."""
        return len(self.start)


@dataclass(frozen=True, eq=False)
class Track:
    """One thread's items and scopes."""

    data: RankData
    tid: int
    rows: Index
    """The thread's rows in the rank's events."""

    @cached_property
    def optimizer(self) -> Scopes:
        """Calls of `Optimizer.step`."""
        return self.scopes(OPTIMIZER_STEP)

    @cached_property
    def zero_grad(self) -> Scopes:
        """Calls of `Optimizer.zero_grad`."""
        return self.scopes(ZERO_GRAD)

    @cached_property
    def loader(self) -> Scopes:
        """Waits for the next batch of a DataLoader."""
        return self.scopes(LOADER)

    @cached_property
    def items(self) -> Index:
        """Rows of the items, in order."""
        mine = self._opaque[self.rows]
        rows = self.rows[mine]
        events = self.data.events
        found: Index = rows[outermost(events.start[rows], events.end[rows])]
        return found

    @cached_property
    def work(self) -> Index:
        """Items that are operators or autograd nodes, no waits."""
        found: Index = self.items[self.labels != WAIT]
        return found

    @cached_property
    def labels(self) -> npt.NDArray[np.int8]:
        """WAIT, NODE or OPERATOR for each item."""
        events = self.data.events
        labels = np.where(autograd(events)[self.items], NODE, OPERATOR).astype(np.int8)
        labels[events.starting_with(LOADER)[self.items]] = WAIT
        return labels

    def scopes(self, prefix: str) -> Scopes:
        """Outermost user scopes whose names start so."""
        events = self.data.events
        hit = events.starting_with(prefix) & events.of_kind(EventKind.USER_SCOPE)
        rows = self.rows[hit[self.rows]]
        rows = rows[outermost(events.start[rows], events.end[rows])]
        return Scopes(events.start[rows], events.end[rows], rows)

    @cached_property
    def _opaque(self) -> Mask:
        events = self.data.events
        kinds = (
            EventKind.OPERATOR,
            EventKind.AUTOGRAD,
            EventKind.TORCHSCRIPT,
            EventKind.COLLECTIVE,
        )
        return events.of_kind(*kinds) | events.starting_with(LOADER)


def autograd(events: Events) -> Mask:
    """Events that are the autograd engine running a node."""
    return events.of_kind(EventKind.AUTOGRAD) | events.starting_with(BACKWARD)


def track(data: RankData, tid: int) -> Track:
    """The items of thread `tid`."""
    low, high = np.searchsorted(data.events.tid, [tid, tid + 1])
    return Track(data, tid, np.arange(low, high, dtype=np.intp))


def busiest(data: RankData, hit: Mask) -> int:
    """Thread with most of the events in `hit`, the main one if it shares the lead; -1 if none."""
    tids, counts = np.unique(data.events.tid[hit], return_counts=True)
    if not len(tids):
        return -1
    leading = tids[counts == counts.max()]
    return data.main_tid if data.main_tid in leading else int(leading[0])


def count_between(sorted_times: Ints, lo: Ints, hi: Ints) -> Ints:
    """How many of the times lie in each window `[lo, hi)`."""
    found = np.searchsorted(sorted_times, hi) - np.searchsorted(sorted_times, lo)
    counts: Ints = np.maximum(found, 0).astype(np.int64)
    return counts
