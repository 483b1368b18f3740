"""Wire records to rows of `events`: numpy lookups from end to end, no Python per event.

Python runs once per distinct name, stack and thread of a part, and once per slice of rows. A part's
dictionaries hold only what the part uses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from gputap.profiler import schema
from gputap.profiler.clock import Clock
from gputap.profiler.columns import dictionary, numbers, strings
from gputap.profiler.schema import EventFlag, EventKind

if TYPE_CHECKING:
    import pyarrow as pa

Records = npt.NDArray[np.void]
Ids = npt.NDArray[np.uint32]
Codes = npt.NDArray[np.int32]

ModulesOf = Callable[[Sequence[int]], Sequence[tuple[str | None, str | None]]]
"""Qualified name and class of the innermost nn.Module of each of some stack ids, or Nones."""

COLLECTIVE_PREFIXES: Final = (
    "gloo:",
    "nccl:",
    "mpi:",
    "ucc:",
    "xccl:",
    "hccl:",
    "c10d::",
    "c10d_functional::",
    "_c10d_functional::",
    "record_param_comms",
)
"""Names of collectives, whichever RecordFunction scope torch gives them."""

_KINDS: Final = tuple(kind.name.lower() for kind in EventKind)
_COLLECTIVE: Final = _KINDS.index("collective")
_MAX_TORCH_TID: Final = 1 << 16

_SLICE: Final = 1 << 15
"""Rows converted at once: few enough that the columns stay in the CPU's cache."""

_KIND_CODES: Final = np.full(256, -1, np.int32)
_KIND_CODES[[int(kind) for kind in EventKind]] = np.arange(len(_KINDS))

_RECORD: Final = schema.dtype(schema.EVENT_RECORD)
_RAW: Final = np.dtype(f"V{_RECORD.itemsize}")
"""A record as opaque bytes: structured arrays would be copied field by field."""


@dataclass(frozen=True, slots=True)
class Names:
    """What ids mean at the time of a conversion. Ids that are not there read as null."""

    strings: Sequence[str]
    """By string id; index 0 is unused."""
    stack_count: int
    """Stack ids given out, id 0 included."""
    modules_of: ModulesOf
    host_tid_of_torch: Mapping[int, int]
    """torch's number of a thread to its OS thread id."""


def events_table(threads: dict[int, list[Records]], clock: Clock, names: Names) -> pa.Table:
    """Rows of `events`, sorted by tid and start, parents before their first child.

    `threads` holds each host tid's records, and is emptied on the way to keep memory low. All
    chunks of the table share their dictionaries.
    """
    import pyarrow as pa

    lookups = _Lookups(threads, names)
    batches = [
        lookups.batch(records, tid, clock)
        for tid in sorted(threads)
        for records in _sorted_slices(threads.pop(tid), lookups.name.codes)
    ]
    return pa.Table.from_batches(batches, schema=schema.arrow_schema(schema.EVENTS))


def _sorted_slices(chunks: list[Records], name_codes: Codes) -> Iterator[Records]:
    """One thread's records by start; of two with the same start the longer (outer) one first.

    Marks redispatched calls on the way.
    """
    raw = [np.ascontiguousarray(chunk).view(_RAW) for chunk in chunks]
    chunks.clear()
    joined = raw[0] if len(raw) == 1 else np.concatenate(raw)
    raw.clear()
    records = joined.view(_RECORD)
    start = np.ascontiguousarray(records["start_ticks"])
    # Stable: it is a merge of runs, and records that end in order nearly start in order.
    order = np.argsort(start, kind="stable")
    ordered = start[order]
    if (ordered[1:] == ordered[:-1]).any():
        order = np.lexsort((records["depth"], ~records["end_ticks"], start))
    again = redispatched(records, order, name_codes)
    records["flags"][again] |= np.uint8(EventFlag.REDISPATCH)
    del start, ordered, records, again
    for at in range(0, len(order), _SLICE):
        yield joined.take(order[at : at + _SLICE]).view(_RECORD)


def redispatched(
    records: Records, order: npt.NDArray[np.intp], name_codes: Codes
) -> npt.NDArray[np.intp]:
    """Which of one thread's records are the only child of an event of the same name.

    `order` sorts the records by start; a first child follows its parent. This is what
    torch.profiler's `events()` calls a duplicate node, `aten::sum` in `aten::sum` for example.
    """
    names = name_codes[_known(records["name_id"], len(name_codes))][order]
    depth = records["depth"][order].astype(np.int32)
    inner = np.flatnonzero((names[1:] == names[:-1]) & (depth[1:] == depth[:-1] + 1)) + 1
    if not len(inner):
        return order[:0]
    end = records["end_ticks"][order]
    inner = inner[end[inner] <= end[inner - 1]]
    start = records["start_ticks"][order]
    beyond = np.searchsorted(start, end[inner - 1])
    only = np.ones(len(inner), bool)
    for level in np.unique(depth[inner]).tolist():
        at = depth[inner] == level
        siblings = np.flatnonzero(depth == level)
        first, last = np.searchsorted(siblings, [inner[at] + 1, beyond[at]])
        only[at] = last <= first
    found: npt.NDArray[np.intp] = order[inner[only]]
    return found


