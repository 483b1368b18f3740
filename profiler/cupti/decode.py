"""CUPTI's raw records, as the agent copied them, to columns: numpy gathers, no Python per record.

What comes may be garbage, the target may be anything. Nothing here raises on any content: what
makes no sense is left out and counted by its cause. Memory is bounded by a few times the chunk's.

The records of a kind are copied whole, one behind another, and a column is a view of them: that
takes a sixth of the time that filling some thirty columns does, most of which nobody reads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from gputap.profiler.cupti import abi
from gputap.profiler.cupti.rows import (
    ABSENT,
    TABLES,
    Column,
    Rows,
    column_name,
    dtypes,
    empty,
    joined,
)

Index: TypeAlias = npt.NDArray[np.intp]
Mask: TypeAlias = npt.NDArray[np.bool_]

_KINDS: Final = 64
"""Kind numbers looked at; all that are known are below."""

_FAR: Final = np.uint64(1 << 63)
"""Times from here on are no times: signed nanoseconds end here, in the year 2262."""


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


_Counts: TypeAlias = Counter[str]
"""Of the fields of `Decoded` that count."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """How a record of one version becomes a row."""

    table: str
    needed: int
    """Bytes that a record must have."""
    fields: np.dtype[Any]
    """The fields at their places, over the `needed` bytes made a multiple of 8."""
    absent: Mapping[str, Column]
    """Columns that this record or version lacks, one value each."""
    times: tuple[str, ...]
    """Start and end, or one timestamp, or nothing."""


class _Columns(Mapping[str, Column]):
    """Columns as views of records, made when they are asked for."""

    __slots__ = ("_plan", "_records")

    def __init__(self, records: npt.NDArray[np.void], plan: _Plan) -> None:
        self._records = records
        self._plan = plan

    def __getitem__(self, name: str) -> Column:
        constant = self._plan.absent.get(name)
        if constant is not None:
            return np.broadcast_to(constant, len(self._records))
        if name not in dtypes(self._plan.table):
            raise KeyError(name)
        return self._records[name]

    def __iter__(self) -> Iterator[str]:
        return iter(dtypes(self._plan.table))

    def __len__(self) -> int:
        return len(dtypes(self._plan.table))


def decode(data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.uint32], version: int) -> Decoded:
    """The records at `offsets` in `data`; `version` is CUDA's, major * 100 + minor.

    A record ends where the next begins. The rows are copies: `data` may be overwritten after.
    """
    data = _aligned(data)
    counts: _Counts = Counter()
    at, sizes = _sound(data, np.asarray(offsets), counts)
    kinds = data.view(np.uint32).take(at >> 2)
    present = np.flatnonzero(np.bincount(np.minimum(kinds, _KINDS), minlength=_KINDS)).tolist()
    counts["unknown_kind"] = len(at)
    found: dict[str, list[Rows]] = {}
    for kind in present:
        table = _TABLE_OF_KIND.get(kind)
        if table is None:
            continue
        mine: slice | Index = slice(None) if len(present) == 1 else np.flatnonzero(kinds == kind)
        counts["unknown_kind"] -= len(at[mine])
        rows = _rows(data, at[mine], sizes[mine], kind, version, counts)
        found.setdefault(table, []).append(rows)
    values: dict[str, Any] = {table: joined(table, parts) for table, parts in found.items()}
    values |= counts
    return Decoded(**values, records=len(offsets))


_TABLE_OF_KIND: Final = {
    int(kind): table for table, rows in TABLES.items() for record in rows for kind in record.kinds
}


def _aligned(data: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The bytes in one piece of whole words, at a multiple of 8: no record ends within a word."""
    data = np.ascontiguousarray(data, np.uint8).reshape(-1)
    data = data[: len(data) & ~7]
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
        counts["bad_offset"] = len(at) - int(np.count_nonzero(good))
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
        counts["too_short"] += len(at) - int(np.count_nonzero(long_enough))
        at = at[long_enough]
    if not len(at):
        return empty(plan.table)
    # A window of the record's size at each word, of which those where a record begins are copied.
    size = plan.fields.itemsize
    windows = np.ndarray(((len(data) - size >> 3) + 1,), f"V{size}", data, 0, (8,))
    records = _with_times(windows[at >> 3].view(plan.fields), plan, counts)
    return Rows(len(records), _Columns(records, plan))


def _with_times(
    records: npt.NDArray[np.void], plan: _Plan, counts: _Counts
) -> npt.NDArray[np.void]:
    """The records whose times make sense."""
    if not plan.times:
        return records
    first, last = records[plan.times[0]], records[plan.times[-1]]
    good = (first != 0) & (first <= last) & (last < _FAR)
    if good.all():
        return records
    _count_times(first, last, counts)
    # As bytes: records of fields would be copied field by field.
    kept: npt.NDArray[np.void] = records.view(f"V{records.itemsize}")[good].view(plan.fields)
    return kept


def _count_times(first: Column, last: Column, counts: _Counts) -> None:
    """Count each record whose times make no sense under one cause."""
    zero = (first == 0) | (last == 0)
    unreal = ((first >= _FAR) | (last >= _FAR)) & ~zero
    counts["zero_times"] += int(np.count_nonzero(zero))
    counts["unreal_times"] += int(np.count_nonzero(unreal))
    counts["backwards"] += int(np.count_nonzero((last < first) & ~zero & ~unreal))


@lru_cache(maxsize=256)  # bounded, since a garbage chunk may claim any version
def _plan(kind: int, version: int) -> _Plan:
    """How records of `kind` are read in `version`."""
    table, record = _TABLE_OF_KIND[kind], abi.BY_KIND[abi.ActivityKind(kind)]
    has = max(divmod(int(version), 100), abi.OLDEST)
    fields = [f for f in record.fields if f.since <= has]
    there = {column_name(f.name): f for f in fields}
    needed = max(f.offset + np.dtype(f.type).itemsize for f in fields)
    return _Plan(
        table=table,
        needed=needed,
        fields=np.dtype(
            {
                "names": ["kind", *there],
                "formats": ["<u1", *(f.type for f in fields)],
                "offsets": [0, *(f.offset for f in fields)],  # the lowest byte is all of a kind
                "itemsize": needed + 7 & ~7,
            }
        ),
        absent={
            name: np.array(ABSENT.get(name, 0), dtype)
            for name, dtype in dtypes(table).items()
            if name != "kind" and name not in there
        },
        times=tuple(name for name in ("start", "end", "timestamp") if name in there),
    )
