"""Compilations by torch.compile while the window was open.

From the marks that torch leaves where its own profiler runs too; else from its counters, read in
the target before and after the window, which say how many and how long but not when.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from gputap.profiler.analysis.intervals import outermost
from gputap.profiler.analysis.load import RankData

FRAME_COMPILE: Final = ("entire_frame_compile", "_compile.compile_inner")
BACKWARD_COMPILE: Final = ("entire_backward_compile", "compile_fx.<locals>.bw_compiler")


_COUNTER: Final = "_compile.compile_inner"

Compilation = tuple[str, int | None, int]
"""Kind, start (None where only counters are known) and length in ns."""


def compilations(data: RankData, target: Mapping[str, Any]) -> tuple[Compilation, ...]:
    """Each compilation of a frame or of a backward graph."""
    return _marked(data) or _counted(target)


def _counted(target: Mapping[str, Any]) -> tuple[Compilation, ...]:
    """Compilations of frames as the difference of two readings, each of the mean length."""
    before, after = (_reading(target.get(f"counters_{when}")) for when in ("before", "after"))
    count, seconds = after[0] - before[0], after[1] - before[1]
    if count <= 0 or seconds < 0:
        return ()
    return (("forward", None, round(seconds * 1e9 / count)),) * count


def _reading(counters: Any) -> tuple[int, float]:
    """How many compilations, and how many seconds of them, up to a reading."""
    times = counters.get("compile_s") if isinstance(counters, Mapping) else None
    found = times.get(_COUNTER) if isinstance(times, Mapping) else None
    if not (isinstance(found, list) and len(found) == 2):
        return 0, 0.0
    count, seconds = found
    if not (isinstance(count, int) and isinstance(seconds, int | float)):
        return 0, 0.0
    return min(count, 10_000), float(seconds)


def _marked(data: RankData) -> tuple[Compilation, ...]:
    found: list[tuple[str, int, int]] = []
    for kind, names in (("forward", FRAME_COMPILE), ("backward", BACKWARD_COMPILE)):
        events = data.events
        rows = np.flatnonzero(events.starting_with(names) & ~events.starting_with(_noise(names)))
        rows = rows[np.argsort(events.start[rows], kind="stable")]
        rows = rows[outermost(events.start[rows], events.end[rows])]
        length = events.end[rows] - events.start[rows]
        found += [
            (kind, s, n) for s, n in zip(events.start[rows].tolist(), length.tolist(), strict=True)
        ]
    return tuple(sorted(found, key=lambda c: c[1]))


def _noise(names: tuple[str, ...]) -> tuple[str, ...]:
    """torch also writes a short `..._data: ...` mark for each."""
    return tuple(f"{name}_data" for name in names)
