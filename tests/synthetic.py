"""Small captures with known content, written through `CaptureWriter`.

`build(path, Plan(...))` writes a training job whose every nanosecond is known; `Plan` plants the
faults. One step on the main thread, each line one after the other, nothing between:

```
loader      enumerate(DataLoader)#...__next__              data_wait_ns
gap         nothing, or a GC pause of gc_ns inside it      gap_ns
forward     per layer: aten::linear > aten::addmm          layers * forward_op_ns
loss        aten::mse_loss                                 loss_ns
zero_grad   Optimizer.zero_grad#SGD.zero_grad              zero_grad_ns
backward    per layer, last first: evaluate_function > AddmmBackward0 > aten::mm
                                                           layers * backward_op_ns
wait        only with several ranks: c10d::allreduce_ at its start, then nothing,
            while gloo:all_reduce runs on another thread   collective_ns (+ what it waits)
optimizer   Optimizer.step#SGD.step > aten::_foreach_add_  optimizer_ns
```

A step ends where its `Optimizer.step` ends; the first begins at the first loader call.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import pyarrow as pa

from gputap.profiler import schema
from gputap.profiler.store import Capture, CaptureWriter, ClockManifest, RankManifest

START_NS = 1_700_000_000_000_000_000
"""Unix time of the first step."""

JOB = "synthetic"
LOADER = "enumerate(DataLoader)#_MultiProcessingDataLoaderIter.__next__"
OPTIMIZER = "Optimizer.step#SGD.step"
ZERO_GRAD = "Optimizer.zero_grad#SGD.zero_grad"


@dataclass(frozen=True)
class Plan:
    """What the job does. Durations in ns."""

    steps: int = 4
    ranks: int = 1
    layers: int = 3
    data_wait_ns: int = 1_000_000
    gap_ns: int = 100_000
    forward_op_ns: int = 200_000
    loss_ns: int = 50_000
    zero_grad_ns: int = 30_000
    backward_op_ns: int = 400_000
    optimizer_ns: int = 300_000
    collective_ns: int = 500_000
    """Time of an all_reduce once all ranks are there; none with one rank."""
    bytes: int = 4 << 20
    """Payload of an all_reduce."""
    gc_step: int | None = 1
    """Step with a garbage collection in its gap."""
    gc_ns: int = 40_000
    recorded_every: int = 1
    """Only every n-th step has its operators; user scopes and GC are always there."""
    slow_steps: tuple[int, ...] = ()
    slow_data_wait_ns: int = 0
    """Added to the loader's time in slow_steps, on every rank."""
    slow_rank: int | None = None
    slow_rank_ns: int = 0
    """Added to the gap of every step on slow_rank: the others wait in the all_reduce."""
    level: str = "framework"
    level_reasons: tuple[str, ...] = ("no CUDA device in the target",)
    mode: str = "full"
    dropped: dict[str, int] = field(default_factory=dict)
    host: str = "host0"
    part_steps: int | None = None
    """Steps per part file; all in one if None."""


@dataclass(frozen=True)
class StepTruth:
    """What is true of one step of one rank."""

    step: int
    start_ns: int
    end_ns: int
    recorded: bool
    data_wait_ns: int
    forward_ns: int
    """Operators of layers and loss."""
    backward_ns: int
    """From the first to the last autograd node."""
    optimizer_ns: int
    """Optimizer.step alone."""
    zero_grad_ns: int
    gap_ns: int
    """Time with nothing on the main thread: the gap (GC included) and the wait for all_reduce."""
    gc_ns: int
    collective_ns: int
    """Length of gloo:all_reduce on this rank."""

    @property
    def dur_ns(self) -> int:
        """Length of the step."""
        return self.end_ns - self.start_ns


@dataclass(frozen=True)
class Truth:
    """What was built."""

    path: str
    plan: Plan
    steps: dict[int, tuple[StepTruth, ...]]
    """By rank."""
    rows: dict[int, int]
    """Events by rank."""


def main_tid(rank: int) -> int:
    """Main thread of a rank; it is also the pid."""
    return 10_000 + 100 * rank


def gloo_tid(rank: int) -> int:
    """Thread that runs the collectives of a rank."""
    return main_tid(rank) + 7


def module_of(layer: int) -> str:
    """Module of a layer's operators."""
    return f"layers.{layer}"


def build(path: str | os.PathLike[str], plan: Plan | None = None, **changes: Any) -> Truth:
    """Write the capture; `changes` are fields of `Plan`."""
    plan = replace(plan or Plan(), **changes)
    truths, rows = {}, {}
    with CaptureWriter(path, job=JOB, created_ns=START_NS, source="demo") as writer:
        for rank in range(plan.ranks):
            builder = _Rank(plan, rank)
            truths[rank] = tuple(builder.steps())
            writer.set_rank(builder.manifest(truths[rank]))
            for table in builder.event_parts():
                writer.write("events", table, rank=rank)
            writer.write("stacks", builder.stacks(), rank=rank)
            writer.write("threads", builder.threads(), rank=rank)
            rows[rank] = len(builder.events)
    return Truth(os.fspath(path), plan, truths, rows)


