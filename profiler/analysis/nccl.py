"""Collectives that libraries other than torch asked NCCL for: rows for the `collectives` table."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from gputap.profiler.analysis.collective_device import in_collective, summed
from gputap.profiler.analysis.device_load import COMMUNICATION
from gputap.profiler.analysis.intervals import Index, Ints, Mask, containing
from gputap.profiler.analysis.launches import innermost
from gputap.profiler.analysis.load import Codes, RankData, codes, integers
from gputap.profiler.schema import DeviceKind

if TYPE_CHECKING:
    import pyarrow as pa

    from gputap.profiler.analysis.launches import Launches
    from gputap.profiler.analysis.steps import Cuts

NCCL_COLUMNS: Final = (
    "start_ns", "duration_ns", "tid", "op", "dtype", "bytes", "comm_size", "comm_rank",
    "communicator", "device_id", "return_value",
)  # fmt: skip

_ACCEPTED: Final = (0, 7)
"""ncclSuccess and ncclInProgress."""


@dataclass(frozen=True, slots=True, eq=False)
class NcclCalls:
    """Rows of `nccl_calls` by thread and start; -1 means none."""

    start: Ints
    end: Ints
    tid: Codes
    op: Codes
    ops: list[str]
    dtype: Codes
    dtypes: list[str]
    bytes: Ints
    size: Ints
    rank: Ints
    communicator: Codes
    communicators: list[str]
    device: Ints
    result: Ints

    def __len__(self) -> int:
        """Number of calls, ends of groups among them."""
        return len(self.start)

    def take(self, rows: Index) -> NcclCalls:
        """Some of the rows."""
        names = (
            "start", "end", "tid", "op", "dtype", "bytes", "size", "rank", "communicator",
            "device", "result",
        )  # fmt: skip
        return replace(self, **{name: getattr(self, name)[rows] for name in names})


def nccl_calls(table: pa.Table) -> NcclCalls:
    """Columns of a `nccl_calls` table (`schema.NCCL_CALLS`)."""
    start = integers(table, "start_ns", 0)
    op, ops = codes(table, "op")
    dtype, dtypes = codes(table, "dtype")
    communicator, communicators = codes(table, "communicator")
    found = NcclCalls(
        start=start,
        end=start + integers(table, "duration_ns", 0),
        tid=integers(table, "tid", -1).astype(np.int32),
        op=op,
        ops=ops,
        dtype=dtype,
        dtypes=dtypes,
        bytes=integers(table, "bytes", -1),
        size=integers(table, "comm_size", -1),
        rank=integers(table, "comm_rank", -1),
        communicator=communicator,
        communicators=communicators,
        device=integers(table, "device_id", -1),
        result=integers(table, "return_value", -1),
    )
    return found.take(np.lexsort((found.start, found.tid)))


def nccl_columns(data: RankData, cuts: Cuts, launches: Launches | None) -> dict[str, Any] | None:
    """Columns of `schema.COLLECTIVES`, by start, with `launches` timed by kernels; None if none.

    `seq` counts from the window's start.
    """
    if data.nccl is None:
        return None
    calls = data.nccl.take(np.flatnonzero(~_told_by_torch(data, data.nccl)))
    asked = np.flatnonzero((calls.op >= 0) & np.isin(calls.result, _ACCEPTED))
    if not len(asked):
        return None
    found = calls.take(asked[np.argsort(calls.start[asked], kind="stable")])
    start, end = found.start, found.end
    timed = np.zeros(len(found), np.bool_)
    algorithm: list[str | None] = [None] * len(found)
    protocol: list[str | None] = [None] * len(found)
    if launches is not None and data.device is not None and data.calls is not None:
        rows, owner = _kernels(data, calls, found, launches)
        gpu = summed(data.device, rows, owner, len(found))
        timed, algorithm, protocol = gpu.known, gpu.algorithm, gpu.protocol
        start, end = np.where(timed, gpu.start, start), np.where(timed, gpu.end, end)
    step = containing(found.start, cuts.start, cuts.end)
    return {
        "start_ns": start,
        "duration_ns": end - start,
        "enqueued_ns": found.start,
        "tid": found.tid,
        "op": _words(found.op, found.ops),
        "backend": ["nccl"] * len(found),
        "group_name": [None] * len(found),
        "seq": list(range(len(found))),
        "bytes": _or_none(found.bytes),
        "dtype": _words(found.dtype, found.dtypes),
        "world_size": _or_none(found.size),
        "group_rank": _or_none(found.rank),
        "communicator": _words(found.communicator, found.communicators),
        "step": _or_none(step),
        "algorithm": algorithm,
        "protocol": protocol,
        "timing_source": ["device" if known else "host_call" for known in timed.tolist()],
    }


def _told_by_torch(data: RankData, calls: NcclCalls) -> Mask:
    """Calls of a process group that is not in torch's own libraries: torch tells of them, too.

    Where operators were recorded such a call lies in torch's; its communicator is the group's.
    """
    around = innermost(data, calls)
    inside = np.zeros(len(calls), np.bool_)
    known = around >= 0
    inside[known] = in_collective(data)[around[known]]
    groups = np.unique(calls.communicator[inside & (calls.communicator >= 0)])
    return inside | np.isin(calls.communicator, groups)


def _words(numbers: Codes, words: list[str]) -> list[str | None]:
    return [words[code] if code >= 0 else None for code in numbers.tolist()]


def _or_none(values: Ints | Index) -> list[int | None]:
    return [value if value >= 0 else None for value in values.tolist()]


def _kernels(
    data: RankData, calls: NcclCalls, found: NcclCalls, launches: Launches
) -> tuple[Index, Index]:
    """Communication kernels that were launched inside a call of NCCL, and whose they are.

    Within a group the kernels are launched at its end: the last call before on the same device
    has them.
    """
    device, cuda = data.device, data.calls
    assert device is not None
    assert cuda is not None
    kernels = device.of_kind(DeviceKind.KERNEL) & device.of_category(COMMUNICATION)
    rows = np.flatnonzero(kernels & (launches.call >= 0))
    tid, time = cuda.tid[launches.call[rows]], cuda.start[launches.call[rows]]
    owner = np.full(len(rows), -1, np.intp)
    for thread in np.unique(tid).tolist():
        mine = calls.tid == thread
        inside = (tid == thread) & (containing(time, calls.start[mine], calls.end[mine]) >= 0)
        for number in np.unique(device.device[rows[inside]]).tolist():
            asked = np.flatnonzero(inside & (device.device[rows] == number))
            own = np.flatnonzero((found.tid == thread) & np.isin(found.device, (number, -1)))
            at = np.searchsorted(found.start[own], time[asked], side="right") - 1
            owner[asked[at >= 0]] = own[at[at >= 0]]
    return rows[owner >= 0], owner[owner >= 0]
