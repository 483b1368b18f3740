"""What torch's flight recorder knows of collectives: process group and sequence number.

The recorder notes when a collective was enqueued; the events say when its work began and ended.
The two lists are joined by name and order: the i-th work of a name belongs to the i-th entry of
that name after a shift, the largest one with which every work begins after it was enqueued.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from gputap.profiler.analysis.intervals import Ints

_LONGEST_QUEUED_NS: Final = 60_000_000_000
"""An entry enqueued so long before the work began belongs to another one."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One collective as the flight recorder has it."""

    name: str
    created_ns: int
    """Unix time of the enqueueing."""
    group: str
    """The group's description where it has one, else its name."""
    seq: int
    name_in_torch: str = ""
    """Of the group: what torch.distributed calls it."""


def entries(recorder: Any) -> list[Entry]:
    """The recorder's entries in the answer that a target gave; what makes no sense is left out."""
    if not isinstance(recorder, Mapping):
        return []
    columns, rows = recorder.get("columns"), recorder.get("rows")
    if not isinstance(columns, list) or not isinstance(rows, list):
        return []
    found = (_entry(dict(zip(columns, row, strict=False))) for row in rows if isinstance(row, list))
    return sorted((e for e in found if e is not None), key=lambda e: (e.created_ns, e.seq))


def _entry(row: Mapping[str, Any]) -> Entry | None:
    name, created, group = (
        row.get("profiling_name"),
        row.get("time_created_ns"),
        row.get("process_group"),
    )
    seq = row.get("p2p_seq_id") if row.get("is_p2p") else row.get("collective_seq_id")
    if not (isinstance(name, str) and isinstance(created, int) and isinstance(seq, int)):
        return None
    words = [str(word) for word in group if word] if isinstance(group, list) else [str(group or "")]
    first = str(group[0]) if isinstance(group, list) and group else ""
    return Entry(name, created, words[-1] if words else "", seq, first)


def match(recorded: Sequence[Entry], names: Sequence[str], start: Ints) -> list[Entry | None]:
    """For each collective, by its name and start (ascending), the entry that it belongs to."""
    out: list[Entry | None] = [None] * len(names)
    for name in set(names):
        mine = [e for e in recorded if e.name == name]
        rows = [i for i, other in enumerate(names) if other == name]
        if not mine:
            continue
        created = np.array([e.created_ns for e in mine], np.int64)
        begun = start[rows]
        shift = int(
            (np.searchsorted(created, begun, side="right") - 1 - np.arange(len(rows))).min()
        )
        for order, row in enumerate(rows):
            at = order + shift
            if 0 <= at < len(mine) and begun[order] - created[at] < _LONGEST_QUEUED_NS:
                out[row] = mine[at]
    return out
