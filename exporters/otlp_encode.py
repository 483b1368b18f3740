"""OTLP spans from columns: `ExportTraceServiceRequest` messages without an object per span.

What differs in length (name, constant attributes) is encoded once per distinct label; ids, times
and integer attributes have fixed width. Spans whose labels are equally long share one 2-D array.
Field numbers are those of opentelemetry-proto 1.x; tests parse every shape with its classes.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from gputap.exporters import protobuf as pb

MESSAGE_LIMIT: Final = 3 * 2**20
"""Largest message in bytes; receivers' gRPC default is 4 MiB."""

MAX_TEXT: Final = 1024
"""Longest attribute value in characters; longer ones end in an ellipsis."""

KIND_INTERNAL: Final = 1

Value = str | bool | int | float | Sequence[str]
Attributes = Mapping[str, Value | None]

ABSENT: Final = int(np.iinfo(np.int64).min)
"""In an integer column: the span does not have that attribute."""

_GOLDEN: Final = np.uint64(0x9E37_79B9_7F4A_7C15)


@dataclass(frozen=True, slots=True)
class SpanColumns:
    """Spans as columns of one length."""

    trace_id: npt.NDArray[np.uint8]
    """Shape (n, 16)."""
    span_id: npt.NDArray[np.uint64]
    parent_id: npt.NDArray[np.uint64]
    """0 for a root."""
    start_ns: npt.NDArray[np.int64]
    end_ns: npt.NDArray[np.int64]
    label: npt.NDArray[np.int64]
    """Index into `labels`."""
    labels: Sequence[bytes]
    """Of `encode_label`."""
    ints: Mapping[str, npt.NDArray[np.int64]] = field(default_factory=dict)
    """Integer attributes; a span whose value is `ABSENT` has none."""

    def __len__(self) -> int:
        """Number of spans."""
        return len(self.span_id)


def trace_id(job: str, step: int) -> bytes:
    """The trace of a step: the same on every rank, and in every export of it."""
    return hashlib.sha256(f"{job}\0{step}".encode("utf-8", "surrogatepass")).digest()[:16]


def span_seed(trace: bytes, rank: int) -> int:
    """Where the span ids of a rank in a trace come from."""
    digest = hashlib.sha256(trace + rank.to_bytes(8, "little", signed=True)).digest()
    return int.from_bytes(digest[:8], "little")


def span_ids(seeds: npt.NDArray[np.uint64], index: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    """Ids of spans from `span_seed` and index: distinct for one seed, never 0, repeatable."""
    with np.errstate(over="ignore"):
        z = seeds + (index.astype(np.uint64) + np.uint64(1)) * _GOLDEN
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58_476D_1CE4_E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D0_49BB_1331_11EB)
        z = z ^ (z >> np.uint64(31))
    # splitmix64 maps one index in 2**64 to 0, which is no valid id.
    out: npt.NDArray[np.uint64] = np.where(z == 0, np.uint64(1), z)
    return out


def encode_attribute(key: str, value: Value) -> bytes:
    """One KeyValue, without the field tag around it."""
    return pb.text(1, key) + pb.data(2, _any_value(value))


def _any_value(value: Value) -> bytes:
    if isinstance(value, str):
        return pb.text(1, value if len(value) <= MAX_TEXT else value[: MAX_TEXT - 1] + "…")
    if isinstance(value, bool):
        return pb.uint(2, value)
    if isinstance(value, int):
        return pb.uint(3, value)
    if isinstance(value, float):
        return pb.tag(4, pb.FIXED64) + struct.pack("<d", value)
    return pb.data(5, b"".join(pb.data(1, _any_value(item)) for item in value))


def encode_label(name: str, attributes: Attributes) -> bytes:
    """What spans of one label share: name, kind and constant attributes. None is left out."""
    pairs = [encode_attribute(k, v) for k, v in attributes.items() if v is not None]
    return (
        pb.text(5, name or "?")
        + pb.uint(6, KIND_INTERNAL)
        + b"".join(pb.data(9, pair) for pair in pairs)
    )


def encode_resource(attributes: Attributes) -> bytes:
    """A Resource message."""
    pairs = [encode_attribute(k, v) for k, v in attributes.items() if v is not None]
    return b"".join(pb.data(1, pair) for pair in pairs)


