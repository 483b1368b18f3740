"""Steps of a loop that has neither optimizer nor DataLoader: calls of the outermost module."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gputap.profiler.analysis.intervals import Ints, Mask
from gputap.profiler.analysis.track import Track


@dataclass(frozen=True, slots=True, eq=False)
class Calls:
    """Calls in order; each reaches to the beginning of the next."""

    start: Ints
    end: Ints
    whole: Mask
    boundary: str


def find_calls(thread: Track) -> Calls:
    """The calls."""
    none = np.zeros(0, np.int64)
    return Calls(none, none, none.astype(np.bool_), "none")
