"""From record to record through a buffer that CUPTI filled, where its own library is not at hand.

A record does not hold its size: one step by another version's table, and the rest is lost. So this
is for recordings, whose version is written down; in a target the agent steps with the library that
is loaded there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from gputap.profiler.cupti import abi


@dataclass(frozen=True, slots=True)
class Walked:
    """Where the records of a buffer are."""

    offsets: npt.NDArray[np.uint32]
    left: int
    """Bytes behind the last record: what begins there is unknown or cut. 0 in a sound buffer."""


def walk(data: npt.NDArray[np.uint8], version: int) -> Walked:
    """The records up to the first of unknown kind or size, or the end.

    `version` is CUDA's, major * 100 + minor. About 0.1 us per record.
    """
    data = np.ascontiguousarray(data, np.uint8).reshape(-1)
    size_of = _sizes(int(version)).get
    kinds = data[: len(data) & ~3].data.cast("B").cast("I")
    offsets, at, end = [], 0, len(kinds) * 4
    while at < end:
        size = size_of(kinds[at >> 2])
        if size is None or at + size > end:
            break
        offsets.append(at)
        at += size
    return Walked(np.array(offsets, np.uint32), len(data) - at)


@lru_cache(maxsize=64)  # bounded, since garbage may claim any version
def _sizes(version: int) -> Mapping[int, int]:
    """Bytes of a record by its kind."""
    of = divmod(version, 100)
    return {int(kind): record.size(of) for kind, record in abi.BY_KIND.items()}
