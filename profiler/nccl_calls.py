"""NCCL's collectives that libraries other than torch ask for, as rows of `nccl_calls`.

The agent hands the arguments over as numbers; what they mean is in NCCL's header (nccl.h, 2.18 to
2.28: numbers were only ever added). They come from somebody else's process: what makes no sense
leaves its columns null.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from gputap.profiler import schema
from gputap.profiler.clock import Clock
from gputap.profiler.columns import table

if TYPE_CHECKING:
    import pyarrow as pa

    from gputap.profiler.agent_memory import Records

OPS: Final = {
    "ncclAllReduce": "all_reduce",
    "ncclReduce": "reduce",
    "ncclReduceScatter": "reduce_scatter",
    "ncclAllGather": "all_gather",
    "ncclAlltoAll": "all_to_all",
    "ncclGather": "gather",
    "ncclScatter": "scatter",
    "ncclBroadcast": "broadcast",
    "ncclBcast": "broadcast",
    "ncclSend": "send",
    "ncclRecv": "recv",
}
_TYPES: Final = (
    ("int8", 1),
    ("uint8", 1),
    ("int32", 4),
    ("uint32", 4),
    ("int64", 8),
    ("uint64", 8),
    ("float16", 2),
    ("float32", 4),
    ("float64", 8),
    ("bfloat16", 2),
    ("float8_e4m3fn", 1),
    ("float8_e5m2", 1),
)
_REDUCTIONS: Final = ("sum", "prod", "max", "min", "avg")
_COUNTED_PER_RANK: Final = frozenset({"reduce_scatter", "all_to_all", "scatter"})
"""The count is what one rank gets; the input holds so much for each."""

_ARGUMENTS: Final = (
    "count", "type", "reduction", "peer", "comm", "stream", "rank", "size", "device", "result",
)  # fmt: skip


def nccl_rows(
    threads: Mapping[int, Sequence[Records]], clock: Clock, strings: Sequence[str]
) -> pa.Table:
    """Rows of `nccl_calls` by thread and start. `threads` holds each host tid's records."""
    columns: dict[str, list[Any]] = {column.name: [] for column in schema.NCCL_CALLS.columns}
    described: dict[tuple[int, int], dict[str, Any]] = {}
    for tid in sorted(tid for tid, chunks in threads.items() if chunks):
        records = np.concatenate(list(threads[tid]))
        records = records[np.argsort(records["start_ticks"], kind="stable")]
        start = clock.to_unix_ns(records["start_ticks"])
        length = np.maximum(clock.to_unix_ns(records["end_ticks"]) - start, 0)
        columns["start_ns"] += start.tolist()
        columns["duration_ns"] += length.tolist()
        columns["tid"] += [tid] * len(records)
        ids = zip(records["name_id"].tolist(), records["shape_id"].tolist(), strict=True)
        for name, arguments in ids:
            row = described.get((name, arguments))
            if row is None:
                row = _described(_text(strings, name), _text(strings, arguments))
                described[name, arguments] = row
            for column, value in row.items():
                columns[column].append(value)
    return table(schema.NCCL_CALLS, columns)


def _text(strings: Sequence[str], number: int) -> str:
    return strings[number] if 0 < number < len(strings) else ""


def _described(name: str, text: str) -> dict[str, Any]:
    """Every column but the times and the thread, of one call."""
    given = _arguments(text)
    op = OPS.get(name)
    count, size = given.get("count"), _not_negative(given.get("size"))
    kind = given.get("type", -1)
    dtype, width = _TYPES[kind] if 0 <= kind < len(_TYPES) else (None, None)
    times = size if op in _COUNTED_PER_RANK else 1
    payload = count * width * times if count is not None and width and times else None
    if payload is not None and payload >= 2**63:
        payload = None
    return {
        "name": name or None,
        "op": op,
        "count": count if op else None,
        "dtype": dtype,
        "bytes": payload if op else None,
        "reduction": _reduction(given.get("reduction", -1)),
        "peer": _not_negative(given.get("peer")),
        "communicator": _handle(given.get("comm")),
        "comm_rank": _not_negative(given.get("rank")),
        "comm_size": size,
        "device_id": _not_negative(given.get("device")),
        "stream": _handle(given.get("stream")),
        "return_value": given.get("result"),
    }


def _arguments(text: str) -> dict[str, int]:
    try:
        found = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        return {}
    if not isinstance(found, dict) or set(found) != set(_ARGUMENTS):
        return {}
    if not all(type(value) is int and -(2**63) <= value < 2**63 for value in found.values()):
        return {}
    small = ("type", "reduction", "peer", "rank", "size", "device", "result")
    if not all(-(2**31) <= found[name] < 2**31 for name in small):
        return {}
    return found if found["count"] >= 0 else {}


def _not_negative(value: int | None) -> int | None:
    return None if value is None or value < 0 else value


def _reduction(number: int) -> str | None:
    if number < 0:
        return None
    return _REDUCTIONS[number] if number < len(_REDUCTIONS) else "custom"


def _handle(value: int | None) -> str | None:
    return None if value is None else f"{value & (2**64 - 1):#x}"
