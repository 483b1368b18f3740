"""CUDA calls that the agent's callbacks recorded, as rows of `cuda_api`.

Before CUDA 12.5 CUPTI cannot record single calls by itself; then the agent writes them into the
rings of the threads, like operators. From 12.5 on they come as CUPTI's records (`cupti.tables`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from gputap.profiler import schema
from gputap.profiler.clock import Clock
from gputap.profiler.columns import numbers
from gputap.profiler.cupti.callbacks import CALLS
from gputap.profiler.cupti.filling import Texts

if TYPE_CHECKING:
    import pyarrow as pa

    from gputap.profiler.agent_memory import Records

_VERSION: Final = re.compile(r"_v\d+$|_pt[sd]z$|_ptds$")
_GROUPS: Final = {call.name: call.group.name.lower() for call in CALLS}


def plain_name(function: str) -> str:
    """`cudaLaunchKernel_v7000` and `cuMemAlloc_v2` as they are documented."""
    while (shorter := _VERSION.sub("", function)) != function:
        function = shorter
    return function


def call_rows(
    threads: Mapping[int, Sequence[Records]], clock: Clock, strings: Sequence[str]
) -> pa.Table:
    """Rows of `cuda_api` by thread and start, without what the runtime called of the driver.

    `threads` holds each host tid's records; nothing tells the calls' results.
    """
    import pyarrow as pa

    tids = sorted(tid for tid, chunks in threads.items() if chunks)
    parts = [_outer(np.concatenate(list(threads[tid])), strings) for tid in tids]
    records = np.concatenate(parts)
    tid = np.repeat(np.array(tids, np.int32), [len(part) for part in parts])
    start = clock.to_unix_ns(records["start_ticks"])
    duration = np.maximum(clock.to_unix_ns(records["end_ticks"]) - start, 0)
    ids, of_row = np.unique(records["name_id"], return_inverse=True)
    names = [_name(strings, number) for number in ids.tolist()]
    columns = {
        "start_ns": numbers(start),
        "duration_ns": numbers(duration),
        "tid": numbers(tid),
        "name": _by_row(names, of_row),
        "correlation_id": numbers(np.ascontiguousarray(records["seq"])),
        "group": _by_row([_GROUPS.get(name or "") for name in names], of_row),
        "return_value": pa.nulls(len(records), pa.int32()),
    }
    target = schema.arrow_schema(schema.CUDA_API)
    return pa.Table.from_arrays([columns[f.name] for f in target], schema=target)


def _by_row(values: Sequence[str | None], of_row: npt.NDArray[np.intp]) -> pa.Array:
    """A dictionary column: row i has `values[of_row[i]]`."""
    texts = Texts()
    codes = np.array([texts.code(value) for value in values], np.int32)
    return texts.column(codes[of_row])


def _name(strings: Sequence[str], number: int) -> str | None:
    return plain_name(strings[number]) if 0 < number < len(strings) else None


def _outer(records: Records, strings: Sequence[str]) -> Records:
    """One thread's calls by start; a call of the driver within one of the runtime has its id."""
    ordered = records[np.lexsort((~records["end_ticks"], records["start_ticks"]))]
    of_runtime = np.array([text.startswith(("cuda", "__cuda")) for text in strings], bool)
    known = of_runtime[np.minimum(ordered["name_id"], len(strings) - 1)]
    outer: Records = ordered[known | ~np.isin(ordered["seq"], ordered["seq"][known])]
    return outer
