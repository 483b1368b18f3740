"""CUPTI's raw records, as the agent copied them, to columns: numpy gathers, no Python per record.

What comes may be garbage, the target may be anything. Nothing here raises on any content: what
makes no sense is left out and counted by its cause. Memory is bounded by a few times the chunk's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from gputap.profiler.cupti import abi
from gputap.profiler.cupti.rows import ABSENT, TABLES, Column, Rows, column_name, empty, joined

Index: TypeAlias = npt.NDArray[np.intp]
Mask: TypeAlias = npt.NDArray[np.bool_]

_KINDS: Final = 64
"""Kind numbers looked at; all that are known are below."""

_FAR: Final = np.uint64(1 << 63)
"""Times from here on are no times: signed nanoseconds end here, in the year 2262."""

_SLICE: Final = 1 << 12
"""Records gathered at once: 1 MB of kernels, so that their bytes stay in the CPU's cache."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """The records of a chunk by what they are. Only rows whose times make sense are in."""

    kernels: Rows = field(default_factory=lambda: empty("kernels"))
    memcpys: Rows = field(default_factory=lambda: empty("memcpys"))
    """Copies of both kinds of record; `src_device_id` and so on are `NO_ID` but for peers."""
    memsets: Rows = field(default_factory=lambda: empty("memsets"))
    syncs: Rows = field(default_factory=lambda: empty("syncs"))
    overheads: Rows = field(default_factory=lambda: empty("overheads"))
    api_calls: Rows = field(default_factory=lambda: empty("api_calls"))
    graph_traces: Rows = field(default_factory=lambda: empty("graph_traces"))
    memory: Rows = field(default_factory=lambda: empty("memory"))
    pools: Rows = field(default_factory=lambda: empty("pools"))
    streams: Rows = field(default_factory=lambda: empty("streams"))
    contexts: Rows = field(default_factory=lambda: empty("contexts"))
    devices: Rows = field(default_factory=lambda: empty("devices"))
    external: Rows = field(default_factory=lambda: empty("external"))

    records: int = 0
    """Offsets in the chunk: the rows of all tables and all of what is counted below."""
    unknown_kind: int = 0
    """Of a kind that is not in the ABI table."""
    too_short: int = 0
    """Smaller than the fields that its version has."""
    zero_times: int = 0
    """Start, end or timestamp 0: CUPTI dropped it, or it had not ended when it was flushed."""
    backwards: int = 0
    """Ended before it started."""
    unreal_times: int = 0
    """A time of 2^63 ns or more."""
    bad_offset: int = 0
    """Outside the data, no multiple of 8, or not below the next one."""


@dataclass(slots=True)
class _Counts:
    unknown_kind: int = 0
    too_short: int = 0
    zero_times: int = 0
    backwards: int = 0
    unreal_times: int = 0
    bad_offset: int = 0


@dataclass(frozen=True, slots=True)
class _Read:
    """How one column is filled from one kind of record."""

    column: str
    type: np.dtype[Any]
    offset: int
    """-1: the column holds `absent`."""
    absent: int


@dataclass(frozen=True, slots=True)
class _Plan:
    """How a record of one version becomes rows."""

    needed: int
    """Bytes that a record must have."""
    times: tuple[_Read, ...]
    """Start and end, or one timestamp, or nothing."""
    others: tuple[_Read, ...]


def decode(data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.uint32], version: int) -> Decoded:
    """The records at `offsets` in `data`; `version` is CUDA's, major * 100 + minor.

    A record ends where the next begins. The columns are copies: `data` may be overwritten after.
    """
    data = _aligned(data)
    counts = _Counts()
    at, sizes = _sound(data, np.asarray(offsets), counts)
    kinds = data[: len(data) & ~3].view(np.uint32).take(at >> 2)
    present = np.flatnonzero(np.bincount(np.minimum(kinds, _KINDS), minlength=_KINDS)).tolist()
    counts.unknown_kind = len(at)
    found: dict[str, list[Rows]] = {}
    for kind in present:
        table = _TABLE_OF_KIND.get(kind)
        if table is None:
            continue
        mine: slice | Index = slice(None) if len(present) == 1 else np.flatnonzero(kinds == kind)
        counts.unknown_kind -= len(at[mine])
        rows = _rows(data, at[mine], sizes[mine], kind, version, counts)
        found.setdefault(table, []).append(rows)
    values: dict[str, Any] = {table: joined(table, parts) for table, parts in found.items()}
    values |= {name: getattr(counts, name) for name in _Counts.__slots__}
    return Decoded(**values, records=len(offsets))


_TABLE_OF_KIND: Final = {
    int(kind): table for table, rows in TABLES.items() for record in rows for kind in record.kinds
}


