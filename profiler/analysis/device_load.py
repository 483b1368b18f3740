"""One rank's `device` and `cuda_api` tables as NumPy columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from gputap.profiler.analysis.intervals import Ints, Mask
from gputap.profiler.analysis.load import Codes, codes, integers
from gputap.profiler.schema import DeviceKind

if TYPE_CHECKING:
    import pyarrow as pa

DEVICE_COLUMNS: Final = (
    "start_ns",
    "duration_ns",
    "kind",
    "name",
    "short_name",
    "category",
    "device_id",
    "stream_id",
    "correlation_id",
    "graph_id",
    "bytes",
    "copy_kind",
    "src_kind",
    "dst_kind",
)
CALL_COLUMNS: Final = ("start_ns", "duration_ns", "tid", "name", "group", "correlation_id")

COMMUNICATION: Final = "communication"
"""The category of NCCL's kernels and their like."""


@dataclass(frozen=True, slots=True, eq=False)
class Device:
    """What the GPUs did, sorted by start. Codes are indices into the lists; -1 means none."""

    start: Ints
    end: Ints
    kind: npt.NDArray[np.int8]
    """A `DeviceKind`."""
    name: Codes
    names: list[str]
    short: Codes
    shorts: list[str]
    category: Codes
    categories: list[str]
    device: Codes
    stream: Codes
    correlation: Ints
    graph: Ints
    bytes: Ints
    copy_kind: Codes
    copy_kinds: list[str]
    src: Codes
    dst: Codes
    memories: list[str]

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.start)

    def of_kind(self, *kinds: DeviceKind) -> Mask:
        """Rows of these kinds."""
        return np.isin(self.kind, np.array(kinds, np.int8))

    def of_category(self, category: str) -> Mask:
        """Rows of this category."""
        code = self.categories.index(category) if category in self.categories else -2
        found: Mask = self.category == code
        return found

    @property
    def work(self) -> Mask:
        """Kernels, copies and fills: what keeps a GPU busy."""
        return self.of_kind(DeviceKind.KERNEL, DeviceKind.MEMCPY, DeviceKind.MEMSET)


@dataclass(frozen=True, slots=True, eq=False)
class Calls:
    """CUDA calls, sorted by thread and start."""

    start: Ints
    end: Ints
    tid: Codes
    name: Codes
    names: list[str]
    group: Codes
    groups: list[str]
    correlation: Ints

    def __len__(self) -> int:
        """Number of calls."""
        return len(self.start)

    def of_group(self, group: str) -> Mask:
        """Calls that do this: launch, copy, set, sync, memory, graph."""
        code = self.groups.index(group) if group in self.groups else -2
        found: Mask = self.group == code
        return found


def device_rows(table: pa.Table) -> Device:
    """Columns of a `device` table (`schema.DEVICE`)."""
    start = integers(table, "start_ns", 0)
    kind, kinds = codes(table, "kind")
    known = {k.name.lower(): int(k) for k in DeviceKind}
    of_code = np.array([*(known.get(text, -1) for text in kinds), -1], np.int8)
    name, names = codes(table, "name")
    short, shorts = codes(table, "short_name")
    category, categories = codes(table, "category")
    copy_kind, copy_kinds = codes(table, "copy_kind")
    src, sources = codes(table, "src_kind")
    dst, targets = codes(table, "dst_kind")
    memories = list(dict.fromkeys([*sources, *targets]))
    columns = {
        "start": start,
        "end": start + integers(table, "duration_ns", 0),
        "kind": of_code[kind],
        "name": name,
        "short": short,
        "category": category,
        "device": integers(table, "device_id", -1).astype(np.int32),
        "stream": integers(table, "stream_id", -1).astype(np.int32),
        "correlation": integers(table, "correlation_id", -1),
        "graph": integers(table, "graph_id", -1),
        "bytes": integers(table, "bytes", -1),
        "copy_kind": copy_kind,
        "src": _into(src, sources, memories),
        "dst": _into(dst, targets, memories),
    }
    order = np.argsort(start, kind="stable")
    return Device(
        **{key: column[order] for key, column in columns.items()},
        names=names,
        shorts=shorts,
        categories=categories,
        copy_kinds=copy_kinds,
        memories=memories,
    )


def call_rows(table: pa.Table) -> Calls:
    """Columns of a `cuda_api` table (`schema.CUDA_API`)."""
    start = integers(table, "start_ns", 0)
    tid = integers(table, "tid", -1).astype(np.int32)
    name, names = codes(table, "name")
    group, groups = codes(table, "group")
    columns = {
        "start": start,
        "end": start + integers(table, "duration_ns", 0),
        "tid": tid,
        "name": name,
        "group": group,
        "correlation": integers(table, "correlation_id", -1),
    }
    order = np.lexsort((-columns["end"], start, tid))
    sorted_ = {key: column[order] for key, column in columns.items()}
    return Calls(**sorted_, names=names, groups=groups)


def _into(found: Codes, texts: list[str], all_texts: list[str]) -> Codes:
    """Codes into another list of texts."""
    place = np.array([*(all_texts.index(text) for text in texts), -1], np.int32)
    moved: Codes = place[found]
    return moved
