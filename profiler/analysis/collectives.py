"""Collectives of one rank: rows for the `collectives` table, and sums by kind.

torch shows a collective up to twice: the call (`c10d::allreduce_`), which returns when the work is
queued, and the work itself (`gloo:all_reduce`), which lasts until all ranks are done. Where works
were seen they are the collectives; the calls are then only CPU time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np

from gputap.profiler import schema
from gputap.profiler.analysis.collective_device import bandwidths, on_device
from gputap.profiler.analysis.groups import Groups
from gputap.profiler.analysis.intervals import Ints, Mask, Union, containing, outermost, union
from gputap.profiler.analysis.load import ARRAYS, LISTS, Events, RankData
from gputap.profiler.analysis.matching import match as match_ranks
from gputap.profiler.analysis.model import Collective
from gputap.profiler.analysis.nccl import nccl_columns
from gputap.profiler.analysis.recorder import entries, match

if TYPE_CHECKING:
    import pyarrow as pa

    from gputap.profiler.analysis.launches import Launches
    from gputap.profiler.analysis.steps import Cuts

_WORK: Final = re.compile(r"(gloo|nccl|mpi|ucc|xccl|hccl):(\w+)")
_CALL: Final = re.compile(r"(?:_?c10d(?:_functional)?)::(\w+)")
_WAITS: Final = frozenset({"wait_tensor", "monitored_barrier_wait"})
_OPS: Final = {
    "allreduce": "all_reduce",
    "allreduce_coalesced": "all_reduce",
    "allgather": "all_gather",
    "_allgather_base": "all_gather",
    "allgather_coalesced": "all_gather",
    "allgather_into_tensor_coalesced": "all_gather",
    "all_gather_into_tensor": "all_gather",
    "_reduce_scatter_base": "reduce_scatter",
    "reduce_scatter_tensor": "reduce_scatter",
    "reduce_scatter_tensor_coalesced": "reduce_scatter",
    "alltoall": "all_to_all",
    "alltoall_base": "all_to_all",
    "all_to_all_single": "all_to_all",
    "recv_any_source": "recv",
}
_SIZES: Final = {
    "bool": 1,
    "byte": 1,
    "uint8": 1,
    "char": 1,
    "int8": 1,
    "half": 2,
    "float16": 2,
    "bfloat16": 2,
    "short": 2,
    "int16": 2,
    "int": 4,
    "int32": 4,
    "float": 4,
    "float32": 4,
    "long": 8,
    "int64": 8,
    "double": 8,
    "float64": 8,
}


ALONE: Final = Groups()
"""Nothing is known of process groups."""

_Key: TypeAlias = tuple[Any, ...]
"""Operation, backend, group, element type and bytes: one sort of collective."""


def collective_union(data: RankData) -> Union:
    """When at least one collective was in flight."""
    found = collectives(data)
    return union(found.start, found.end)


def collectives(data: RankData) -> Events:
    """One event per collective, by start: works where there are any, else outermost calls."""
    pieces = [e.take(_works(e)) for e in (data.events, data.flights)]
    if not any(map(len, pieces)):
        calls = _calls(data.events)
        calls[calls] = _outermost_calls(data.events, calls)
        pieces = [data.events.take(calls)]
    found = max(pieces, key=len)
    if len(pieces) == 2 and min(map(len, pieces)):
        found = _concatenated(pieces)
    return found.take(np.argsort(found.start, kind="stable"))


def collective_rows(
    data: RankData,
    cuts: Cuts,
    *,
    groups: Groups = ALONE,
    recorder: Any = None,
    launches: Launches | None = None,
) -> pa.Table:
    """Rows of `schema.COLLECTIVES` for one rank; with `launches` timed by their kernels.

    Those that other libraries asked NCCL for come behind torch's. `recorder` is the flight
    recorder's answer: it gives group and sequence number. Without it `seq` counts from the
    window's start and the group is null.
    """
    import pyarrow as pa

    found = collectives(data)
    labels = [parse_name(n) for n in found.names]
    payloads = [_payload(t) for t in found.shape_texts]
    step = containing(found.start, cuts.start, cuts.end)
    name = found.name.tolist()
    payload = [payloads[c] if c >= 0 else (None, None) for c in found.shapes.tolist()]
    is_work = [labels[c][0] is not None for c in name]
    known = match(entries(recorder), [found.names[c] for c in name], found.start)
    place = [groups.of(entry) for entry in known]
    order = np.where(found.seq >= 0, found.seq, np.arange(len(found))).tolist()
    gpu = on_device(data, launches, found) if launches else None
    timed = gpu.known if gpu else np.zeros(len(found), np.bool_)
    start = np.where(timed, gpu.start, found.start) if gpu else found.start
    end = np.where(timed, gpu.end, found.end) if gpu else found.end
    source = ["host_work" if w else "host_call" for w in is_work]
    columns: dict[str, Any] = {
        "start_ns": start,
        "duration_ns": end - start,
        "enqueued_ns": found.start,
        "tid": found.tid,
        "op": [labels[c][1] for c in name],
        "backend": [labels[c][0] for c in name],
        "group_name": [entry.group if entry else None for entry in known],
        "seq": [e.seq if e else n for e, n in zip(known, order, strict=True)],
        "bytes": [p[0] for p in payload],
        "dtype": [p[1] for p in payload],
        "world_size": [size for size, _ in place],
        "group_rank": [rank for _, rank in place],
        "communicator": [None] * len(found),
        "step": [None if s < 0 else s for s in step.tolist()],
        "algorithm": gpu.algorithm if gpu else [None] * len(found),
        "protocol": gpu.protocol if gpu else [None] * len(found),
        "timing_source": ["device" if t else s for t, s in zip(timed, source, strict=True)],
    }
    own = _table(columns)
    others = nccl_columns(data, cuts, launches)
    return own if others is None else pa.concat_tables([own, _table(others)]).combine_chunks()


def _table(columns: dict[str, Any]) -> pa.Table:
    import pyarrow as pa

    columns |= _with_bandwidths(columns)
    target = schema.arrow_schema(schema.COLLECTIVES)
    return pa.Table.from_arrays([_column(columns[f.name], f.type) for f in target], schema=target)


def _with_bandwidths(columns: dict[str, Any]) -> dict[str, list[float | None]]:
    """Bandwidths by this rank's own time, which holds its waiting for the others."""
    names = ("op", "bytes", "world_size", "duration_ns", "timing_source")
    pairs = [
        bandwidths(op, size, ranks, length) if source == "device" else (None, None)
        for op, size, ranks, length, source in zip(*(columns[n] for n in names), strict=True)
    ]
    return {"algbw": [pair[0] for pair in pairs], "busbw": [pair[1] for pair in pairs]}


