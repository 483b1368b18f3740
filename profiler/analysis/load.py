"""One rank's events as NumPy columns, and what is needed to name them.

Analysis works on these; Arrow and Parquet end here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from gputap.profiler.analysis.intervals import Ints, Mask, Nesting, nest
from gputap.profiler.schema import EventFlag, EventKind

if TYPE_CHECKING:
    import pyarrow as pa

    from gputap.profiler.analysis.device_load import Calls, Device
    from gputap.profiler.analysis.memory import Readings
    from gputap.profiler.analysis.nccl import NcclCalls

Codes = npt.NDArray[np.int32]

EVENT_COLUMNS: Final = (
    "start_ns",
    "duration_ns",
    "tid",
    "kind",
    "name",
    "seq",
    "fwd_tid",
    "module",
    "module_class",
    "stack_id",
    "shapes",
    "flags",
)
"""Columns of the `events` table that analysis reads."""


class Frame(NamedTuple):
    """One Python frame. `module` is None unless the frame is an nn.Module's call."""

    function: str
    file: str
    line: int
    module: str | None
    module_class: str | None


@dataclass(frozen=True, slots=True, eq=False)
class Stacks:
    """Python stacks by id; frames innermost first, made on demand."""

    rows: dict[int, tuple[int, int]]
    columns: tuple[list[Any], ...]
    cache: dict[int, tuple[Frame, ...]] = field(default_factory=dict)

    def frames(self, stack_id: int) -> tuple[Frame, ...]:
        """Frames of a stack, none if it is unknown."""
        if stack_id not in self.cache:
            first, last = self.rows.get(stack_id, (0, 0))
            columns = (column[first:last] for column in self.columns)
            made = (
                Frame(f or "", p or "", n or 0, m, c)
                for f, p, n, m, c in zip(*columns, strict=True)
            )
            self.cache[stack_id] = tuple(made)
        return self.cache[stack_id]

    def module_classes(self) -> dict[str, str]:
        """Class of every module that is called in some stack."""
        names, classes = self.columns[3], self.columns[4]
        pairs = dict.fromkeys(zip(names, classes, strict=True))
        return {name: kind for name, kind in pairs if name is not None and kind is not None}


NO_STACKS: Final = Stacks({}, ([], [], [], [], []))


@dataclass(frozen=True, slots=True, eq=False)
class Events:
    """Columns of equal length, sorted by thread, start, longest first.

    `name`, `module` and `shapes` are indices into the lists of the same rows; -1 means none, as it
    does for `seq`, `fwd_tid` and `stack_id`.
    """

    start: Ints
    end: Ints
    tid: Codes
    kind: npt.NDArray[np.int8]
    name: Codes
    names: list[str]
    seq: Ints
    fwd_tid: Codes
    module: Codes
    modules: list[str]
    module_class: Codes
    module_classes: list[str]
    stack_id: Codes
    shapes: Codes
    shape_texts: list[str]
    flags: npt.NDArray[np.int8]

    def __len__(self) -> int:
        """Number of events."""
        return len(self.start)

    def take(self, rows: npt.NDArray[Any]) -> Events:
        """Some of the rows, by mask or by ascending index."""
        columns = {c: getattr(self, c)[rows] for c in ARRAYS}
        lists = {c: getattr(self, c) for c in LISTS}
        return Events(**columns, **lists)

    def named(self, wanted: Iterable[str]) -> Mask:
        """Events with one of these names."""
        names = set(wanted)
        return self._lookup([n in names for n in self.names])

    def starting_with(self, prefix: str | tuple[str, ...]) -> Mask:
        """Events whose name starts so."""
        return self._lookup([n.startswith(prefix) for n in self.names])

    def of_kind(self, *kinds: EventKind) -> Mask:
        """Events of these kinds."""
        return np.isin(self.kind, np.array(kinds, np.int8))

    def _lookup(self, hit: Sequence[bool]) -> Mask:
        table = np.array([*hit, False], np.bool_)
        found: Mask = table[self.name]
        return found


ARRAYS: Final = (
    "start",
    "end",
    "tid",
    "kind",
    "name",
    "seq",
    "fwd_tid",
    "module",
    "module_class",
    "stack_id",
    "shapes",
    "flags",
)
LISTS: Final = ("names", "modules", "module_classes", "shape_texts")


@dataclass(frozen=True, slots=True, eq=False)
class RankData:
    """What one rank recorded. `events` nest on their threads; `flights` ended elsewhere."""

    rank: int
    events: Events
    flights: Events
    """Events that ended on another thread (flag ASYNC_END): they nest in nothing."""
    nesting: Nesting
    stacks: Stacks
    main_tid: int
    window: tuple[int, int]
    """Start and end of the capture's window; of the first and last event where not known."""
    mode: str = "full"
    """Lower-case name of a `CaptureMode`."""
    bursts: int = 0
    """Stretches in which every operator was recorded, as the agent counted them."""
    scopes_seen_ns: int | None = None
    """Time during which user scopes were recorded; None if unknown."""
    device: Device | None = None
    """What the GPUs did; None below level `device`."""
    calls: Calls | None = None
    """CUDA calls; there where `device` is."""
    nccl: NcclCalls | None = None
    """What libraries other than torch asked NCCL for."""
    memory: tuple[Readings, ...] = ()
    """What torch's allocator told, by device."""


