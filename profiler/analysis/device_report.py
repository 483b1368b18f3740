"""What a rank's GPUs add to its report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from gputap.profiler.analysis.attribution import Attribution
from gputap.profiler.analysis.device_time import (
    DeviceTime,
    Spans,
    busy_per_step,
    device_by_place,
    device_time,
)
from gputap.profiler.analysis.intervals import Ints, Mask
from gputap.profiler.analysis.launches import Launches, join, launch_table
from gputap.profiler.analysis.load import RankData
from gputap.profiler.analysis.operators import OpTotal
from gputap.profiler.analysis.steps import Cuts

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True, eq=False)
class Gpu:
    """One rank's GPUs."""

    time: DeviceTime
    """Over whole steps; over the window where there are none."""
    by_operator: dict[str, int]
    """GPU time of operators in whole recorded steps."""
    by_module: dict[str, tuple[int, int]]
    busy_ns: Ints
    """Per step."""
    launches: Launches
    table: pa.Table
    """Rows of `schema.LAUNCHES`."""

    def operators(self, totals: Sequence[OpTotal]) -> list[OpTotal]:
        """The same with their GPU time."""
        return [replace(op, device_ns=self.by_operator.get(op.name, 0)) for op in totals]


def gpu_of(data: RankData, place: Attribution, cuts: Cuts) -> Gpu | None:
    """What the GPUs of a rank did; None below level `device`."""
    device, calls = data.device, data.calls
    if device is None or calls is None:
        return None
    launches = join(data, cuts, _recorded(data, cuts), device, calls)
    good = cuts.whole & cuts.recorded
    operators, modules = device_by_place(
        data, place, device, launches, _spans(cuts, good) if good.any() else _window(data)
    )
    return Gpu(
        time=device_time(data, place, device, launches, _whole(data, cuts)),
        by_operator=operators,
        by_module=modules,
        busy_ns=busy_per_step(device, cuts.start, cuts.end),
        launches=launches,
        table=launch_table(data, place, device, calls, launches),
    )


def _whole(data: RankData, cuts: Cuts) -> Spans:
    return _spans(cuts, cuts.whole) if cuts.whole.any() else _window(data)


def _recorded(data: RankData, cuts: Cuts) -> Spans:
    """Where operators were recorded, as far as it is known."""
    return _window(data) if data.mode == "full" else _spans(cuts, cuts.recorded)


def _spans(cuts: Cuts, steps: Mask) -> Spans:
    return cuts.start[steps], cuts.end[steps]


def _window(data: RankData) -> Spans:
    start, end = data.window
    return np.array([start], np.int64), np.array([end], np.int64)