def capture(path: str | os.PathLike[str], plan: Plan | None = None, **changes: Any) -> Capture:
    """Write the capture and open it."""
    return Capture.open(build(path, plan, **changes).path)


def event(
    start_ns: int,
    duration_ns: int,
    name: str,
    kind: str = "operator",
    *,
    tid: int = 10_000,
    depth: int = 0,
    **columns: Any,
) -> dict[str, Any]:
    """One row of `events` by hand; columns not given are null, flags 0."""
    row: dict[str, Any] = dict.fromkeys(column.name for column in schema.EVENTS.columns)
    row.update(start_ns=start_ns, duration_ns=duration_ns, name=name, kind=kind, tid=tid)
    row.update(depth=depth, flags=0, **columns)
    return row


def events_table(rows: Sequence[dict[str, Any]]) -> pa.Table:
    """Rows of `event` as a table, sorted as in a capture."""
    ordered = sorted(rows, key=lambda r: (r["tid"], r["start_ns"], r["depth"]))
    return table_of(schema.EVENTS, ordered)


def table_of(table: schema.Table, rows: Sequence[dict[str, Any]]) -> pa.Table:
    """Rows as an Arrow table of the schema; absent columns are null."""
    target = schema.arrow_schema(table)
    columns = []
    for column in target:
        values = [row.get(column.name) for row in rows]
        if pa.types.is_dictionary(column.type):
            columns.append(pa.array(values, pa.string()).dictionary_encode().cast(column.type))
        else:
            columns.append(pa.array(values, column.type))
    return pa.Table.from_arrays(columns, schema=target)


def write_events(
    path: str | os.PathLike[str],
    rows: Sequence[dict[str, Any]],
    *,
    rank: int = 0,
    manifest: RankManifest | None = None,
    **more: Sequence[dict[str, Any]],
) -> Capture:
    """A capture with exactly these events, and with rows of other tables by their names."""
    with CaptureWriter(path, job=JOB, created_ns=START_NS, source="demo") as writer:
        writer.set_rank(manifest or RankManifest(rank=rank, host="host0", pid=main_tid(rank)))
        writer.write("events", events_table(rows), rank=rank)
        for name, of_table in more.items():
            table = next(t for t in schema.TABLES if t.name == name)
            writer.write(name, table_of(table, of_table), rank=rank)
    return Capture.open(path)


