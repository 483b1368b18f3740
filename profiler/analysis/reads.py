"""Values that the program reads back from tensors: `.item()`, `float(t)`, `if t:`."""

from __future__ import annotations

from typing import Final

import numpy as np

from gputap.profiler.analysis.intervals import containing
from gputap.profiler.analysis.steps import Cuts
from gputap.profiler.analysis.track import Track

READ: Final = "aten::_local_scalar_dense"
AROUND: Final = frozenset({"aten::item", "aten::is_nonzero"})


def read_backs(thread: Track, cuts: Cuts) -> tuple[int, int]:
    """Their number and time in whole recorded steps, on the step's thread.

    Left out is what torch reads for itself: in the optimizer (its step counters) and in the
    DataLoader (its seed).
    """
    events, good = thread.data.events, cuts.whole & cuts.recorded
    hit = events.named({READ, *AROUND})[thread.rows]
    rows = thread.rows[hit]
    times = events.start[rows]
    own = containing(times, cuts.start[good], cuts.end[good]) >= 0
    for scopes in (thread.optimizer, thread.loader):
        own &= containing(times, scopes.start, scopes.end) < 0
    rows = rows[own]
    number = int(np.sum(events.named({READ})[rows])) or len(rows)
    return number, int(thread.data.nesting.self_ns[rows].sum())
