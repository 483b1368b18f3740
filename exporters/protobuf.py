"""Protobuf by columns: fixed-width fields that NumPy fills for many messages at once.

A message whose fields all have a fixed width has a constant layout, so a thousand of them are one
2-D byte array. Variable integers are padded varints (`80 80 00` is 0), which every parser accepts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]

VARINT: Final = 0
FIXED64: Final = 1
LENGTH: Final = 2


def varint(value: int) -> bytes:
    """The shortest varint of `value`; negative numbers as 64-bit two's complement."""
    value &= 0xFFFF_FFFF_FFFF_FFFF
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def tag(field: int, wire_type: int) -> bytes:
    """The key in front of a field."""
    return varint(field << 3 | wire_type)


def uint(field: int, value: int) -> bytes:
    """A varint field."""
    return tag(field, VARINT) + varint(value)


def data(field: int, payload: bytes) -> bytes:
    """A length-delimited field: bytes, a string or a message."""
    return tag(field, LENGTH) + varint(len(payload)) + payload


def text(field: int, value: str) -> bytes:
    """A string field. Lone surrogates (odd file names) become `?`: strings must be UTF-8."""
    return data(field, value.encode("utf-8", "replace"))


def varint_width(values: npt.NDArray[np.integer]) -> int:
    """Bytes that hold every one of `values` as a varint."""
    if len(values) == 0:
        return 1
    if int(values.min()) < 0:
        return 10
    return max(1, (int(values.max()).bit_length() + 6) // 7)


def padded_varints(values: npt.NDArray[np.integer], width: int) -> Bytes:
    """`values` as one row of `width` bytes each. `width` must fit (`varint_width`)."""
    rest = values.astype(np.int64).view(np.uint64)
    out = np.empty((len(values), width), np.uint8)
    for column in range(width):
        more = 0x80 if column < width - 1 else 0
        out[:, column] = (rest & np.uint64(0x7F)).astype(np.uint8) | np.uint8(more)
        rest = rest >> np.uint64(7)
    return out


def fixed64(values: npt.NDArray[np.integer]) -> Bytes:
    """`values` as one row of eight little-endian bytes each."""
    raw = np.ascontiguousarray(values).astype("<i8" if values.dtype.kind == "i" else "<u8")
    return raw.view(np.uint8).reshape(-1, 8)


class Row:
    """Builds the constant layout of a message: constant bytes, and slots that columns fill."""

    def __init__(self) -> None:
        """An empty row."""
        self._pieces: list[bytes | Bytes] = []
        self.width = 0

    def constant(self, raw: bytes) -> Row:
        """Bytes that are the same in every row."""
        self._pieces.append(raw)
        self.width += len(raw)
        return self

    def column(self, block: Bytes) -> Row:
        """Bytes that differ: one row of `block` for each row."""
        self._pieces.append(block)
        self.width += block.shape[1]
        return self

    def fill(self, out: Bytes) -> None:
        """Write every row into `out`, whose columns are at least `width`."""
        at = 0
        for piece in self._pieces:
            if isinstance(piece, bytes):
                out[:, at : at + len(piece)] = np.frombuffer(piece, np.uint8)
                at += len(piece)
            else:
                out[:, at : at + piece.shape[1]] = piece
                at += piece.shape[1]


class Blobs:
    """Byte strings by number, kept by length so that many can be copied at once."""

    def __init__(self, blobs: Sequence[bytes]) -> None:
        """Number the `blobs` from 0."""
        self.lengths: Ints = np.array([len(b) for b in blobs], np.int64)
        self._row = np.zeros(len(blobs), np.int64)
        self._matrices: dict[int, Bytes] = {}
        for length in np.unique(self.lengths).tolist():
            members = np.flatnonzero(self.lengths == length)
            self._row[members] = np.arange(len(members))
            raw = b"".join(blobs[i] for i in members.tolist())
            self._matrices[length] = np.frombuffer(raw, np.uint8).reshape(len(members), length)

    def take(self, numbers: npt.NDArray[np.integer], length: int) -> Bytes:
        """The blobs of these numbers, all of the same `length`, one per row."""
        rows: Bytes = self._matrices[length].take(self._row[numbers], axis=0)
        return rows


def scatter(out: Bytes, offsets: Ints, rows: Bytes) -> None:
    """Write each of `rows` into the flat `out` at its offset."""
    if len(rows):
        out[offsets[:, None] + np.arange(rows.shape[1])] = rows
