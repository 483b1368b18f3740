"""What each piece of the GPU's work was done for: the CUDA call, operator, module and step.

A kernel has the correlation id of the call that launched it; the call lies, on its thread, inside
an operator; the rest is known of that operator. A kernel of a CUDA graph has the id of the graph's
launch.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from gputap.profiler import schema
from gputap.profiler.analysis.attribution import Attribution
from gputap.profiler.analysis.device_load import Calls, Device
from gputap.profiler.analysis.intervals import Index, Ints, Mask, containing
from gputap.profiler.analysis.load import Codes, RankData
from gputap.profiler.analysis.steps import Cuts
from gputap.profiler.columns import booleans, dictionary, numbers, strings
from gputap.profiler.schema import EventKind

if TYPE_CHECKING:
    import pyarrow as pa

_KINDS = (
    EventKind.OPERATOR,
    EventKind.AUTOGRAD,
    EventKind.TORCHSCRIPT,
    EventKind.COLLECTIVE,
    EventKind.USER_SCOPE,
)


class Unjoined(IntEnum):
    """Why a piece of work has no operator."""

    JOINED = 0
    NO_CALL = 1
    """Its call is not in the capture: made before the window, or its record was lost."""
    NOT_RECORDED = 2
    """The call was made while operators were not recorded."""
    NO_OPERATOR = 3
    """The call was made outside any operator."""
    EDGE = 4
    """The call was made before the first whole operator of its thread: the window cut it."""


@dataclass(frozen=True, slots=True, eq=False)
class Launches:
    """For each row of the device, what it was done for; -1 means unknown."""

    call: Index
    """Row of `Calls`."""
    event: Index
    """Row of the rank's events: the innermost one around the call."""
    step: Index
    """By the time of the call; of the work itself where there is no call."""
    why: npt.NDArray[np.int8]
    """An `Unjoined`."""

    def counts(self) -> dict[str, int]:
        """Rows by reason, only reasons that occur."""
        found = np.bincount(self.why, minlength=len(Unjoined)).tolist()
        return {reason.name.lower(): found[reason] for reason in Unjoined if found[reason]}


def join(
    data: RankData, cuts: Cuts, recorded: tuple[Ints, Ints], device: Device, calls: Calls
) -> Launches:
    """Join a rank's device rows. `recorded` are stretches in which operators were recorded."""
    call = call_of(device, calls)
    around = innermost(data, calls)
    has_call = call >= 0
    event = (
        np.where(has_call, around[call], -1) if len(calls) else np.full(len(device), -1, np.intp)
    )
    when = np.where(has_call, calls.start[call], device.start) if len(calls) else device.start
    inside = containing(when, *recorded) >= 0
    early = has_call & _before_first(data, calls)[call] if len(calls) else ~has_call
    why = np.select(
        [event >= 0, ~has_call, ~inside, early],
        [Unjoined.JOINED, Unjoined.NO_CALL, Unjoined.NOT_RECORDED, Unjoined.EDGE],
        Unjoined.NO_OPERATOR,
    ).astype(np.int8)
    return Launches(call, event, containing(when, cuts.start, cuts.end), why)


def _before_first(data: RankData, calls: Calls) -> Mask:
    """Calls before the first event of their thread, where it has any."""
    tids, first = np.unique(data.events.tid, return_index=True)  # sorted by thread and start
    if not len(tids):
        return np.zeros(len(calls), np.bool_)
    at = np.minimum(np.searchsorted(tids, calls.tid), len(tids) - 1)
    early: Mask = (tids[at] == calls.tid) & (calls.start < data.events.start[first[at]])
    return early


def call_of(device: Device, calls: Calls) -> Index:
    """Row of the call that each piece of work has its correlation id from; -1 if none."""
    if not len(calls):
        return np.full(len(device), -1, np.intp)
    order = np.argsort(calls.correlation, kind="stable")
    ids = calls.correlation[order]
    at = np.searchsorted(ids, device.correlation)
    found = (ids.take(at, mode="clip") == device.correlation) & (device.correlation >= 0)
    return np.where(found, order.take(at, mode="clip"), -1)


