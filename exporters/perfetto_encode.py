"""Slices of one track as Perfetto packets, by columns.

Each track is a packet sequence of its own: names are interned in its first packet, the track is
its default, and its packets are in order of time. The place of each begin and end in that order
follows from the nesting, so no sort is needed and equal times cannot break it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from gputap.exporters import protobuf as pb
from gputap.exporters.nesting import Bools, Ints
from gputap.exporters.source import NO_CODE, NULL, Text

CHUNK: Final = 1 << 17
"""Packets encoded at a time."""

_CLEARED: Final = 1
_NEEDS: Final = 2
_BEGIN: Final = 1
_END: Final = 2


@dataclass(frozen=True, slots=True)
class Track:
    """Where slices go."""

    sequence: int
    uuid: int


@dataclass(frozen=True, slots=True)
class Annotation:
    """An argument of slices: a string or an integer each; nulls have none."""

    name: str
    text: Text | None = None
    ints: Ints | None = None

    def take(self, rows: Ints) -> Annotation:
        """Some rows."""
        return Annotation(
            self.name,
            None if self.text is None else self.text.take(rows),
            None if self.ints is None else self.ints[rows],
        )

    @property
    def present(self) -> Bools:
        """Where there is one."""
        if self.text is not None:
            out: Bools = self.text.codes != NO_CODE
        else:
            assert self.ints is not None
            out = self.ints != NULL
        return out


@dataclass(frozen=True, slots=True)
class Slices:
    """Slices that nest, in preorder."""

    start_ns: Ints
    end_ns: Ints
    depth: Ints
    name: Text
    category: Text | str
    annotations: tuple[Annotation, ...] = ()
    flow_out: Ints | None = None
    """Id of the flow that starts here; 0 for none."""
    flow_in: Ints | None = None
    size: Ints | None = None
    """Slices in each, itself included; None if none holds another."""

    def take(self, rows: Ints, depth: Ints, size: Ints | None = None) -> Slices:
        """Some rows, with the nesting that they have."""
        return Slices(
            self.start_ns[rows], self.end_ns[rows], depth, self.name.take(rows),
            self.category if isinstance(self.category, str) else self.category.take(rows),
            tuple(a.take(rows) for a in self.annotations),
            None if self.flow_out is None else self.flow_out[rows],
            None if self.flow_in is None else self.flow_in[rows],
            size,
        )  # fmt: skip


def encode_track(track: Track, slices: Slices) -> Iterator[bytes]:
    """Packets of one track, as chunks of a trace file."""
    count = len(slices.start_ns)
    if count == 0:
        return
    categories = _category(slices)
    dense = [_Interned.of(t) for t in (slices.name, categories)]
    texts = [_Interned.of(a.text) if a.text is not None else None for a in slices.annotations]
    yield _first_packet(track, dense[0], dense[1], slices.annotations, texts)
    begin, end = _places(slices)
    event = np.empty(2 * count, np.int64)
    event[begin] = np.arange(count)
    event[end] = ~np.arange(count)  # negative: an end
    columns = _Columns(track, slices, dense[0].iids, dense[1].iids, texts)
    for at in range(0, len(event), CHUNK):
        yield columns.encode(event[at : at + CHUNK])


def _category(slices: Slices) -> Text:
    if isinstance(slices.category, Text):
        return slices.category
    return Text(np.zeros(len(slices.start_ns), np.int64), (slices.category,))


def _places(slices: Slices) -> tuple[Ints, Ints]:
    """Place of each begin and end among all of them.

    Before slice i begins, i others have begun, and all of those but the `depth` around it ended.
    """
    index = np.arange(len(slices.depth))
    size = 1 if slices.size is None else slices.size
    return 2 * index - slices.depth, 2 * (index + size) - 1 - slices.depth


@dataclass(frozen=True, slots=True)
class _Interned:
    """The words that a track uses and the iid of each row, from 1; 0 for null."""

    iids: Ints
    words: tuple[str, ...]

    @classmethod
    def of(cls, text: Text) -> _Interned:
        used, which = np.unique(text.codes, return_inverse=True)
        first = int(used[0] == NO_CODE) if len(used) else 0
        words = tuple(text.words[code] for code in used[first:].tolist())
        return cls(which.reshape(-1) + 1 - first, words)

    def entries(self, field: int, offset: int = 0) -> bytes:
        """InternedData entries, iids counted from `offset` + 1."""
        return b"".join(
            pb.data(field, pb.uint(1, offset + i) + pb.text(2, word))
            for i, word in enumerate(self.words, 1)
        )


def _first_packet(
    track: Track,
    names: _Interned,
    categories: _Interned,
    annotations: tuple[Annotation, ...],
    texts: list[_Interned | None],
) -> bytes:
    """Starts the sequence: its default track and its strings."""
    interned = names.entries(2) + categories.entries(1)
    if (names.iids == 0).any():
        interned += pb.data(2, pb.uint(1, len(names.words) + 1) + pb.text(2, "unknown"))
    for number, annotation in enumerate(annotations, 1):
        interned += pb.data(3, pb.uint(1, number) + pb.text(2, annotation.name))
    offset = 0
    for text in texts:
        if text is not None:
            interned += text.entries(29, offset)
            offset += len(text.words)
    defaults = pb.data(11, pb.uint(11, track.uuid))
    packet = (
        pb.uint(10, track.sequence) + pb.uint(13, _CLEARED) + pb.data(59, defaults)
        + pb.data(12, interned) + pb.uint(87, 1)
    )  # fmt: skip
    return pb.data(1, packet)


class _Columns:
    """What begins and ends of a track are made of. Rows with the same fields share a layout."""

    def __init__(
        self,
        track: Track,
        slices: Slices,
        names: Ints,
        categories: Ints,
        texts: list[_Interned | None],
    ) -> None:
        self.slices = slices
        self.names = np.where(names == 0, int(names.max()) + 1, names)
        self.categories = categories
        self.tail = pb.uint(10, track.sequence) + pb.uint(13, _NEEDS)
        self.values = _annotation_values(slices.annotations, texts)
        present = [categories > 0, *(a.present for a in slices.annotations)]
        none = np.zeros(len(names), bool)
        present += [none if f is None else f != 0 for f in (slices.flow_out, slices.flow_in)]
        self.layout = np.zeros(len(names), np.int64)
        for bit, there in enumerate(present):
            self.layout |= there.astype(np.int64) << bit

    def encode(self, event: Ints) -> bytes:
        """Packets of these begins (row) and ends (~row), in this order."""
        is_end = event < 0
        row = np.where(is_end, ~event, event)
        layout = np.where(is_end, -1, self.layout[row])
        groups = [(int(kind), np.flatnonzero(layout == kind)) for kind in np.unique(layout)]
        rows = [
            self._end(row[at]) if kind < 0 else self._begin(row[at], kind) for kind, at in groups
        ]
        width = np.empty(len(event), np.int64)
        for (_, at), block in zip(groups, rows, strict=True):
            width[at] = block.shape[1]
        offsets = np.cumsum(width) - width
        out = np.empty(int(width.sum()), np.uint8)
        for (_, at), block in zip(groups, rows, strict=True):
            pb.scatter(out, offsets[at], block)
        return out.tobytes()

    def _end(self, rows: Ints) -> npt.NDArray[np.uint8]:
        event = pb.Row().constant(pb.uint(9, _END))
        return self._packets(self.slices.end_ns[rows], event, len(rows))

    def _begin(self, rows: Ints, layout: int) -> npt.NDArray[np.uint8]:
        event = pb.Row().constant(pb.uint(9, _BEGIN))
        _varint_field(event, 10, self.names[rows])
        if layout & 1:
            _varint_field(event, 3, self.categories[rows])
        for number, (field, values) in enumerate(self.values, 1):
            if layout >> number & 1:
                _annotation(event, number, field, values[rows])
        bit = 1 + len(self.values)
        for field, flow in ((47, self.slices.flow_out), (48, self.slices.flow_in)):
            if flow is not None and layout >> bit & 1:
                event.constant(pb.tag(field, pb.FIXED64)).column(pb.fixed64(flow[rows]))
            bit += 1
        return self._packets(self.slices.start_ns[rows], event, len(rows))

    def _packets(self, time_ns: Ints, event: pb.Row, count: int) -> npt.NDArray[np.uint8]:
        packet = pb.Row()
        _varint_field(packet, 8, time_ns)
        packet.constant(self.tail + pb.tag(11, pb.LENGTH) + pb.varint(event.width))
        head = pb.tag(1, pb.LENGTH) + pb.varint(packet.width + event.width)
        out = np.empty((count, len(head) + packet.width + event.width), np.uint8)
        out[:, : len(head)] = np.frombuffer(head, np.uint8)
        packet.fill(out[:, len(head) :])
        event.fill(out[:, len(head) + packet.width :])
        return out


def _annotation_values(
    annotations: tuple[Annotation, ...], texts: list[_Interned | None]
) -> list[tuple[int, Ints]]:
    """Field of DebugAnnotation and value of each row, for each annotation."""
    out: list[tuple[int, Ints]] = []
    offset = 0
    for annotation, text in zip(annotations, texts, strict=True):
        if text is not None:
            out.append((17, text.iids + offset))
            offset += len(text.words)
        else:
            assert annotation.ints is not None
            out.append((4, annotation.ints))
    return out


def _varint_field(row: pb.Row, field: int, values: Ints) -> None:
    width = pb.varint_width(values)
    row.constant(pb.tag(field, pb.VARINT)).column(pb.padded_varints(values, width))


def _annotation(row: pb.Row, name: int, field: int, values: Ints) -> None:
    width = pb.varint_width(values)
    head = pb.uint(1, name) + pb.tag(field, pb.VARINT)
    row.constant(pb.tag(4, pb.LENGTH) + pb.varint(len(head) + width) + head)
    row.column(pb.padded_varints(values, width))
