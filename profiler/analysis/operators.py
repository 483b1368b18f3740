"""Operators by name: how often, how long, how long by themselves, and where from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from gputap.profiler.analysis.attribution import Attribution
from gputap.profiler.analysis.intervals import Ints, Mask
from gputap.profiler.analysis.load import Codes, Frame, RankData
from gputap.profiler.analysis.model import Operator
from gputap.profiler.schema import EventFlag, EventKind

KINDS: Final = (EventKind.OPERATOR, EventKind.AUTOGRAD, EventKind.TORCHSCRIPT)
_DETAILED: Final = 200
"""Names, by self time, that get a module and a source line."""


@dataclass(frozen=True, slots=True)
class OpTotal:
    """One name on one rank."""

    name: str
    kind: str
    count: int
    total_ns: int
    self_ns: int
    top_module: str | None
    top_source: str | None
    top_self_ns: int
    """Self time in `top_module`."""
    device_ns: int | None = None
    """GPU time of what it launched itself; None below level `device`."""


def operator_totals(data: RankData, place: Attribution, chosen: Mask) -> list[OpTotal]:
    """Totals of the chosen events. A name inside itself counts once in the total time.

    A call that torch dispatched twice under one name counts once, as in torch.profiler's tables.
    """
    events, nesting = data.events, data.nesting
    rows = np.flatnonzero(chosen & events.of_kind(*KINDS) & (events.name >= 0))
    if not len(rows):
        return []
    name, own = events.name[rows], nesting.self_ns[rows]
    parent = nesting.parent[rows]
    recursive = (parent >= 0) & (events.name[parent] == name)
    length = np.where(recursive, 0, events.end[rows] - events.start[rows])
    size = len(events.names)
    again = (events.flags[rows] & np.int8(EventFlag.REDISPATCH)) != 0
    count = np.bincount(name[~again], minlength=size)
    total = np.bincount(name, weights=length, minlength=size).astype(np.int64)
    self_ns = np.bincount(name, weights=own, minlength=size).astype(np.int64)
    kind = np.zeros(size, np.int8)
    kind[name[::-1]] = events.kind[rows][::-1]
    top = np.argsort(-self_ns, kind="stable")[:_DETAILED]
    modules = _heaviest(name, place.module[rows], own, top)
    stacks = _heaviest(name, place.stack_id[rows], own, top)
    kinds = {int(k): k.name.lower() for k in KINDS}
    result = []
    for code in np.flatnonzero(count).tolist():
        module, module_ns = modules.get(code, (-1, 0))
        stack, _ = stacks.get(code, (-1, 0))
        result.append(
            OpTotal(
                name=events.names[code],
                kind=kinds[int(kind[code])],
                count=int(count[code]),
                total_ns=int(total[code]),
                self_ns=int(self_ns[code]),
                top_module=events.modules[module] if module >= 0 else None,
                top_source=source(data.stacks.frames(stack)) if stack >= 0 else None,
                top_self_ns=module_ns,
            )
        )
    return result


def merge_operators(ranks: Sequence[Sequence[OpTotal]], base_ns: int) -> tuple[Operator, ...]:
    """Operators of all ranks, most self time first. `base_ns` is the time that shares refer to."""
    by_name: dict[str, list[OpTotal]] = {}
    for totals in ranks:
        for op in totals:
            by_name.setdefault(op.name, []).append(op)
    merged = [_merge(ops, base_ns) for ops in by_name.values()]
    return tuple(sorted(merged, key=lambda op: (-op.self_ns, op.name)))


def _merge(ops: list[OpTotal], base_ns: int) -> Operator:
    top = max(ops, key=lambda op: op.self_ns)
    count = sum(op.count for op in ops)
    total_ns = sum(op.total_ns for op in ops)
    self_ns = sum(op.self_ns for op in ops)
    return Operator(
        name=top.name,
        kind=top.kind,
        count=count,
        total_ns=total_ns,
        self_ns=self_ns,
        mean_ns=total_ns // count,
        share=self_ns / base_ns if base_ns else 0.0,
        top_module=top.top_module,
        top_source=top.top_source,
        device_ns=total_known(op.device_ns for op in ops),
    )


def total_known(values: Iterable[int | None]) -> int | None:
    """The sum of what is known; None if nothing is."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def source(frames: Sequence[Frame]) -> str | None:
    """`file:line function` of the innermost frame outside torch itself; None if there is none."""
    for frame in frames:
        if "/torch/" not in frame.file and not frame.file.startswith(("<", "torch/")):
            return f"{frame.file}:{frame.line} {frame.function}"
    return None


def _heaviest(name: Codes, place: Codes, own: Ints, top: Ints) -> dict[int, tuple[int, int]]:
    """For the names in `top`: the place with most self time, and how much it is."""
    slot = np.full(int(name.max()) + 1, -1, np.int64)
    top = top[top < len(slot)]
    slot[top] = np.arange(len(top))
    rows = np.flatnonzero((slot[name] >= 0) & (place >= 0))
    if not len(rows):
        return {}
    places, dense = _dense(place[rows])
    key = slot[name[rows]] * len(places) + dense
    sums = np.bincount(key, weights=own[rows], minlength=len(top) * len(places))
    table = sums.reshape(len(top), len(places)).astype(np.int64)
    seen = np.bincount(key, minlength=table.size).reshape(table.shape).any(axis=1)
    best = table.argmax(axis=1)
    return {
        int(top[i]): (int(places[best[i]]), int(table[i, best[i]])) for i in np.flatnonzero(seen)
    }


def _dense(codes: Codes) -> tuple[Ints, Ints]:
    """The distinct codes, and each code's place among them. No sort: codes are small."""
    used = np.zeros(int(codes.max()) + 1, np.bool_)
    used[codes] = True
    place = np.cumsum(used) - 1
    return np.flatnonzero(used).astype(np.int64), place[codes]
