"""Collectives timed by their kernels: when NCCL's work ran on the GPU, by which algorithm."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gputap.profiler.analysis.attribution import spread
from gputap.profiler.analysis.device_load import COMMUNICATION, Device
from gputap.profiler.analysis.intervals import Index, Ints, Mask
from gputap.profiler.analysis.launches import Launches
from gputap.profiler.analysis.load import Codes, Events, RankData
from gputap.profiler.cupti.nccl_names import collective
from gputap.profiler.schema import DeviceKind, EventKind

# What t in `bytes / t` means, and by what the bus is busier than the algorithm: nccl-tests.
_TOTAL_IS_OF_ALL_RANKS = frozenset({"all_gather", "gather"})
_PARTS = frozenset({"all_gather", "reduce_scatter", "all_to_all", "gather", "scatter"})


@dataclass(frozen=True, slots=True, eq=False)
class OnDevice:
    """For each collective: its kernels' first start and last end; start 0 where none is known."""

    start: Ints
    end: Ints
    algorithm: list[str | None]
    protocol: list[str | None]

    @property
    def known(self) -> Mask:
        """Collectives with at least one kernel."""
        seen: Mask = self.start > 0
        return seen


def on_device(data: RankData, launches: Launches, found: Events) -> OnDevice | None:
    """The kernels of collectives, which are sorted by start; None below level `device`.

    A kernel belongs to the last collective that began on its launch's thread before the launch,
    where that lies in a call of torch's distributed package. Of collectives that NCCL runs in one
    kernel (a group) the last has it.
    """
    device, calls = data.device, data.calls
    if device is None or calls is None:
        return None
    kernels = device.of_kind(DeviceKind.KERNEL) & device.of_category(COMMUNICATION)
    rows = np.flatnonzero(kernels & (launches.event >= 0))
    rows = rows[in_collective(data)[launches.event[rows]]]
    call = launches.call[rows]
    owner = _last_before(found, calls.tid[call], calls.start[call])
    rows, owner = rows[owner >= 0], owner[owner >= 0]
    return summed(device, rows, owner, len(found))


def in_collective(data: RankData) -> Mask:
    """Events that are or lie inside one of kind `collective`."""
    return spread(data.events.of_kind(EventKind.COLLECTIVE), data.nesting.parent)


def _last_before(found: Events, tid: Codes, time: Ints) -> Index:
    """Row of the last collective of each thread that began by each time; -1 if none."""
    out = np.full(len(time), -1, np.intp)
    for thread in np.unique(tid).tolist():
        mine = np.flatnonzero(found.tid == thread)
        asked = np.flatnonzero(tid == thread)
        at = np.searchsorted(found.start[mine], time[asked], side="right") - 1
        out[asked[at >= 0]] = mine[at[at >= 0]]
    return out


def summed(device: Device, rows: Index, owner: Index, count: int) -> OnDevice:
    """The kernels `rows` of the device put together by the collective that `owner` says."""
    start = np.full(count, np.iinfo(np.int64).max)
    end = np.zeros(count, np.int64)
    np.minimum.at(start, owner, device.start[rows])
    np.maximum.at(end, owner, device.end[rows])
    start[end == 0] = 0
    kinds = {code: collective(device.names[code]) for code in np.unique(device.name[rows]).tolist()}
    algorithm: list[str | None] = [None] * count
    protocol: list[str | None] = [None] * count
    for at, code in zip(owner.tolist(), device.name[rows].tolist(), strict=True):
        known = kinds[code]
        if known is not None:
            algorithm[at], protocol[at] = known.algo, known.proto
    return OnDevice(start, end, algorithm, protocol)


def bandwidths(
    op: str, size: int | None, ranks: int | None, duration_ns: float
) -> tuple[float | None, float | None]:
    """Algorithm and bus bandwidth in bytes per second, by nccl-tests; Nones where not known.

    `size` is the payload of one rank's input.
    """
    if not size or not ranks or duration_ns <= 0:
        return None, None
    total = size * ranks if op in _TOTAL_IS_OF_ALL_RANKS else size
    algorithm = total / duration_ns * 1e9
    if op == "all_reduce":
        return algorithm, algorithm * 2 * (ranks - 1) / ranks
    return algorithm, algorithm * ((ranks - 1) / ranks if op in _PARTS else 1)
