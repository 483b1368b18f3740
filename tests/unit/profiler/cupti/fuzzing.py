"""Chunks as a hostile or broken target may write them: sound ones, damaged in some of many ways."""

from __future__ import annotations

import random

import numpy as np

from gputap.profiler.cupti import abi
from gputap.profiler.cupti.decode import Decoded, decode
from gputap.profiler.cupti.rows import TABLES
from gputap.profiler.cupti.walk import walk
from tests.unit.profiler.cupti.packing import VERSIONS, Chunk, chunk, number, record

CAUSES = ("unknown_kind", "too_short", "zero_times", "backwards", "unreal_times", "bad_offset")
_NASTY = (0, 1, 7, 8, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFF8, 0xFFFF_FFFF)
_MOST = 12
"""Records of a sound chunk: a buffer of a megabyte is no other than one of a few records."""


class Fuzzer:
    """An endless source of damaged chunks, the same for the same seed."""

    def __init__(self, seed: int, sound: int = 400) -> None:
        """`sound` chunks of random records are what is damaged."""
        self._chance = random.Random(seed)
        self._sound = [self._new() for _ in range(sound)]

    def _new(self) -> Chunk:
        chance = self._chance
        version = chance.choice(VERSIONS)
        raw = []
        for kind in chance.choices(list(abi.BY_KIND), k=chance.randrange(_MOST)):
            values = {}
            for field in abi.BY_KIND[kind].fields:
                if field.since <= version and field.type[1] == "u":
                    values[field.name] = chance.getrandbits(8 * int(field.type[2:]))
            for name, bits in (("start", 60), ("end", 61), ("timestamp", 60)):
                if name in values:
                    values[name] = 1 << bits | chance.getrandbits(40)
            raw.append(record(kind, version, chance.randrange(256), **values))
        return chunk(raw, version)

    def chunk(self) -> Chunk:
        """The next one."""
        chance = self._chance
        data, offsets, version = chance.choice(self._sound)
        data, offsets = data.copy(), offsets.copy()
        for _ in range(chance.randrange(4)):
            chance.choice(_DAMAGES)(chance, data, offsets)
        if chance.random() < 0.2:
            data = data[: chance.randrange(len(data) + 1)]
        if chance.random() < 0.1:
            version = chance.choice([number(chance.choice(VERSIONS)), chance.getrandbits(32)])
        return data, offsets, version


def _bytes(chance: random.Random, data: np.ndarray, offsets: np.ndarray) -> None:
    for _ in range(chance.randrange(1, 9) if len(data) else 0):
        data[chance.randrange(len(data))] = chance.randrange(256)


def _words(chance: random.Random, data: np.ndarray, offsets: np.ndarray) -> None:
    """Lengths, kinds and times sit at multiples of four."""
    words = data[: len(data) & ~3].view(np.uint32)
    if len(words):
        words[chance.randrange(len(words))] = chance.choice(_NASTY)


def _times(chance: random.Random, data: np.ndarray, offsets: np.ndarray) -> None:
    """Times sit at multiples of eight, early in a record."""
    if len(offsets):
        at = int(offsets[chance.randrange(len(offsets))]) + chance.randrange(8, 40, 8)
        if at % 8 == 0 and at + 8 <= len(data):
            data[at : at + 8].view(np.uint64)[0] = chance.choice([0, 1, 1 << 63, (1 << 64) - 1])


def _kind(chance: random.Random, data: np.ndarray, offsets: np.ndarray) -> None:
    """Another kind where a record begins: what follows is read as what it is not."""
    if len(offsets):
        at = int(offsets[chance.randrange(len(offsets))])
        if at + 4 <= len(data):
            data[at : at + 4].view(np.uint32)[0] = chance.choice([*abi.BY_KIND, 0, 12, 0xFFFF])


def _noise(chance: random.Random, data: np.ndarray, offsets: np.ndarray) -> None:
    """A piece of anything."""
    if len(data):
        at = chance.randrange(len(data))
        end = min(len(data), at + chance.randrange(1, 256))
        data[at:end] = np.frombuffer(chance.randbytes(end - at), np.uint8)


def _piece(chance: random.Random, data: np.ndarray, offsets: np.ndarray) -> None:
    """A piece in another place, as when a writer and a reader lose each other."""
    if len(data) > 16:
        length = chance.randrange(8, len(data) // 2 + 1)
        source, target = (chance.randrange(len(data) - length + 1) for _ in range(2))
        data[target : target + length] = data[source : source + length].copy()


def _offset(chance: random.Random, data: np.ndarray, offsets: np.ndarray) -> None:
    if len(offsets):
        at = chance.randrange(len(offsets))
        offsets[at] = chance.choice([*_NASTY, chance.getrandbits(32), int(offsets[at]) ^ 8])


def _order(chance: random.Random, data: np.ndarray, offsets: np.ndarray) -> None:
    if len(offsets):
        first, second = (chance.randrange(len(offsets)) for _ in range(2))
        offsets[first], offsets[second] = int(offsets[second]), int(offsets[first])


_DAMAGES = (_bytes, _words, _times, _kind, _noise, _piece, _offset, _order)


def checked(data: np.ndarray, offsets: np.ndarray, version: int) -> Decoded:
    """Decode and walk a chunk. Every record is a row or counted once; raises AssertionError."""
    found = decode(data, offsets, version)
    rows = sum(len(getattr(found, name)) for name in TABLES)
    lost = sum(getattr(found, cause) for cause in CAUSES)
    assert found.records == len(offsets) == rows + lost
    for name in TABLES:
        table = getattr(found, name)
        assert all(len(column) == len(table) for column in table.columns.values())
    walked = walk(data, version)
    assert 0 <= walked.left <= len(data)
    again = decode(data[: len(data) - walked.left], walked.offsets, version)
    assert again.bad_offset == again.unknown_kind == again.too_short == 0
    return found
