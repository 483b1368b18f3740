"""Findings about the GPU: each speaks where its fault is planted, and only there."""

from __future__ import annotations

from typing import Any

import pytest

from gputap.profiler.analysis.model import Finding, Report
from gputap.profiler.analysis.report import analyse_rank, build_report
from gputap.profiler.manifest import RankManifest
from tests.unit.profiler.analysis.test_launches import Job

STEP = 1_000_000
RULES = (
    "gpu_idle",
    "exposed_communication",
    "exposed_memcpy",
    "small_kernels",
    "sync_stalls",
    "tensor_cores",
)
MMA = "sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x128x64_cublas"


class Steps(Job):
    """Twelve steps of a millisecond, in which the GPU is kept busy by products."""

    def __init__(self) -> None:
        super().__init__()
        self.correlation = 0
        for step in range(12):
            at = step * STEP
            self.tape.add("aten::mm", at + 1000, at + 500_000)
            self.tape.add("Optimizer.step#SGD.step", at + 900_000, at + STEP, kind="user_scope")

    def every_step(self, first: int, last: int, name: str = MMA, **more: Any) -> None:
        for step in range(12):
            self.correlation += 1
            at = step * STEP
            self.call(at + 2000, at + 3000, self.correlation)
            self.work(at + first, at + last, self.correlation, name=name, short_name=name, **more)

    def report(self) -> Report:
        data = self.data(window=(0, 12 * STEP))
        manifest = RankManifest(rank=0, host="h", level="device")
        return build_report([analyse_rank(data, manifest)], level="device")


def said(job: Steps) -> dict[str, Finding]:
    report = job.report()
    assert not {a.rule for a in report.abstained} & set(RULES)
    return {f.rule: f for f in report.findings if f.rule in RULES}


@pytest.fixture
def job() -> Steps:
    return Steps()


def test_a_busy_gpu_has_nothing_said_of_it(job: Steps) -> None:
    job.every_step(0, 960_000)
    assert said(job) == {}


def test_idle(job: Steps) -> None:
    job.every_step(0, 600_000)
    found = said(job)
    assert set(found) == {"gpu_idle"}
    assert "400 us of each step (40 %)" in found["gpu_idle"].claim
    assert found["gpu_idle"].ceiling_ns == 400_000


def test_exposed_communication(job: Steps) -> None:
    job.every_step(0, 800_000)
    job.every_step(700_000, 950_000, "ncclDevKernel", category="communication", stream_id=20)
    found = said(job)
    assert set(found) == {"exposed_communication"}
    assert found["exposed_communication"].ceiling_ns == 150_000


def test_exposed_copies(job: Steps) -> None:
    job.every_step(0, 800_000)
    job.every_step(800_000, 930_000, "Memcpy HtoD", kind="memcpy", category="memory")
    assert set(said(job)) == {"exposed_memcpy"}


def test_small_kernels(job: Steps) -> None:
    job.every_step(0, 500_000)
    for number in range(110):
        at = 500_000 + 4_000 * number
        job.every_step(at, at + 3_990, "add", category="elementwise")
    found = said(job)
    assert set(found) == {"small_kernels"}
    assert found["small_kernels"].claim.startswith("110 kernels per step are shorter than 10 us")


def test_few_small_kernels_are_no_matter(job: Steps) -> None:
    job.every_step(0, 950_000)
    for number in range(8):
        job.every_step(950_000 + 4_000 * number, 953_990 + 4_000 * number, "add", category="other")
    assert said(job) == {}


def test_waiting_for_the_gpu(job: Steps) -> None:
    job.every_step(0, 960_000)
    for step in range(12):
        at = step * STEP
        more = {"group": "sync", "tid": 1}
        job.call(at + 500_000, at + 800_000, 90_000 + step, name="cudaStreamSynchronize", **more)
        job.call(at + 800_000, at + 890_000, 95_000 + step, name="cudaStreamWaitEvent", **more)
    found = said(job)
    assert set(found) == {"sync_stalls"}
    assert "300 us of each step (30 %) in 1 call for" in found["sync_stalls"].claim


@pytest.mark.parametrize(
    ("name", "slow"),
    [
        (MMA, False),
        ("ampere_sgemm_128x64_tn", True),
        ("my_own_gemm", False),
    ],
)
def test_products_without_tensor_cores(job: Steps, name: str, slow: bool) -> None:
    job.every_step(0, 600_000)
    job.every_step(600_000, 960_000, name)
    assert set(said(job)) == ({"tensor_cores"} if slow else set())


def test_copies_are_no_products(job: Steps) -> None:
    job.every_step(0, 400_000)
    job.every_step(400_000, 960_000, "vectorized_elementwise_kernel", category="elementwise")
    assert said(job) == {}
