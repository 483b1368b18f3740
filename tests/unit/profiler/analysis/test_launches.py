"""Kernels joined to calls, operators, modules and steps; what the GPUs' time is made of."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gputap.profiler import schema
from gputap.profiler.analysis.attribution import attribute
from gputap.profiler.analysis.device_load import call_rows, device_rows
from gputap.profiler.analysis.device_report import gpu_of
from gputap.profiler.analysis.device_time import breakdown
from gputap.profiler.analysis.launches import call_of, innermost
from gputap.profiler.analysis.load import RankData
from gputap.profiler.analysis.steps import cut_steps
from tests.analysis_cases import Tape
from tests.synthetic import table_of

MODULE = ("forward", "/m.py", 3, "net.0", "Linear")
Row = dict[str, Any]


class Job:
    """A tape of operators with the calls and the GPU's work beside it. Times in ns."""

    def __init__(self) -> None:
        self.tape = Tape()
        self.calls: list[Row] = []
        self.device: list[Row] = []

    def call(self, start: int, end: int, correlation: int, tid: int = 1, **more: Any) -> None:
        row = {"start_ns": start, "duration_ns": end - start, "tid": tid, "flags": 0}
        more = {"name": "cudaLaunchKernel", "group": "launch", **more}
        self.calls.append({**row, "correlation_id": correlation, **more})

    def work(self, start: int, end: int, correlation: int | None, **more: Any) -> None:
        row = {"start_ns": start, "duration_ns": end - start, "device_id": 0, "stream_id": 7}
        named = {"kind": "kernel", "name": "k", "short_name": "k", "category": "gemm"}
        self.device.append({**row, **named, "correlation_id": correlation, **more})

    def data(self, **more: Any) -> RankData:
        device = device_rows(table_of(schema.DEVICE, self.device))
        calls = call_rows(table_of(schema.CUDA_API, self.calls))
        options = {"window": (0, 100_000), **more}
        base = self.tape.data(**options)
        return RankData(
            **{f: getattr(base, f) for f in RankData.__slots__ if f not in ("device", "calls")},
            device=device,
            calls=calls,
        )


@pytest.fixture
def job() -> Job:
    return Job()


def events_of(job: Job) -> list[str | None]:
    data = job.data()
    assert data.calls is not None
    rows = innermost(data, data.calls).tolist()
    return [data.events.names[data.events.name[row]] if row >= 0 else None for row in rows]


def test_a_kernel_finds_the_call_with_its_correlation_id(job: Job) -> None:
    job.call(10, 12, 5)
    job.call(20, 22, 3)
    job.work(50, 60, 3)
    job.work(30, 40, 5)
    job.work(70, 80, 4)
    job.work(90, 95, None)
    data = job.data()
    assert data.device is not None and data.calls is not None
    assert call_of(data.device, data.calls).tolist() == [0, 1, -1, -1]


def test_a_call_lies_in_the_innermost_event_around_it(job: Job) -> None:
    job.tape.add("aten::linear", 0, 100)
    job.tape.add("aten::addmm", 10, 60)
    job.tape.add("aten::empty", 12, 20)
    job.tape.add("aten::relu", 200, 300)
    for start, end in ((15, 18), (30, 40), (70, 80), (59, 62), (150, 160), (250, 260), (400, 410)):
        job.call(start, end, start)
    assert events_of(job) == [
        "aten::empty",
        "aten::addmm",
        "aten::linear",
        "aten::linear",
        None,
        "aten::relu",
        None,
    ]


def test_a_call_is_looked_for_on_its_own_thread(job: Job) -> None:
    job.tape.add("aten::mm", 0, 100, tid=1)
    job.tape.add("AddmmBackward0", 0, 100, tid=2, kind="autograd")
    for tid in (1, 2, 3):
        job.call(50, 60, tid, tid=tid)
    assert events_of(job) == ["aten::mm", "AddmmBackward0", None]


def test_no_call_is_joined_to_a_garbage_collection(job: Job) -> None:
    job.tape.add("gc generation 2", 0, 100, kind="gc")
    job.call(50, 60, 1)
    assert events_of(job) == [None]


def test_against_a_search_by_hand() -> None:
    random = np.random.default_rng(7)
    for _ in range(40):
        job = Job()
        for tid in (1, 2):
            edges = np.sort(random.choice(1000, 24, replace=False)).tolist()
            # Nested by construction: outer spans of six edges, each with two inside.
            for i in range(0, 24, 6):
                a, b, c, d, e, f = edges[i : i + 6]
                for n, span in enumerate(((a, f), (b, c), (d, e))):
                    job.tape.add(f"op{tid}.{i}.{n}", *span, tid=tid)
        spans = [(int(s), int(s) + 2) for s in random.integers(0, 1000, 60)]
        for number, (start, end) in enumerate(spans):
            job.call(start, end, number, tid=1 + number % 2)
        data = job.data()
        assert data.calls is not None
        for row, number in zip(
            innermost(data, data.calls).tolist(), data.calls.correlation.tolist(), strict=True
        ):
            start, end = spans[number]
            around = [
                (r["duration_ns"], r["name"])
                for r in job.tape.rows
                if r["tid"] == 1 + number % 2
                and r["start_ns"] <= start
                and end <= r["start_ns"] + r["duration_ns"]
            ]
            found = data.events.names[data.events.name[row]] if row >= 0 else None
            assert found == (min(around)[1] if around else None)


