"""Collectives and their kernels: whose kernel is whose, and what bandwidth is."""

from __future__ import annotations

import pytest

from gputap.profiler.analysis.attribution import attribute
from gputap.profiler.analysis.collective_device import bandwidths
from gputap.profiler.analysis.collectives import collective_rows
from gputap.profiler.analysis.device_report import gpu_of
from gputap.profiler.analysis.groups import Groups
from gputap.profiler.analysis.steps import cut_steps
from tests.unit.profiler.analysis.test_launches import Job

NCCL = "ncclDevKernel_AllReduce_Sum_f32_RING_LL(ncclDevKernelArgsStorage<4096ul>)"


def rows(job: Job) -> list[tuple[object, ...]]:
    data = job.data()
    cuts, thread = cut_steps(data)
    gpu = gpu_of(data, attribute(data, thread.tid), cuts)
    assert gpu is not None
    table = collective_rows(data, cuts, groups=Groups(4), launches=gpu.launches)
    names = ("start_ns", "duration_ns", "enqueued_ns", "algorithm", "protocol", "timing_source")
    return [tuple(row[name] for name in names) for row in table.to_pylist()]


def called(job: Job, at: int, tid: int = 1, *, ends_elsewhere: bool = False) -> None:
    """One all-reduce as torch records it: the call, its parameters, the work."""
    job.tape.add("c10d::allreduce_", at, at + 90, kind="collective", tid=tid)
    job.tape.add("record_param_comms", at + 10, at + 80, kind="collective", tid=tid)
    flags = {"flags": 1} if ends_elsewhere else {}
    job.tape.add("nccl:all_reduce", at + 20, at + 70, kind="collective", tid=tid, **flags)


def kernel(job: Job, call: int, start: int, end: int, number: int, tid: int = 1) -> None:
    job.call(call, call + 5, number, tid=tid, name="cuLaunchKernelEx")
    job.work(start, end, number, name=NCCL, short_name="nccl", category="communication")


def test_a_kernel_belongs_to_the_collective_that_it_was_launched_in() -> None:
    job = Job()
    for i in range(3):
        called(job, 1000 * i)
        kernel(job, 1000 * i + 40, 1000 * i + 500, 1000 * i + 700 + i, i + 1)
    assert rows(job) == [
        (1000 * i + 500, 200 + i, 1000 * i + 20, "ring", "ll", "device") for i in range(3)
    ]


def test_work_that_ends_on_another_thread() -> None:
    job = Job()
    called(job, 1000, ends_elsewhere=True)
    kernel(job, 1040, 1500, 1700, 1)
    assert rows(job) == [(1500, 200, 1020, "ring", "ll", "device")]


def test_without_its_kernel_a_collective_keeps_the_cpus_times() -> None:
    job = Job()
    called(job, 1000)
    called(job, 2000)
    kernel(job, 2040, 2500, 2600, 1)
    assert [row[-1] for row in rows(job)] == ["host_work", "device"]
    assert rows(job)[0][:3] == (1020, 50, 1020)


def test_threads_are_kept_apart_and_others_kernels_are_nobodys() -> None:
    job = Job()
    called(job, 1000, tid=1)
    called(job, 1005, tid=2)
    kernel(job, 1045, 1500, 1600, 1, tid=1)
    kernel(job, 1050, 1700, 1900, 2, tid=2)
    kernel(job, 1300, 5000, 6000, 3, tid=1)  # a communication kernel of the program's own
    assert [row[:2] for row in rows(job)] == [(1500, 100), (1700, 200)]


def test_a_collective_of_several_kernels_lasts_from_the_first_to_the_last() -> None:
    job = Job()
    called(job, 1000)
    for number, start in ((1, 1500), (2, 1800), (3, 1600)):
        kernel(job, 1030 + number, start, start + 50, number)
    assert rows(job)[0][:2] == (1500, 350)


@pytest.mark.parametrize(
    ("op", "factor"),
    [
        ("all_reduce", 2 * 3 / 4),
        ("reduce_scatter", 3 / 4),
        ("all_to_all", 3 / 4),
        ("broadcast", 1),
        ("send", 1),
    ],
)
def test_bus_bandwidth_is_that_of_nccl_tests(op: str, factor: float) -> None:
    assert bandwidths(op, 8_000_000, 4, 1_000_000) == (8e9, 8e9 * factor)


def test_an_all_gathers_size_is_that_of_all_ranks() -> None:
    assert bandwidths("all_gather", 8_000_000, 4, 1_000_000) == (32e9, 32e9 * 3 / 4)


def test_no_bandwidth_without_size_ranks_or_time() -> None:
    nothing = (None, None)
    assert bandwidths("all_reduce", None, 4, 100) == nothing
    assert bandwidths("all_reduce", 100, None, 100) == nothing
    assert bandwidths("all_reduce", 100, 4, 0) == nothing