def _aligned(data: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The bytes in one piece that begins at a multiple of 8: else every gather would copy them."""
    data = np.ascontiguousarray(data, np.uint8).reshape(-1)
    return data.copy() if data.ctypes.data % 8 else data


def _sound(
    data: npt.NDArray[np.uint8], offsets: npt.NDArray[Any], counts: _Counts
) -> tuple[Index, Index]:
    """The offsets that make sense, and the size of the record at each."""
    at = offsets.astype(np.intp).reshape(-1)
    end = np.empty_like(at)
    end[:-1] = at[1:]
    end[-1:] = len(data)
    good = (at & 7 == 0) & (at >= 0) & (at + 8 <= len(data)) & (end > at)
    if not good.all():
        counts.bad_offset = len(at) - int(np.count_nonzero(good))
        at, end = at[good], end[good]
    return at, np.minimum(end, len(data)) - at


def _rows(
    data: npt.NDArray[np.uint8],
    at: Index,
    sizes: Index,
    kind: int,
    version: int,
    counts: _Counts,
) -> Rows:
    """Rows of the records of one kind."""
    plan = _plan(kind, version)
    long_enough = sizes >= plan.needed
    if not long_enough.all():
        counts.too_short += len(at) - int(np.count_nonzero(long_enough))
        at = at[long_enough]
    reads = (*plan.times, *plan.others)
    bases = [_base(data, read) for read in reads]
    # Filled slice by slice: an array per slice, joined at the end, costs half as much again.
    out = [np.empty(len(at), read.type) for read in reads]
    count = 0
    for i in range(0, len(at), _SLICE):
        good = _with_times(at[i : i + _SLICE], bases[: len(plan.times)], counts)
        _gather(good, reads, bases, [column[count : count + len(good)] for column in out])
        count += len(good)
    if not count:
        return empty(_TABLE_OF_KIND[kind])
    columns = {read.column: column[:count] for read, column in zip(reads, out, strict=True)}
    return Rows(count, {"kind": np.full(count, kind, np.uint8), **columns})


def _base(data: npt.NDArray[np.uint8], read: _Read) -> Column:
    """The data as numbers of the field's type, from the field's place in a record at 0 on."""
    width = read.type.itemsize
    start = max(read.offset, 0)
    return data[start : start + (len(data) - start) // width * width].view(read.type)


def _with_times(at: Index, bases: Sequence[Column], counts: _Counts) -> Index:
    """The offsets of the records whose times make sense; `bases` are of start and end, or less."""
    if not bases:
        return at
    first, last = bases[0].take(at >> 3), bases[-1].take(at >> 3)
    good = (first != 0) & (first <= last) & (last < _FAR)
    if good.all():
        return at
    _count_times(first, last, counts)
    sound: Index = at[good]
    return sound


def _gather(
    at: Index, reads: Sequence[_Read], bases: Sequence[Column], out: Sequence[Column]
) -> None:
    """Fill the columns of some records. Every offset was checked: nothing is clipped."""
    by_width = {width: at >> shift for width, shift in ((8, 3), (4, 2), (2, 1), (1, 0))}
    for read, base, column in zip(reads, bases, out, strict=True):
        if read.offset < 0:
            column[:] = read.absent
        else:  # any other mode than clip would go through a buffer
            base.take(by_width[read.type.itemsize], out=column, mode="clip")


def _count_times(first: Column, last: Column, counts: _Counts) -> None:
    """Count each record whose times make no sense under one cause."""
    zero = (first == 0) | (last == 0)
    unreal = ((first >= _FAR) | (last >= _FAR)) & ~zero
    counts.zero_times += int(np.count_nonzero(zero))
    counts.unreal_times += int(np.count_nonzero(unreal))
    counts.backwards += int(np.count_nonzero((last < first) & ~zero & ~unreal))


@lru_cache(maxsize=256)  # bounded, since a garbage chunk may claim any version
def _plan(kind: int, version: int) -> _Plan:
    """How records of `kind` are read in `version`."""
    record = abi.BY_KIND[abi.ActivityKind(kind)]
    has = max(divmod(int(version), 100), abi.OLDEST)
    own = {f.name: f for f in record.fields}
    fields = {f.name: f for r in TABLES[_TABLE_OF_KIND[kind]] for f in r.fields} | own
    reads = []
    for name, declared in fields.items():
        there = name in own and declared.since <= has
        column, dtype = column_name(name), np.dtype(declared.type)
        offset = declared.offset if there else -1
        reads.append(_Read(column, dtype, offset, ABSENT.get(column, 0)))
    times = tuple(r for name in ("start", "end", "timestamp") for r in reads if r.column == name)
    return _Plan(
        needed=max(r.offset + r.type.itemsize for r in reads),
        times=times,
        others=tuple(r for r in reads if r not in times),
    )
