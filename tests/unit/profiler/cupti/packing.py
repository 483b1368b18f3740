"""Records as CUPTI would write them, from values by field. What no value is given for is 0."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gputap.profiler.cupti import abi
from gputap.profiler.cupti.abi import ActivityKind, Version

VERSIONS: tuple[Version, ...] = (
    (11, 8),
    *((12, minor) for minor in (0, 1, 2, 3, 4, 5, 6, 8, 9)),
    *((13, minor) for minor in range(6)),
)
Chunk = tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint32], int]


def number(version: Version) -> int:
    """Version as it stands in a chunk."""
    return version[0] * 100 + version[1]


def record(kind: int, version: Version, filler: int = 0, **fields: int) -> bytes:
    """One record; bytes of no field hold `filler`."""
    layout = abi.BY_KIND[ActivityKind(kind)]
    raw = np.full(layout.size(version), filler, np.uint8)
    raw[:4].view("<u4")[0] = kind
    for field in layout.fields:
        if field.since <= version:
            raw[field.offset : field.offset + int(field.type[-1])].view(field.type)[0] = fields.pop(
                field.name, 0
            )
    assert not fields, f"no such fields: {fields}"
    return raw.tobytes()


def chunk(records: Sequence[bytes], version: Version) -> Chunk:
    """Records one after another, and where each begins."""
    ends = np.cumsum([len(raw) for raw in records], dtype=np.int64)
    offsets = np.concatenate([[0], ends[:-1]]) if records else []
    return (
        np.frombuffer(b"".join(records), np.uint8),
        np.array(offsets, np.uint32),
        number(version),
    )


def timed(kind: int, version: Version, start: int, end: int, **fields: Any) -> bytes:
    """A record with a start and an end."""
    return record(kind, version, start=start, end=end, **fields)
