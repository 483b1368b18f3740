"""The price of looking, measured in the same run: recorded steps against unrecorded ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from gputap.profiler.analysis.model import Overhead
from gputap.profiler.analysis.steps import Cuts

MIN_STEPS: Final = 5
"""Fewer steps of either sort give no ratio."""


def overhead(
    cuts: Cuts,
    *,
    window_ns: int,
    recorded_ns: int | None,
    pause_ns: int | None,
    events: int,
    dropped: Mapping[str, int],
) -> Overhead:
    """What the job paid. Ratios of medians: steps differ, and a few slow ones say nothing."""
    duration = cuts.end - cuts.start
    recorded = duration[cuts.whole & cuts.recorded]
    plain = duration[cuts.whole & ~cuts.recorded]
    share = _share(len(recorded), len(plain), window_ns, recorded_ns)
    slowdown = None
    if min(len(recorded), len(plain)) >= MIN_STEPS and np.median(plain) > 0:
        slowdown = float(np.median(recorded) / np.median(plain)) - 1.0
    return Overhead(
        recorded_share=share,
        slowdown_recorded=slowdown,
        slowdown_window=None if slowdown is None else slowdown * share,
        pause_ns=pause_ns or 0,
        events=events,
        dropped={cause: count for cause, count in dropped.items() if count > 0},
    )


def _share(recorded: int, plain: int, window_ns: int, recorded_ns: int | None) -> float:
    if recorded + plain:
        return recorded / (recorded + plain)
    if recorded_ns is None or window_ns <= 0:
        return 0.0
    return min(recorded_ns / window_ns, 1.0)
