"""The columns of `device` while they are put together, kind by kind; what their numbers become."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from gputap.profiler import schema
from gputap.profiler.columns import dictionary, numbers, strings
from gputap.profiler.cupti import abi
from gputap.profiler.cupti.categories import Category
from gputap.profiler.cupti.names import describe
from gputap.profiler.cupti.rows import NO_ID, Column, Rows
from gputap.profiler.schema import DEVICE, DeviceKind

if TYPE_CHECKING:
    import pyarrow as pa

ToUnix: TypeAlias = Callable[[npt.NDArray[np.int64]], npt.NDArray[np.int64]]
"""CUPTI's times to unix times, both in nanoseconds."""

Codes: TypeAlias = npt.NDArray[np.int32]
Filled: TypeAlias = Mapping[str, Column | int]
"""Values of some columns for the rows of one kind; the others are null."""

NULL: Final = {"int64": -(1 << 63), "int32": -(1 << 31), "int8": 0, "dictionary": -1}
"""Null while a column is in the making, by the column's type; there is none of int8."""

COPY_KINDS: Final = [kind.name.lower() for kind in abi.MemcpyKind]
MEMORY_KINDS: Final = [kind.name.lower() for kind in abi.MemoryKind]
CATEGORIES: Final = [category.value for category in Category]
SYNC_TYPES: Final = ["unknown", "event", "stream_wait", "stream", "context"]


class Filling:
    """The columns of `device` in the making."""

    def __init__(self, count: int, to_unix: ToUnix, texts: Sequence[str]) -> None:
        self._types = {c.name: c.type for c in DEVICE.columns}
        self._columns: dict[str, Column] = {}
        self._count = count
        self._filled = 0
        self._to_unix = to_unix
        self._texts = texts
        self._name, self._short = Texts(), Texts()

    def add(self, kind: DeviceKind, rows: Rows, filled: Filled) -> None:
        """Rows of one kind, behind those that are there."""
        if not len(rows):
            return
        to = slice(self._filled, self._filled + len(rows))
        self._filled = to.stop
        start, duration = times_of(rows, self._to_unix)
        whole = {"start_ns": start, "duration_ns": duration, "kind": int(kind), **filled}
        for name, values in whole.items():
            self._column(name)[to] = values

    def _column(self, name: str) -> Column:
        """A column, null where nothing is filled in yet. What no kind fills is never made."""
        if name not in self._columns:
            kind = self._types[name]
            codes = "int32" if kind == "dictionary" else kind
            self._columns[name] = np.full(self._count, NULL[kind], codes)
        return self._columns[name]

    def names(self, names: Sequence[str], which: Codes) -> Filled:
        """Names that are no kernels', by index: they are their own short names."""
        used = np.unique(which).tolist()
        name, short = (np.full(len(names), -1, np.int32) for _ in range(2))
        for i in used:
            name[i], short[i] = self._name.code(names[i]), self._short.code(names[i])
        return {"name": name[which], "short_name": short[which]}

    def kernel_names(self, ids: Column) -> Filled:
        """Name, short name and category of kernels."""
        count = len(self._texts)
        known = np.where(ids < count, ids, 0).astype(np.intp)
        used = np.zeros(count + 1, bool)
        used[known] = True
        used[0] = False
        name, short, category = (np.full(count + 1, -1, np.int32) for _ in range(3))
        for i in np.flatnonzero(used).tolist():
            kernel = describe(self._texts[i])
            name[i] = self._name.code(kernel.name)
            short[i] = self._short.code(kernel.short_name)
            category[i] = CATEGORIES.index(kernel.category)
        return {"name": name[known], "short_name": short[known], "category": category[known]}

    def table(self) -> pa.Table:
        """All rows, sorted."""
        import pyarrow as pa

        order = self._order()
        values = {
            "kind": strings([kind.name.lower() for kind in DeviceKind]),
            "name": self._name.values(),
            "short_name": self._short.values(),
            "category": strings(CATEGORIES),
            "copy_kind": strings(COPY_KINDS),
            "src_kind": strings(MEMORY_KINDS),
            "dst_kind": strings(MEMORY_KINDS),
            "sync_type": strings(SYNC_TYPES),
        }
        arrays = []
        target = schema.arrow_schema(DEVICE)
        for f in target:
            if f.name in self._columns:
                column = self._columns.pop(f.name).take(order)
                texts = values.get(f.name)
                arrays.append(nullable(column) if texts is None else dictionary(column, texts))
            else:
                arrays.append(pa.nulls(self._count, f.type))
        return pa.Table.from_arrays(arrays, schema=target)

    def _order(self) -> npt.NDArray[np.intp]:
        """By device, stream, start. As unsigned numbers, null comes last."""
        device, stream = (self._column(name) for name in ("device_id", "stream_id"))
        start = self._column("start_ns")
        return np.lexsort((start, stream.view(np.uint32), device.view(np.uint32)))


class Texts:
    """Strings of a dictionary column by code."""

    def __init__(self) -> None:
        self._code_of: dict[str, int] = {}

    def code(self, text: str | None) -> int:
        """The code of a text; -1, which is null, of None."""
        return -1 if text is None else self._code_of.setdefault(text, len(self._code_of))

    def values(self) -> pa.Array:
        """The texts in the order of their codes."""
        return strings(list(self._code_of))

    def column(self, codes: Codes) -> pa.Array:
        """A column of it."""
        return dictionary(codes, self.values())


class DeviceOfContext:
    """Which device a context is on, from all records that say both."""

    def __init__(self, sources: Sequence[Rows]) -> None:
        contexts = np.concatenate([rows["context_id"] for rows in sources])
        devices = np.concatenate([rows["device_id"] for rows in sources])
        self._contexts, first = np.unique(contexts, return_index=True)
        self._devices = devices[first]

    def __call__(self, contexts: Column) -> Column:
        """The device of each; null where none is known."""
        if not len(self._contexts):
            return np.full(len(contexts), NULL["int32"], np.int32)
        at = np.searchsorted(self._contexts, contexts)
        found = self._contexts.take(at, mode="clip") == contexts
        return id32(np.where(found, self._devices.take(at, mode="clip"), NO_ID))


def times_of(rows: Rows, to_unix: ToUnix) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Start and duration. Both ends are converted: the clock may be set between them."""
    start = to_unix(rows["start"].view(np.int64))
    return start, np.maximum(to_unix(rows["end"].view(np.int64)) - start, 0)


def id32(values: Column) -> Column:
    """Numbers of 32 bits; null from 2^31 on, so also for `NO_ID`."""
    return np.where(values < 1 << 31, values, 1 << 31).astype(np.uint32).view(np.int32)


def id64(values: Column, none: int | None = 0) -> Column:
    """Numbers of up to 64 bits; null from 2^63 on, and for `none`."""
    wide = np.minimum(values.astype(np.uint64), np.uint64(1 << 63)).view(np.int64)
    return wide if none is None else np.where(wide == none, NULL["int64"], wide)


def nullable(values: Column) -> pa.Array:
    """A column of numbers that are null where they are the type's `NULL`."""
    null = NULL[values.dtype.name]
    return numbers(values, values == null if null else None)


def known(values: Column, count: int) -> Codes:
    """Numbers of an enumeration; 0, which means unknown, for those beyond it."""
    return np.where(values < count, values, 0).astype(np.int32)


def null_if_unknown(values: Codes) -> Codes:
    """Numbers of an enumeration as codes: 0 becomes null."""
    return np.where(values == 0, np.int32(-1), values)
