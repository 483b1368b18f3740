"""Synthetic captures that have the tables `steps` and `collectives` too, from the known truth."""

from __future__ import annotations

import os
from typing import Any

from gputap.profiler import schema
from gputap.profiler.store import Capture, CaptureWriter
from tests.synthetic import JOB, START_NS, Plan, StepTruth, _Rank, main_tid, table_of


def step_row(truth: StepTruth, rank: int, events: int) -> dict[str, Any]:
    """The row of `steps` for what was built."""
    phases = (truth.data_wait_ns, truth.forward_ns, truth.backward_ns, truth.optimizer_ns)
    recorded = (1, 1, 1, 1) if truth.recorded else (1, 0, 0, 1)
    known = [p * r for p, r in zip(phases, recorded, strict=True)]
    return {
        "step": truth.step,
        "start_ns": truth.start_ns,
        "duration_ns": truth.dur_ns,
        "tid": main_tid(rank),
        "boundary": "optimizer",
        "recorded": truth.recorded,
        "whole": True,
        "micro_steps": 1,
        **dict(
            zip(("data_wait_ns", "forward_ns", "backward_ns", "optimizer_ns"), known, strict=True)
        ),
        "other_ns": truth.dur_ns - sum(known),
        "gap_ns": truth.gap_ns if truth.recorded else None,
        "gc_ns": truth.gc_ns,
        "collective_ns": truth.collective_ns,
        "events": events,
    }


def collective_row(event: dict[str, Any], plan: Plan, number: int) -> dict[str, Any]:
    """The row of `collectives` for a gloo event."""
    return {
        **{k: event[k] for k in ("start_ns", "duration_ns", "tid")},
        "op": "all_reduce",
        "backend": "gloo",
        "group_name": "default",
        "seq": number,
        "bytes": plan.bytes,
        "dtype": "float",
        "world_size": plan.ranks,
        "timing_source": "host_work",
    }


def training(path: str | os.PathLike[str], plan: Plan | None = None) -> Capture:
    """The job of `tests.synthetic`, with steps and collectives written."""
    plan = plan or Plan()
    with CaptureWriter(path, job=JOB, created_ns=START_NS, source="demo") as writer:
        for rank in range(plan.ranks):
            builder = _Rank(plan, rank)
            truths = tuple(builder.steps())
            writer.set_rank(builder.manifest(truths))
            for part in builder.event_parts():
                writer.write("events", part, rank=rank)
            counts = [
                sum(t.start_ns <= e["start_ns"] < t.end_ns for e in builder.events) for t in truths
            ]
            rows = [step_row(t, rank, n) for t, n in zip(truths, counts, strict=True)]
            writer.write("steps", table_of(schema.STEPS, rows), rank=rank)
            gloo = [e for e in builder.events if e["name"] == "gloo:all_reduce"]
            collectives = [collective_row(e, plan, i) for i, e in enumerate(gloo)]
            writer.write("collectives", table_of(schema.COLLECTIVES, collectives), rank=rank)
            writer.write("stacks", builder.stacks(), rank=rank)
            writer.write("threads", builder.threads(), rank=rank)
    return Capture.open(path)