def training(job: Job) -> None:
    """Two steps of 1,000 ns: a linear layer forward and backward, each with a kernel."""
    for at in (1000, 2000):
        job.tape.add("aten::mm", at + 100, at + 200, stack=[MODULE], seq=at)
        job.call(at + 110, at + 120, at + 1)
        job.work(at + 150, at + 350, at + 1, name="gemm")
        job.tape.add(
            "autograd::engine::evaluate_function: MmBackward0", at + 300, at + 500, seq=at, tid=2
        )
        job.tape.add("MmBackward0", at + 310, at + 490, seq=at, tid=2, kind="autograd")
        job.call(at + 400, at + 410, at + 2, tid=2)
        job.tape.add("aten::sum", at + 491, at + 498, tid=2)
        job.call(at + 492, at + 494, at + 4, tid=2)
        job.work(at + 495, at + 500, at + 4, name="sum")
        job.work(at + 420, at + 520, at + 2, name="gemm_back")
        job.tape.add("Optimizer.step#SGD.step", at + 700, at + 900, kind="user_scope")
        job.tape.add("aten::add_", at + 750, at + 800)
        job.call(at + 760, at + 770, at + 3)
        job.work(at + 800, at + 850, at + 3, name="add", category="elementwise")


def test_work_of_forward_and_backward_belongs_to_its_module(job: Job) -> None:
    training(job)
    data = job.data()
    cuts, thread = cut_steps(data)
    gpu = gpu_of(data, attribute(data, thread.tid), cuts)
    assert gpu is not None
    rows = {
        (row["operator"], row["module"], row["backward"]): row["device_ns"]
        for row in gpu.table.to_pylist()
    }
    assert rows == {
        ("aten::mm", "net.0", False): 200,
        ("MmBackward0", "net.0", True): 100,
        ("aten::sum", "net.0", True): 5,
        ("aten::add_", None, False): 50,
    }
    assert gpu.launches.counts() == {"joined": 8}
    assert gpu.time.unjoined == {}


def test_kernels_are_summed_with_who_launched_them(job: Job) -> None:
    training(job)
    data = job.data()
    cuts, thread = cut_steps(data)
    gpu = gpu_of(data, attribute(data, thread.tid), cuts)
    assert gpu is not None
    found = {k.full_name: (k.count, k.total_ns, k.top_operator) for k in gpu.time.kernels}
    steps = int(cuts.whole.sum())
    assert found["gemm"] == (steps, 200 * steps, "aten::mm")
    assert found["add"] == (steps, 50 * steps, "aten::add_")
    assert gpu.by_operator["MmBackward0"] == 100 * steps


def test_what_cannot_be_joined_has_a_reason(job: Job) -> None:
    training(job)
    job.work(1600, 1610, 99, name="before the window")
    job.call(1620, 1630, 98)
    job.work(1640, 1650, 98, name="by nobody")
    job.call(1050, 1060, 97)
    job.work(1070, 1080, 97, name="by an operator that began before the window")
    data = job.data()
    cuts, thread = cut_steps(data)
    gpu = gpu_of(data, attribute(data, thread.tid), cuts)
    assert gpu is not None
    assert gpu.launches.counts() == {
        "joined": 8,
        "no_call": 1,
        "no_operator": 1,
        "edge": 1,
    }


def test_kernels_of_a_graph_have_the_operator_of_its_launch(job: Job) -> None:
    job.tape.add("graph_step", 0, 100, kind="user_scope")
    job.call(10, 20, 1, name="cudaGraphLaunch", group="graph")
    for i in range(5):
        job.work(100 + 10 * i, 105 + 10 * i, 1, graph_id=3, graph_node_id=i)
    data = job.data()
    cuts, thread = cut_steps(data)
    gpu = gpu_of(data, attribute(data, thread.tid), cuts)
    assert gpu is not None
    (row,) = gpu.table.to_pylist()
    assert (row["operator"], row["call"]) == ("graph_step", "cudaGraphLaunch")
    assert (row["device_rows"], row["device_ns"], row["device_start_ns"]) == (5, 25, 100)


def test_a_program_without_operators_still_has_its_kernels(job: Job) -> None:
    job.call(10, 20, 1)
    job.work(30, 40, 1)
    data = job.data()
    cuts, thread = cut_steps(data)
    gpu = gpu_of(data, attribute(data, thread.tid), cuts)
    assert gpu is not None
    (row,) = gpu.table.to_pylist()
    assert row["operator"] is None and row["module"] is None and row["backward"] is None
    assert gpu.time.breakdown == {
        "compute": 10,
        "exposed_comm": 0,
        "exposed_memcpy": 0,
        "idle": 99_990,
    }


def test_what_is_hidden_behind_compute_is_not_exposed(job: Job) -> None:
    job.work(0, 100, 1)
    job.work(50, 150, 2, category="communication", stream_id=20)
    job.work(140, 190, 3, kind="memcpy", category="memory", stream_id=21)
    job.work(180, 220, 4, kind="memset", category="memory")
    job.work(210, 240, 5, kind="sync", category=None)
    spans = (np.array([0]), np.array([300]))
    device = job.data().device
    assert device is not None
    assert breakdown(device, spans) == {
        "compute": 100,
        "exposed_comm": 50,
        "exposed_memcpy": 70,
        "idle": 80,
    }


def test_parts_of_a_gpus_time_add_up_on_every_device() -> None:
    random = np.random.default_rng(3)
    job = Job()
    for number in range(300):
        start = int(random.integers(0, 10_000))
        kind, category = [("kernel", "gemm"), ("kernel", "communication"), ("memcpy", "memory")][
            number % 3
        ]
        job.work(
            start,
            start + int(random.integers(1, 60)),
            number,
            kind=kind,
            category=category,
            device_id=number % 2,
        )
    device = job.data().device
    assert device is not None
    spans = (np.array([100, 5000]), np.array([4000, 9000]))
    parts = breakdown(device, spans)
    assert sum(parts.values()) == 2 * (3900 + 4000)
    assert min(parts.values()) > 0
