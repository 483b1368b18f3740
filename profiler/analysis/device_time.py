"""Where the GPUs' time went: by sort of work, by kernel, by operator and by module."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from gputap.profiler.analysis.attribution import Attribution
from gputap.profiler.analysis.device_load import COMMUNICATION, Device
from gputap.profiler.analysis.intervals import Index, Ints, Mask, containing, union
from gputap.profiler.analysis.launches import Launches
from gputap.profiler.analysis.load import Codes, RankData
from gputap.profiler.analysis.model import Kernel
from gputap.profiler.cupti.categories import Category, TensorCores, tensor_cores
from gputap.profiler.schema import DeviceKind

Spans = tuple[Ints, Ints]

PARTS: Final = ("compute", "exposed_comm", "exposed_memcpy", "idle")
"""Of a GPU's time; they add up to it to the nanosecond."""


_PRODUCTS: Final = frozenset({Category.GEMM.value, Category.CONV.value, Category.ATTENTION.value})
"""Sorts of kernels that multiply matrices."""


@dataclass(frozen=True, slots=True)
class KernelTotal:
    """One kernel or sort of copy on one rank."""

    name: str
    """Short."""
    full_name: str
    kind: str
    category: str
    count: int
    total_ns: int
    max_ns: int
    top_operator: str | None
    """With most of its time."""
    top_module: str | None
    top_ns: int
    """Time for `top_operator`."""
    tensor_cores: bool | None = None
    """Of products of matrices, where the name tells; None for all others."""


@dataclass(frozen=True, slots=True, eq=False)
class DeviceTime:
    """What one rank's GPUs did within some spans of time."""

    breakdown: dict[str, int]
    """`PARTS`, over all its GPUs."""
    devices: tuple[int, ...]
    span_ns: int
    """Length of the spans."""
    kernels: tuple[KernelTotal, ...]
    unjoined: dict[str, int]
    """Pieces of work without an operator, by reason."""
    sync_ns: int = 0
    """In which some thread of the CPU waited for a GPU."""
    sync_calls: int = 0

    @property
    def busy_ns(self) -> int:
        """Time with some work, over all its GPUs."""
        return sum(ns for part, ns in self.breakdown.items() if part != "idle")


def device_time(
    data: RankData, place: Attribution, device: Device, launches: Launches, spans: Spans
) -> DeviceTime:
    """Sum up the work that began within `spans`, which are disjoint and ascend."""
    rows = np.flatnonzero(device.work & (containing(device.start, *spans) >= 0))
    numbers = tuple(int(n) for n in np.unique(device.device[device.work]).tolist())
    sync_ns, sync_calls = _waits(data, spans)
    return DeviceTime(
        breakdown=breakdown(device, spans),
        devices=numbers,
        span_ns=int((spans[1] - spans[0]).sum()),
        kernels=_kernels(data, place, device, rows, launches.event[rows]),
        unjoined=_unjoined(launches, rows),
        sync_ns=sync_ns,
        sync_calls=sync_calls,
    )


def _waits(data: RankData, spans: Spans) -> tuple[int, int]:
    """Time in calls that wait for a GPU, and how many there are."""
    calls = data.calls
    if calls is None:
        return 0, 0
    # One that makes a stream wait for an event returns at once.
    blocking = np.array(["WaitEvent" not in name for name in calls.names] + [False], np.bool_)
    rows = np.flatnonzero(calls.of_group("sync") & blocking[calls.name])
    rows = rows[(containing(calls.start[rows], *spans) >= 0)]
    length = union(calls.start[rows], calls.end[rows]).covered(*spans).sum()
    return int(length), len(rows)


def device_by_place(
    data: RankData, place: Attribution, device: Device, launches: Launches, spans: Spans
) -> tuple[dict[str, int], dict[str, tuple[int, int]]]:
    """GPU time by the operator that launched it, and by module: forward, backward.

    Counted are calls made within `spans`, whenever their work ran.
    """
    joined = np.flatnonzero(device.work & (launches.event >= 0))
    rows = joined[(containing(data.events.start[launches.event[joined]], *spans) >= 0)]
    event, length = launches.event[rows], device.end[rows] - device.start[rows]
    operators = _sums(data.events.name[event], length, data.events.names)
    return operators, _modules(data, place, event, length)


def breakdown(device: Device, spans: Spans) -> dict[str, int]:
    """`PARTS` of the spans, summed over the GPUs: what is hidden behind compute is not exposed."""
    total = dict.fromkeys(PARTS, 0)
    lengths = int((spans[1] - spans[0]).sum())
    communication = device.of_category(COMMUNICATION)
    kernels = device.of_kind(DeviceKind.KERNEL)
    for number in np.unique(device.device[device.work]).tolist():
        mine = device.work & (device.device == number)
        compute = _covered(device, mine & kernels & ~communication, spans)
        both = _covered(device, mine & kernels, spans)
        busy = _covered(device, mine, spans)
        total["compute"] += compute
        total["exposed_comm"] += both - compute
        total["exposed_memcpy"] += busy - both
        total["idle"] += lengths - busy
    return total


def busy_per_step(device: Device, start: Ints, end: Ints) -> Ints:
    """For each step: time with some work on some GPU."""
    work = device.work
    return union(device.start[work], device.end[work]).covered(start, end)


