"""Compilations by torch.compile while the window was open, from the marks torch itself leaves."""

from __future__ import annotations

from typing import Final

import numpy as np

from gputap.profiler.analysis.intervals import outermost
from gputap.profiler.analysis.load import RankData

FRAME_COMPILE: Final = ("entire_frame_compile", "_compile.compile_inner")
BACKWARD_COMPILE: Final = ("entire_backward_compile", "compile_fx.<locals>.bw_compiler")


def compilations(data: RankData) -> tuple[tuple[str, int, int], ...]:
    """Each compilation of a frame or of a backward graph: its kind, start and length."""
    found = []
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
