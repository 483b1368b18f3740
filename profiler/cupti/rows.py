"""Rows of decoded records: columns of equal length, and which columns each table has."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from gputap.profiler.cupti import abi

Column: TypeAlias = npt.NDArray[Any]

NO_ID: Final = 0xFFFFFFFF
"""Where a record has no such device, context or stream; CUPTI's own value for it too."""

NO_PRIORITY: Final = -(1 << 31)
"""Priority of a kernel where CUPTI does not tell (before 13.1): 0 and -1 are real priorities."""

TABLES: Final[Mapping[str, tuple[abi.Record, ...]]] = {
    "kernels": (abi.KERNEL,),
    "memcpys": (abi.MEMCPY, abi.MEMCPY_PTOP),
    "memsets": (abi.MEMSET,),
    "syncs": (abi.SYNCHRONIZATION,),
    "overheads": (abi.OVERHEAD,),
    "api_calls": (abi.API,),
    "graph_traces": (abi.GRAPH_TRACE,),
    "memory": (abi.MEMORY,),
    "pools": (abi.MEMORY_POOL,),
    "streams": (abi.STREAM,),
    "contexts": (abi.CONTEXT,),
    "devices": (abi.DEVICE,),
    "external": (abi.EXTERNAL_CORRELATION,),
}
"""The tables of `Decoded` and the records that they are made of."""

ABSENT: Final[Mapping[str, int]] = {
    "src_device_id": NO_ID,
    "src_context_id": NO_ID,
    "dst_device_id": NO_ID,
    "dst_context_id": NO_ID,
    "priority": NO_PRIORITY,
}
"""What a column holds where the version or the record lacks the field; all others hold 0."""


@cache
def column_name(field: str) -> str:
    """`gridX` to `grid_x`, `channelID` to `channel_id`: the name of a field's column."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", field).lower()


@cache
def dtypes(table: str) -> Mapping[str, np.dtype[Any]]:
    """The columns of a table and their types; `kind` is the kind of each row's record."""
    found = {"kind": np.dtype(np.uint8)}
    for record in TABLES[table]:
        found |= {column_name(field.name): np.dtype(field.type) for field in record.fields}
    return found


@dataclass(frozen=True, slots=True)
class Rows:
    """Columns by name, all of `count` rows. Times are in CUPTI's clock, nanoseconds."""

    count: int
    columns: Mapping[str, Column]

    def __len__(self) -> int:
        """Rows."""
        return self.count

    def __getitem__(self, name: str) -> Column:
        """One column. Raises KeyError."""
        return self.columns[name]


@cache
def empty(table: str) -> Rows:
    """No rows of a table: shared, so that kinds that do not occur cost nothing."""
    return Rows(0, {name: np.empty(0, dtype) for name, dtype in dtypes(table).items()})


def joined(table: str, parts: Sequence[Rows], columns: Iterable[str] | None = None) -> Rows:
    """The rows of several parts one after another: all columns, or only some."""
    filled = [part for part in parts if part.count]
    if len(filled) < 2:
        return filled[0] if filled else empty(table)
    names = dtypes(table) if columns is None else columns
    return Rows(
        sum(part.count for part in filled),
        {name: np.concatenate([part[name] for part in filled]) for name in names},
    )
