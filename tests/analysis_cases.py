"""Events for the analysis tests: hand-made ones, and real ones by way of torch.profiler.

`record` runs a function under torch.profiler with Python stacks and turns what it saw into the
`events` and `stacks` tables that the agent would have written: same names, kinds, nesting,
sequence numbers, module paths and source lines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from gputap.profiler import schema
from gputap.profiler.analysis.load import RankData, rank_data

KINDS = {0: "operator", 1: "autograd", 2: "torchscript", 7: "user_scope"}
FrameRow = tuple[str, str, int, str | None, str | None]


@dataclass
class Tape:
    """Rows of `events` and `stacks`, added one by one."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    stack_ids: dict[tuple[FrameRow, ...], int] = field(default_factory=dict)
    main_tid: int = 1

    def add(
        self,
        name: str,
        start: int,
        end: int,
        *,
        kind: str = "operator",
        tid: int = 1,
        stack: Sequence[FrameRow] = (),
        **more: Any,
    ) -> None:
        inner = next((f for f in stack if f[3] is not None), None)
        row = {
            "start_ns": start,
            "duration_ns": end - start,
            "tid": tid,
            "kind": kind,
            "name": name,
            "stack_id": self.stack_id(tuple(stack)) if stack else None,
            "module": inner[3] if inner else None,
            "module_class": inner[4] if inner else None,
            "flags": 0,
            "depth": 0,
        }
        self.rows.append({**row, **more})

    def stack_id(self, stack: tuple[FrameRow, ...]) -> int:
        return self.stack_ids.setdefault(stack, len(self.stack_ids) + 1)

    def events(self) -> pa.Table:
        target = schema.arrow_schema(schema.EVENTS)
        columns = {f.name: [r.get(f.name) for r in self.rows] for f in target}
        return _table(columns, target)

    def stacks(self) -> pa.Table:
        target = schema.arrow_schema(schema.STACKS)
        rows = [
            (number, i, *frame)
            for stack, number in self.stack_ids.items()
            for i, frame in enumerate(stack)
        ]
        columns = {f.name: [r[i] for r in rows] for i, f in enumerate(target)}
        return _table(columns, target)

    def threads(self) -> pa.Table:
        target = schema.arrow_schema(schema.THREADS)
        tids = sorted({r["tid"] for r in self.rows})
        columns: dict[str, list[Any]] = {f.name: [None] * len(tids) for f in target}
        columns |= {"tid": tids, "is_main": [t == self.main_tid for t in tids]}
        return _table(columns, target)

    def data(self, **more: Any) -> RankData:
        return rank_data(self.events(), stacks=self.stacks(), threads=self.threads(), **more)


def _table(columns: dict[str, list[Any]], target: pa.Schema) -> pa.Table:
    arrays = []
    for f in target:
        if pa.types.is_dictionary(f.type):
            arrays.append(pa.array(columns[f.name], pa.string()).dictionary_encode())
        else:
            arrays.append(pa.array(columns[f.name], f.type))
    return pa.Table.from_arrays(arrays, schema=target)


# -------------------------------------------------------------------------------- real loops


def record(body: Callable[[], Any], *models: Any) -> Tape:
    """What torch did in `body`, with the module names of `models`."""
    import torch

    names: dict[int, tuple[str, str]] = {}
    for model in models:
        for name, module in model.named_modules():
            names.setdefault(id(module), (name, type(module).__name__))
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], with_stack=True, with_modules=True
    ) as profiler:
        body()
    tape = Tape()
    results = profiler.profiler.kineto_results
    for event in results.experimental_event_tree():
        _walk(tape, event, [], names)
    tids = [r["tid"] for r in tape.rows]
    tape.main_tid = max(set(tids), key=tids.count)
    tape.rows.sort(key=lambda r: (r["tid"], r["start_ns"], -r["duration_ns"]))
    return tape


def _walk(tape: Tape, root: Any, chain: list[Any], names: dict[int, tuple[str, str]]) -> None:
    todo = [(root, chain)]
    while todo:
        event, above = todo.pop()
        tag = str(event.tag).rpartition(".")[2]
        if tag == "TorchOp":
            _add_op(tape, event, above, names)
        elif tag in ("PyCall", "PyCCall"):
            above = [*above, event]
        todo += [(child, above) for child in event.children]


def _add_op(tape: Tape, event: Any, above: list[Any], names: dict[int, tuple[str, str]]) -> None:
    extra = event.extra_fields
    scope = int(extra.scope)
    tape.add(
        event.name,
        event.start_time_ns,
        event.start_time_ns + event.duration_time_ns,
        kind=KINDS.get(scope, "operator"),
        tid=event.start_tid,
        stack=tuple(_frames(above, names)),
        seq=extra.sequence_number if extra.sequence_number >= 0 else None,
    )


def _frames(above: list[Any], names: dict[int, tuple[str, str]]) -> Iterator[FrameRow]:
    """Frames innermost first. A frame's current line is what the call below it names."""
    for place in range(len(above) - 1, -1, -1):
        caller = above[place].extra_fields.caller
        owner = above[place - 1] if place else None
        module: tuple[str | None, str | None] = (None, None)
        if owner is not None and getattr(owner.extra_fields, "module", None) is not None:
            info = owner.extra_fields.module
            module = names.get(info.self_ptr, (info.cls_name, info.cls_name))
        yield (caller.function_name, caller.file_name, caller.line_number, *module)