def rank_data(
    events: pa.Table,
    *,
    rank: int = 0,
    stacks: pa.Table | None = None,
    threads: pa.Table | None = None,
    window: tuple[int | None, int | None] = (None, None),
    mode: str = "full",
    bursts: int = 0,
    scopes_seen_ns: int | None = None,
) -> RankData:
    """Make a rank's columns from the tables of a capture (see `schema.EVENTS` and others)."""
    whole = _sorted(_columns(events))
    ends_elsewhere = (whole.flags & np.int8(EventFlag.ASYNC_END)) != 0
    flights = whole.take(ends_elsewhere)
    nested = whole.take(~ends_elsewhere) if len(flights) else whole
    first = int(whole.start.min()) if len(whole) else 0
    last = int(whole.end.max()) if len(whole) else 0
    start, end = window
    return RankData(
        rank=rank,
        events=nested,
        flights=flights,
        nesting=nest(nested.tid, nested.start, nested.end),
        stacks=read_stacks(stacks),
        main_tid=_main_tid(threads),
        window=(first if start is None else start, last if end is None else end),
        mode=mode,
        bursts=bursts,
        scopes_seen_ns=scopes_seen_ns,
    )


def read_stacks(table: pa.Table | None) -> Stacks:
    """Stacks from the `stacks` table of one rank."""
    if table is None or table.num_rows == 0:
        return NO_STACKS
    table = table.sort_by([("stack_id", "ascending"), ("frame", "ascending")])
    ids = integers(table, "stack_id", 0)
    heads = np.flatnonzero(np.concatenate([[True], ids[1:] != ids[:-1]]))
    tails = np.append(heads[1:], len(ids))
    spans = zip(heads.tolist(), tails.tolist(), strict=True)
    rows = dict(zip(ids[heads].tolist(), spans, strict=True))
    names = ("function", "file", "line", "module", "module_class")
    return Stacks(rows, tuple(table.column(n).to_pylist() for n in names))


def _columns(table: pa.Table) -> Events:
    start = integers(table, "start_ns", 0)
    name, names = codes(table, "name")
    module, modules = codes(table, "module")
    module_class, module_classes = codes(table, "module_class")
    shapes, shape_texts = codes(table, "shapes")
    return Events(
        start=start,
        end=start + integers(table, "duration_ns", 0),
        tid=integers(table, "tid", -1).astype(np.int32),
        kind=_kinds(table),
        name=name,
        names=names,
        seq=integers(table, "seq", -1),
        fwd_tid=integers(table, "fwd_tid", -1).astype(np.int32),
        module=module,
        modules=modules,
        module_class=module_class,
        module_classes=module_classes,
        stack_id=integers(table, "stack_id", -1).astype(np.int32),
        shapes=shapes,
        shape_texts=shape_texts,
        flags=integers(table, "flags", 0).astype(np.int8),
    )


def _sorted(events: Events) -> Events:
    """Sort by thread, start, longest first. Costs one pass if they are already."""
    tid, start, end = events.tid, events.start, events.end
    if len(start) < 2:
        return events
    same = tid[1:] == tid[:-1]
    later = (start[1:] > start[:-1]) | ((start[1:] == start[:-1]) & (end[1:] <= end[:-1]))
    if bool(np.all(np.where(same, later, tid[1:] > tid[:-1]))):
        return events
    return events.take(np.lexsort((-end, start, tid)))


def _kinds(table: pa.Table) -> npt.NDArray[np.int8]:
    of_row, names = codes(table, "kind")
    known = {kind.name.lower(): int(kind) for kind in EventKind}
    values = np.array([*(known.get(n, 0) for n in names), 0], np.int8)
    kinds: npt.NDArray[np.int8] = values[of_row]
    return kinds


def integers(table: pa.Table, name: str, null: int) -> Ints:
    """An integer column as int64, `null` in place of nulls; all `null` if there is no such."""
    import pyarrow.compute as pc

    if name not in table.column_names:
        return np.full(table.num_rows, null, np.int64)
    column = table.column(name)
    if column.null_count:
        column = pc.fill_null(column, null)
    values: Ints = column.to_numpy()
    return values.astype(np.int64, copy=False)


def codes(table: pa.Table, name: str) -> tuple[Codes, list[str]]:
    """A text column as codes and their texts; -1 for null."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if name not in table.column_names:
        return np.full(table.num_rows, -1, np.int32), []
    column = table.column(name)
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    chunk = column.unify_dictionaries().combine_chunks()
    if isinstance(chunk, pa.ChunkedArray):
        if chunk.num_chunks == 0:
            return np.zeros(0, np.int32), []
        chunk = chunk.chunk(0)
    indices = chunk.indices
    if indices.null_count:
        indices = pc.fill_null(indices, -1)
    of_row = indices.to_numpy(zero_copy_only=False).astype(np.int32, copy=False)
    return _merged(of_row, [str(t) for t in chunk.dictionary.to_pylist()])


def _merged(of_row: Codes, texts: list[str]) -> tuple[Codes, list[str]]:
    """One code per text, where a dictionary repeats a text."""
    unique = list(dict.fromkeys(texts))
    if len(unique) == len(texts):
        return of_row, texts
    place = {text: i for i, text in enumerate(unique)}
    table = np.array([*(place[t] for t in texts), -1], np.int32)
    return table[of_row], unique


def _main_tid(threads: pa.Table | None) -> int:
    if threads is None or threads.num_rows == 0:
        return -1
    main = integers(threads, "tid", -1)[np.array(threads.column("is_main").to_pylist()) == True]  # noqa: E712
    return int(main[0]) if len(main) else -1