class _Rank:
    """Builds one rank's rows."""

    def __init__(self, plan: Plan, rank: int) -> None:
        self.plan = plan
        self.rank = rank
        self.tid = main_tid(rank)
        self.at = START_NS
        self.seq = 0
        self.events: list[dict[str, Any]] = []
        self.cuts: list[int] = []
        self.full = True

    def steps(self) -> list[StepTruth]:
        out = []
        for step in range(self.plan.steps):
            self.full = step % self.plan.recorded_every == 0
            out.append(self.step(step))
            if self.plan.part_steps and (step + 1) % self.plan.part_steps == 0:
                self.cuts.append(len(self.events))
        return out

    def step(self, step: int) -> StepTruth:
        plan, start = self.plan, self.at
        data_wait = plan.data_wait_ns + plan.slow_data_wait_ns * (step in plan.slow_steps)
        self.scope(LOADER, data_wait)
        gap, gc = self.gap(step)
        forward = self.forward()
        self.scope(ZERO_GRAD, plan.zero_grad_ns)
        backward = self.backward()
        collective = self.collective(step)
        self.op("aten::_foreach_add_", plan.optimizer_ns // 2, depth=1, advance=False)
        self.scope(OPTIMIZER, plan.optimizer_ns)
        return StepTruth(
            step=step,
            start_ns=start,
            end_ns=self.at,
            recorded=self.full,
            data_wait_ns=data_wait,
            forward_ns=forward,
            backward_ns=backward,
            optimizer_ns=plan.optimizer_ns,
            zero_grad_ns=plan.zero_grad_ns,
            gap_ns=gap + max(0, collective - self.enqueue_ns),
            gc_ns=gc,
            collective_ns=collective,
        )

    enqueue_ns = 10_000
    """Length of c10d::allreduce_ on the main thread, within the collective's time."""

    def scope(self, name: str, duration: int) -> None:
        self.add(name, duration, "user_scope")
        self.at += duration

    def op(self, name: str, duration: int, *, advance: bool = True, **columns: Any) -> None:
        if self.full:
            self.add(name, duration, columns.pop("kind", "operator"), **columns)
        if advance:
            self.at += duration

    def add(self, name: str, duration: int, kind: str, **columns: Any) -> None:
        row = event(self.at, duration, name, kind, **{"tid": self.tid, **columns})
        self.events.append(row)

    def gap(self, step: int) -> tuple[int, int]:
        plan = self.plan
        gap = plan.gap_ns + plan.slow_rank_ns * (plan.slow_rank == self.rank)
        gc = plan.gc_ns if step == plan.gc_step else 0
        if gc:
            self.add("gc", gc, "gc", seq=2)
        self.at += gap
        return gap, gc

    def forward(self) -> int:
        start = self.at
        for layer in range(self.plan.layers):
            where = {"module": module_of(layer), "module_class": "Linear", "stack_id": layer + 1}
            where["seq"] = self.seq + layer
            inner = self.plan.forward_op_ns // 2
            self.op("aten::addmm", inner, depth=1, advance=False, **where)
            self.op("aten::linear", self.plan.forward_op_ns, **where)
        root = {"module": "", "module_class": "Model", "stack_id": self.plan.layers + 1}
        self.op("aten::mse_loss", self.plan.loss_ns, seq=self.seq + self.plan.layers, **root)
        return self.at - start

    def backward(self) -> int:
        start, length = self.at, self.plan.backward_op_ns
        for layer in reversed(range(self.plan.layers)):
            seq = self.seq + layer
            self.op("aten::mm", length // 2, depth=2, advance=False)
            node = {"kind": "autograd", "seq": seq, "fwd_tid": self.tid}
            self.op("AddmmBackward0", length * 3 // 4, depth=1, advance=False, **node)
            self.op("autograd::engine::evaluate_function: AddmmBackward0", length, seq=seq)
        self.seq += self.plan.layers + 1
        return self.at - start

    def collective(self, step: int) -> int:
        plan = self.plan
        if plan.ranks == 1:
            return 0
        slow = plan.slow_rank_ns if plan.slow_rank is not None else 0
        wait = slow * (plan.slow_rank != self.rank)
        duration = plan.collective_ns + wait
        self.op("c10d::allreduce_", self.enqueue_ns, kind="collective", advance=False)
        shapes = f'{{"shapes":[[{plan.bytes // 4}]],"dtypes":["float"]}}'
        self.add("gloo:all_reduce", duration, "collective", tid=gloo_tid(self.rank), shapes=shapes)
        self.at += duration
        return duration

    def event_parts(self) -> list[pa.Table]:
        edges = [0, *self.cuts, len(self.events)]
        pairs = pairwise(edges)
        return [events_table(self.events[a:b]) for a, b in pairs if b > a]

    def stacks(self) -> pa.Table:
        rows = []
        for layer in range(self.plan.layers + 1):
            root = layer == self.plan.layers
            rows += [
                {
                    "stack_id": layer + 1,
                    "frame": 0,
                    "function": "Model.loss" if root else "Linear.forward",
                    "file": "/app/train.py" if root else "/site-packages/torch/nn/linear.py",
                    "line": 42 if root else 125,
                    "module": "" if root else module_of(layer),
                    "module_class": "Model" if root else "Linear",
                },
                {
                    "stack_id": layer + 1,
                    "frame": 1,
                    "function": "train",
                    "file": "/app/train.py",
                    "line": 10 + layer,
                },
            ]
        return table_of(schema.STACKS, rows)

    def threads(self) -> pa.Table:
        names = {self.tid: "MainThread"}
        if self.plan.ranks > 1:
            names[gloo_tid(self.rank)] = "pt_gloo_runner"
        rows = [
            {
                "tid": tid,
                "name": name,
                "torch_tid": i + 1,
                "is_main": tid == self.tid,
                "events": sum(e["tid"] == tid for e in self.events),
                "dropped": 0,
            }
            for i, (tid, name) in enumerate(names.items())
        ]
        return table_of(schema.THREADS, rows)

    def manifest(self, steps: Sequence[StepTruth]) -> RankManifest:
        plan = self.plan
        return RankManifest(
            rank=self.rank,
            host=plan.host,
            pid=self.tid,
            world_size=plan.ranks,
            local_rank=self.rank,
            level=plan.level,
            level_reasons=plan.level_reasons,
            target={"command": "python train.py", "python": "3.11.7", "torch": "2.9.0"},
            clock=ClockManifest(offset_ns=START_NS - 5_000_000_000, error_ns=40, samples=20),
            mode=plan.mode,
            window_start_ns=START_NS,
            window_end_ns=self.at,
            recorded_ns=sum(s.dur_ns for s in steps if s.recorded),
            events=len(self.events),
            boundaries=plan.steps,
            bursts=sum(s.recorded for s in steps),
            dropped=plan.dropped,
            stop_reason="deadline",
            pause_ns=250_000,
        )