def _covered(device: Device, rows: Mask, spans: Spans) -> int:
    return int(union(device.start[rows], device.end[rows]).covered(*spans).sum())


def _kernels(
    data: RankData, place: Attribution, device: Device, rows: Index, event: Index
) -> tuple[KernelTotal, ...]:
    """Totals by whole name and kind, most time first."""
    if not len(rows):
        return ()
    key = device.name[rows].astype(np.int64) * len(DeviceKind) + device.kind[rows]
    used, of_row = np.unique(key, return_inverse=True)
    length = device.end[rows] - device.start[rows]
    count = np.bincount(of_row, minlength=len(used))
    total = np.bincount(of_row, weights=length, minlength=len(used)).astype(np.int64)
    longest = np.zeros(len(used), np.int64)
    np.maximum.at(longest, of_row, length)
    first = np.zeros(len(used), np.intp)
    first[of_row[::-1]] = rows[::-1]
    operator = _heaviest(of_row, _of(data.events.name, event), length, len(used))
    module = _heaviest(of_row, _of(place.module, event), length, len(used))
    made = []
    for i in np.argsort(-total, kind="stable").tolist():
        row = int(first[i])
        name, time = operator.get(i, (-1, 0))
        where = module.get(i, (-1, 0))[0]
        made.append(
            KernelTotal(
                name=_text(device.shorts, device.short[row]) or "(no name)",
                full_name=_text(device.names, device.name[row]) or "(no name)",
                kind=DeviceKind(int(device.kind[row])).name.lower(),
                category=_text(device.categories, device.category[row]) or "other",
                count=int(count[i]),
                total_ns=int(total[i]),
                max_ns=int(longest[i]),
                top_operator=_text(data.events.names, name),
                top_module=_text(data.events.modules, where),
                top_ns=time,
                tensor_cores=_uses_tensor_cores(device, row),
            )
        )
    return tuple(made)


def _uses_tensor_cores(device: Device, row: int) -> bool | None:
    if _text(device.categories, device.category[row]) not in _PRODUCTS:
        return None
    known = tensor_cores(_text(device.names, device.name[row]) or "")
    return None if known is TensorCores.UNKNOWN else known is TensorCores.YES


def _of(values: Codes, rows: Index) -> Codes:
    """Values at some rows, -1 where the row is -1."""
    out = np.full(len(rows), -1, np.int32)
    out[rows >= 0] = values[rows[rows >= 0]]
    return out


def _text(texts: Sequence[str], code: int) -> str | None:
    return texts[code] if code >= 0 else None


def _heaviest(group: Index, what: Codes, weight: Ints, size: int) -> dict[int, tuple[int, int]]:
    """For each group: the code with most weight, and its weight."""
    known = what >= 0
    if not known.any():
        return {}
    width = int(what.max()) + 1
    used, of_row = np.unique(group[known] * width + what[known], return_inverse=True)
    sums = np.bincount(of_row, weights=weight[known], minlength=len(used)).astype(np.int64)
    order = np.argsort(sums, kind="stable")
    return {int(used[i]) // width: (int(used[i]) % width, int(sums[i])) for i in order.tolist()}


def _sums(codes: Codes, weight: Ints, texts: Sequence[str]) -> dict[str, int]:
    sums = np.bincount(codes[codes >= 0], weights=weight[codes >= 0], minlength=len(texts))
    return {texts[i]: int(sums[i]) for i in np.flatnonzero(sums).tolist()}


def _modules(
    data: RankData, place: Attribution, event: Index, length: Ints
) -> dict[str, tuple[int, int]]:
    module, backward = place.module[event], place.backward[event]
    forward = _sums(module[~backward], length[~backward], data.events.modules)
    back = _sums(module[backward], length[backward], data.events.modules)
    return {name: (forward.get(name, 0), back.get(name, 0)) for name in forward | back}


def _unjoined(launches: Launches, rows: npt.NDArray[np.intp]) -> dict[str, int]:
    counts = Launches(launches.call, launches.event, launches.step, launches.why[rows]).counts()
    counts.pop("joined", None)
    return counts


def merge_kernels(ranks: Sequence[DeviceTime | None]) -> tuple[Kernel, ...]:
    """Kernels of all ranks by whole name, most time first."""
    by_name: dict[tuple[str, str], list[KernelTotal]] = {}
    busy = 0
    for found in ranks:
        if found is not None:
            busy += found.busy_ns
            for kernel in found.kernels:
                by_name.setdefault((kernel.kind, kernel.full_name), []).append(kernel)
    made = [_merged(kernels, busy) for kernels in by_name.values()]
    return tuple(sorted(made, key=lambda kernel: (-kernel.total_ns, kernel.full_name)))


def _merged(kernels: Sequence[KernelTotal], busy_ns: int) -> Kernel:
    top = max(kernels, key=lambda kernel: kernel.top_ns)
    count = sum(kernel.count for kernel in kernels)
    total_ns = sum(kernel.total_ns for kernel in kernels)
    return Kernel(
        name=top.name,
        full_name=top.full_name,
        kind=top.kind,
        category=top.category,
        count=count,
        total_ns=total_ns,
        mean_ns=total_ns // count,
        max_ns=max(kernel.max_ns for kernel in kernels),
        share=total_ns / busy_ns if busy_ns else 0.0,
        top_operator=top.top_operator,
        top_module=top.top_module,
    )