def encode_scope(name: str, version: str) -> bytes:
    """An InstrumentationScope message."""
    return pb.text(1, name) + pb.text(2, version)


def encode_requests(
    spans: SpanColumns, *, resource: bytes, scope: bytes, limit: int = MESSAGE_LIMIT
) -> Iterator[tuple[bytes, int]]:
    """Yield (message, number of spans in it), each message shorter than `limit` bytes.

    Spans keep their order from message to message; within a message it is free. A single span
    longer than `limit` goes alone.
    """
    labels = pb.Blobs(spans.labels)
    frame = len(_frame(resource, scope, b"")) + 32
    sizes = labels.lengths[spans.label] + _fixed_width(spans)
    ends = np.cumsum(sizes)
    start = 0
    while start < len(spans):
        before = int(ends[start - 1]) if start else 0
        stop = int(np.searchsorted(ends, before + limit - frame, side="right"))
        stop = max(stop, start + 1)
        body = b"".join(_encode_rows(spans, labels, np.arange(start, stop)))
        yield _frame(resource, scope, body), stop - start
        start = stop


def _frame(resource: bytes, scope: bytes, body: bytes) -> bytes:
    scope_spans = pb.data(2, pb.data(1, scope) + body)
    return pb.data(1, pb.data(1, resource) + scope_spans)


def _fixed_width(spans: SpanColumns) -> int:
    """Upper bound of a span's bytes beside its label."""
    attributes = sum(len(key.encode()) + 24 for key in spans.ints)
    return 64 + attributes


def _encode_rows(
    spans: SpanColumns, labels: pb.Blobs, rows: npt.NDArray[np.int64]
) -> Iterator[bytes]:
    """The `spans` field of ScopeSpans for these rows, one chunk for each layout."""
    layout = labels.lengths[spans.label[rows]] * 2 + (spans.parent_id[rows] != 0)
    for values in spans.ints.values():
        layout = layout * 2 + (values[rows] != ABSENT)
    order = np.argsort(layout, kind="stable")
    edges = np.flatnonzero(np.diff(layout[order])) + 1
    for group in np.split(rows[order], edges):
        yield _encode_group(spans, labels, group)


def _encode_group(spans: SpanColumns, labels: pb.Blobs, rows: npt.NDArray[np.int64]) -> bytes:
    length = int(labels.lengths[spans.label[rows[0]]])
    row = pb.Row()
    row.constant(pb.tag(1, pb.LENGTH) + b"\x10").column(spans.trace_id[rows])
    row.constant(pb.tag(2, pb.LENGTH) + b"\x08").column(_big_endian(spans.span_id[rows]))
    if spans.parent_id[rows[0]]:
        row.constant(pb.tag(4, pb.LENGTH) + b"\x08").column(_big_endian(spans.parent_id[rows]))
    row.constant(pb.tag(7, pb.FIXED64)).column(pb.fixed64(spans.start_ns[rows]))
    row.constant(pb.tag(8, pb.FIXED64)).column(pb.fixed64(spans.end_ns[rows]))
    for key, values in spans.ints.items():
        if values[rows[0]] != ABSENT:
            _int_attribute(row, key, values[rows])
    row.column(labels.take(spans.label[rows], length))
    head = pb.tag(2, pb.LENGTH) + pb.varint(row.width)
    out = np.empty((len(rows), len(head) + row.width), np.uint8)
    out[:, : len(head)] = np.frombuffer(head, np.uint8)
    row.fill(out[:, len(head) :])
    return out.tobytes()


def _int_attribute(row: pb.Row, key: str, values: npt.NDArray[np.int64]) -> None:
    """Append a KeyValue whose integer differs from row to row."""
    width = pb.varint_width(values)
    name = pb.text(1, key)
    value = pb.tag(2, pb.LENGTH) + pb.varint(width + 1) + pb.tag(3, pb.VARINT)
    size = len(name) + len(value) + width
    row.constant(pb.tag(9, pb.LENGTH) + pb.varint(size) + name + value)
    row.column(pb.padded_varints(values, width))


def _big_endian(ids: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint8]:
    return ids.astype(">u8").view(np.uint8).reshape(-1, 8)
