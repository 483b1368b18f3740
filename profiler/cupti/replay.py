"""A recording as the chunks that the agent would have made of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from gputap.profiler.cupti import abi
from gputap.profiler.cupti.recording import Buffer, Recording
from gputap.profiler.cupti.walk import walk
from gputap.profiler.device_memory import Chunk

MOST_IN_CHUNK: Final = 2048
"""Records; as in the agent."""

_NAMED: Final = (abi.KERNEL, abi.DEVICE, abi.MEMORY)
"""Records with a pointer to a string, in the field `name`."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """What the agent would have put into the shared memory."""

    chunks: list[Chunk]
    strings: list[str]
    """By id; 0 is unused."""
    left: int
    """Bytes of all buffers that could not be stepped through."""


def replay(recording: Recording) -> Replayed:
    """Chunks and strings of a recording, buffer by buffer."""
    version = recording.origin.version
    ids: dict[str, int] = {"": 0}
    chunks: list[Chunk] = []
    left = 0
    for buffer in recording.buffers:
        data = np.frombuffer(buffer.data, np.uint8).copy()
        walked = walk(data, version)
        left += walked.left
        _rewrite(data, walked.offsets, buffer, ids, version)
        chunks += _cut(data[: len(data) - walked.left], walked.offsets, version)
    return Replayed(chunks, list(ids), left)


def _cut(data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.uint32], version: int) -> list[Chunk]:
    chunks = []
    for at in range(0, len(offsets), MOST_IN_CHUNK):
        mine = offsets[at : at + MOST_IN_CHUNK]
        following = at + MOST_IN_CHUNK
        end = int(offsets[following]) if following < len(offsets) else len(data)
        chunks.append(Chunk(data[int(mine[0]) : end], mine - mine[0], version))
    return chunks


def _rewrite(
    data: npt.NDArray[np.uint8],
    offsets: npt.NDArray[np.uint32],
    buffer: Buffer,
    ids: dict[str, int],
    version: int,
) -> None:
    """Pointers to strings become ids; those to what CUPTI had allocated become 0."""
    if not len(offsets):
        return
    words = data[: len(data) & ~7].view(np.uint64)
    kinds = data[: len(data) & ~3].view(np.uint32)[offsets >> 2]
    for record in _NAMED:
        at = (offsets[np.isin(kinds, record.kinds)] + record.field("name").offset) >> 3
        words[at] = _ids_of(words[at], buffer.names, ids)
    lost = abi.OVERHEAD.field("overheadData")
    if lost.since <= divmod(version, 100):
        words[(offsets[np.isin(kinds, abi.OVERHEAD.kinds)] + lost.offset) >> 3] = 0


def _ids_of(
    pointers: npt.NDArray[np.uint64], names: Mapping[int, str], ids: dict[str, int]
) -> npt.NDArray[np.uint64]:
    distinct, of_row = np.unique(pointers, return_inverse=True)
    found = [ids.setdefault(names.get(p, ""), len(ids)) for p in distinct.tolist()]
    return np.array(found, np.uint64)[of_row] if found else pointers