class _Lookups:
    """Dictionaries of one part, and for each kind of id the array that turns it into a code."""

    def __init__(self, threads: Mapping[int, Sequence[Records]], names: Names) -> None:
        chunks = [chunk for thread in threads.values() for chunk in thread]
        self.kinds = strings(_KINDS)
        used = _used(chunks, "name_id", len(names.strings))
        texts = [names.strings[i] for i in used]
        self.name = _Column(used, texts, len(names.strings))
        self.collective = np.zeros(max(len(names.strings), 1), bool)
        self.collective[used] = [text.startswith(COLLECTIVE_PREFIXES) for text in texts]
        used = _used(chunks, "shape_id", len(names.strings))
        self.shapes = _Column(used, [names.strings[i] for i in used], len(names.strings))
        used = _used(chunks, "stack_id", names.stack_count)
        modules = names.modules_of(used) if used else []
        self.module = _Column(used, [name for name, _ in modules], names.stack_count)
        self.module_class = _Column(used, [cls for _, cls in modules], names.stack_count)
        self.forward = np.zeros(_MAX_TORCH_TID, np.int32)
        for torch_tid, tid in names.host_tid_of_torch.items():
            if 0 < torch_tid < _MAX_TORCH_TID:
                self.forward[torch_tid] = tid

    def batch(self, records: Records, tid: int, clock: Clock) -> pa.RecordBatch:
        """Records of one thread, in their order, as rows of `events`."""
        import pyarrow as pa

        start = clock.to_unix_ns(records["start_ticks"])
        duration = np.maximum(clock.to_unix_ns(records["end_ticks"]) - start, 0)
        name_ids = _known(records["name_id"], len(self.collective))
        kinds: Codes = _KIND_CODES[records["kind"]]
        kinds[self.collective[name_ids]] = _COLLECTIVE
        seq = np.ascontiguousarray(records["seq"])
        forward = self.forward[_known(records["fwd_tid"], _MAX_TORCH_TID)]
        stacks = _known(records["stack_id"], len(self.module.codes))
        columns = {
            "start_ns": numbers(start),
            "duration_ns": numbers(duration),
            "tid": numbers(np.full(len(records), tid, np.int32)),
            "depth": numbers(np.minimum(records["depth"], 0x7FFF).astype(np.int16)),
            "kind": dictionary(kinds, self.kinds),
            "name": self.name.of(name_ids),
            "seq": numbers(seq, seq < 0),
            "fwd_tid": numbers(forward, forward == 0),
            "module": self.module.of(stacks),
            "module_class": self.module_class.of(stacks),
            "stack_id": numbers(stacks.view(np.int32), stacks == 0),
            "shapes": self.shapes.of(_known(records["shape_id"], len(self.shapes.codes))),
            "flags": numbers((records["flags"] & 0x7F).astype(np.int8)),
        }
        target = schema.arrow_schema(schema.EVENTS)
        return pa.RecordBatch.from_arrays([columns[f.name] for f in target], schema=target)


class _Column:
    """A dictionary column filled by id: `codes[id]` is -1 for null."""

    def __init__(self, used: Sequence[int], texts: Sequence[str | None], count: int) -> None:
        # Two ids may have the same text: threads of the target intern without a lock.
        code_of: dict[str, int] = {}
        self.codes: Codes = np.full(max(count, 1), -1, np.int32)
        for i, text in zip(used, texts, strict=True):
            self.codes[i] = -1 if text is None else code_of.setdefault(text, len(code_of))
        self.values = strings(list(code_of))

    def of(self, ids: Ids) -> pa.Array:
        """The column for an array of ids."""
        import pyarrow as pa

        if not len(self.values):
            return pa.nulls(len(ids), pa.dictionary(pa.int32(), pa.string()))
        return dictionary(self.codes[ids], self.values)


def _known(ids: npt.NDArray[Any], count: int) -> Ids:
    """Contiguous ids, those that were never given out replaced by 0."""
    out: Ids = np.ascontiguousarray(ids, np.uint32)
    if len(out) and out.max() >= count:
        out = np.where(out < count, out, np.uint32(0))
    return out


def _used(chunks: Sequence[Records], field: str, count: int) -> list[int]:
    """The distinct ids in a field, except 0."""
    seen = np.zeros(max(count, 1), bool)
    for chunk in chunks:
        seen[_known(chunk[field], len(seen))] = True
    seen[0] = False
    used: list[int] = np.flatnonzero(seen).tolist()
    return used