def merge_collectives(tables: Iterable[pa.Table]) -> tuple[Collective, ...]:
    """Collectives of all ranks by operation, backend, group, type and size; longest first."""
    tables = list(tables)
    groups: dict[_Key, list[tuple[int, str]]] = {}
    for table in tables:
        columns = [table.column(name).to_pylist() for name in ("duration_ns", "timing_source")]
        for key, *row in zip(_keys(table), *columns, strict=True):
            groups.setdefault(key, []).append((row[0], row[1]))
    transfers = _transfers(tables)
    made = [_collective(key, rows, transfers.get(key)) for key, rows in groups.items()]
    return tuple(sorted(made, key=lambda c: -c.total_ns))


def _keys(table: pa.Table) -> list[_Key]:
    names = ("op", "backend", "group_name", "dtype", "bytes")
    return list(zip(*(table.column(name).to_pylist() for name in names), strict=True))


def _transfers(tables: Sequence[pa.Table]) -> dict[_Key, tuple[int, int | None]]:
    """Mean time of a transfer by sort of collective, and ranks that took part."""
    matched = match_ranks(tables)
    if matched is None:
        return {}
    keys, sizes = _keys(tables[0]), tables[0].column("world_size").to_pylist()
    found: dict[_Key, list[int]] = {}
    ranks: dict[_Key, int | None] = {}
    for row, length in zip(matched.row.tolist(), matched.transfer.tolist(), strict=True):
        found.setdefault(keys[row], []).append(length)
        ranks[keys[row]] = sizes[row]
    return {key: (sum(lengths) // len(lengths), ranks[key]) for key, lengths in found.items()}


def parse_name(name: str) -> tuple[str | None, str]:
    """Backend (None if the name does not tell) and operation: `gloo:all_reduce`."""
    work = _WORK.match(name)
    if work:
        return work[1], _OPS.get(work[2], work[2])
    call = _CALL.match(name)
    op = call[1].rstrip("_") if call else name
    return None, _OPS.get(op, op)


def _collective(
    key: _Key, rows: Sequence[tuple[int, str]], transfer: tuple[int, int | None] | None
) -> Collective:
    op, backend, group_name, dtype, size = key
    # The CPU's times tell nothing of work on a GPU: rows at the edge whose kernel is not in.
    rows = [row for row in rows if row[1] == "device"] or rows
    lengths, sources = [ns for ns, _ in rows], {source for _, source in rows}
    source = sources.pop() if len(sources) == 1 else "mixed"
    busbw = None
    if transfer is not None and source == "device":
        _, busbw = bandwidths(op, size, transfer[1], transfer[0])
    return Collective(
        op=op,
        backend=backend,
        group_name=group_name,
        dtype=dtype,
        count=len(lengths),
        bytes=size,
        total_ns=sum(lengths),
        mean_ns=sum(lengths) // len(lengths),
        max_ns=max(lengths),
        timing_source=source,
        transfer_ns=transfer[0] if transfer else None,
        busbw=busbw,
    )


def _works(events: Events) -> Mask:
    return _with_names(events, [bool(_WORK.match(n)) for n in events.names])


def _calls(events: Events) -> Mask:
    matches = [_CALL.match(n) for n in events.names]
    return _with_names(events, [m is not None and m[1] not in _WAITS for m in matches])


def _with_names(events: Events, hit: Sequence[bool]) -> Mask:
    table = np.array([*hit, False], np.bool_)
    found: Mask = table[events.name]
    return found


def _outermost_calls(events: Events, calls: Mask) -> Mask:
    """Of the calls, those in no other. By thread: a later thread starts over."""
    rows = np.flatnonzero(calls)
    keep = np.zeros(len(rows), np.bool_)
    for tid in np.unique(events.tid[rows]):
        mine = events.tid[rows] == tid
        keep[mine] = outermost(events.start[rows[mine]], events.end[rows[mine]])
    return keep


def _concatenated(pieces: Sequence[Events]) -> Events:
    """Events of one rank that share their lists of names."""
    first = pieces[0]
    arrays: dict[str, Any] = {f: np.concatenate([getattr(p, f) for p in pieces]) for f in ARRAYS}
    lists: dict[str, Any] = {f: getattr(first, f) for f in LISTS}
    return Events(**arrays, **lists)


def _payload(text: str) -> tuple[int | None, str | None]:
    """Bytes and element type of the first tensor in a `shapes` text; Nones if it has none."""
    try:
        tensors = json.loads(text)
        shape, dtype = next((s, d) for s, d in tensors if d)
        count = int(np.prod([int(n) for n in shape], dtype=np.int64))
    except (ValueError, TypeError, StopIteration):
        return None, None
    size = _SIZES.get(str(dtype).removeprefix("torch.").lower())
    return (count * size if size else None), str(dtype)


def _column(values: Ints | list[Any], kind: Any) -> Any:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return pa.array(values, pa.string()).dictionary_encode()
    return pa.array(values, kind)