class OnThreads(Protocol):
    """Rows with a time on a thread, such as `Calls`."""

    @property
    def start(self) -> Ints:
        """Start, unix time in ns."""

    @property
    def end(self) -> Ints:
        """End."""

    @property
    def tid(self) -> Codes:
        """Thread."""

    def __len__(self) -> int:
        """Number of rows."""


def innermost(data: RankData, calls: OnThreads) -> Index:
    """Row of the innermost event around each call on its thread; -1 if none."""
    events, parent = data.events, data.nesting.parent
    rows = np.flatnonzero(events.of_kind(*_KINDS))
    found = np.full(len(calls), -1, np.intp)
    if not len(rows):
        return found
    # Rows ascend by thread and start: the last one that began before the call, then outwards.
    tids = np.unique(events.tid[rows])
    origin = int(min(events.start[rows].min(), calls.start.min() if len(calls) else 0))
    span = int(max(events.end[rows].max(), calls.end.max() if len(calls) else 0)) - origin + 1
    if span * (len(tids) + 1) >= 1 << 62:
        return found
    key = np.searchsorted(tids, events.tid[rows]) * span + (events.start[rows] - origin)
    mine = np.isin(calls.tid, tids)
    asked = np.searchsorted(tids, calls.tid) * span + (calls.start - origin)
    at = np.searchsorted(key, asked, side="right") - 1
    candidate = np.where(mine & (at >= 0), rows[at], -1)
    candidate[(candidate >= 0) & (events.tid[candidate] != calls.tid)] = -1
    open_calls = np.flatnonzero(candidate >= 0)
    while len(open_calls):
        row = candidate[open_calls]
        holds = events.end[row] >= calls.end[open_calls]
        found[open_calls[holds]] = row[holds]
        open_calls = open_calls[~holds]
        candidate[open_calls] = parent[candidate[open_calls]]
        open_calls = open_calls[candidate[open_calls] >= 0]
    return found


def launch_table(
    data: RankData, place: Attribution, device: Device, calls: Calls, launches: Launches
) -> pa.Table:
    """Rows of `schema.LAUNCHES`: one per call that made the GPU work."""
    import pyarrow as pa

    events = data.events
    work = np.flatnonzero(device.work & (launches.call >= 0))
    used, of_row = np.unique(launches.call[work], return_inverse=True)
    length = device.end[work] - device.start[work]
    event = np.full(len(used), -1, np.intp)
    event[of_row] = launches.event[work]
    step = np.full(len(used), -1, np.intp)
    step[of_row] = launches.step[work]
    first = np.full(len(used), np.iinfo(np.int64).max)
    np.minimum.at(first, of_row, device.start[work])
    busy = np.bincount(of_row, weights=length, minlength=len(used)).astype(np.int64)
    pieces = np.bincount(of_row, minlength=len(used))
    known = event >= 0
    module, name = (np.full(len(used), -1, np.int32) for _ in range(2))
    module[known], name[known] = place.module[event[known]], events.name[event[known]]
    backward = np.zeros(len(used), np.bool_)
    backward[known] = place.backward[event[known]]
    columns = {
        "correlation_id": numbers(calls.correlation[used]),
        "start_ns": numbers(calls.start[used]),
        "duration_ns": numbers((calls.end - calls.start)[used]),
        "tid": numbers(calls.tid[used]),
        "call": _texts(calls.names, calls.name[used]),
        "operator": _texts(events.names, name),
        "module": _texts(events.modules, module),
        "backward": booleans(backward, ~known),
        "step": numbers(step.astype(np.int64), step < 0),
        "device_start_ns": numbers(first),
        "device_ns": numbers(busy),
        "device_rows": numbers(pieces.astype(np.int32)),
    }
    target = schema.arrow_schema(schema.LAUNCHES)
    return pa.Table.from_arrays([columns[f.name] for f in target], schema=target)


def _texts(texts: list[str], codes: npt.NDArray[np.integer[Any]]) -> pa.DictionaryArray:
    return dictionary(codes.astype(np.int32), strings(texts))
