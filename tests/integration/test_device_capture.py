"""Late attach to PyTorch on the simulated GPU: what is captured is what the device did, exactly."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from gputap.profiler.analysis.report import analyse
from tests.simulated import FOLDER, Compared, SimWorkload, capture, stack

MUCH = 4000
"""Operations of the device: some ten steps of the largest model here."""

pytestmark = pytest.mark.usefixtures("simulated_gpu")


@pytest.fixture(scope="module")
def simulated_gpu() -> None:
    stack()


@pytest.mark.parametrize("name", ["mlp", "transformer"])
def test_every_kernel_and_copy_with_its_own_time(name: str, tmp_path: Path) -> None:
    with SimWorkload(name, log=tmp_path / "truth") as job:
        taken = capture([job.pid], tmp_path / "capture", lambda: job.more(MUCH))
        job.stop()
        compared = Compared(taken, job.truth())
    compared.check()
    manifest = taken.manifest
    assert manifest.simulated
    assert (manifest.level, manifest.level_reasons) == ("device", ())
    assert manifest.ranks[0].dropped == {}
    assert manifest.ranks[0].device is not None
    assert manifest.ranks[0].device.left_out == {}
    assert list(manifest.ranks[0].device.devices.values()) == ["SimGPU H100 (simulated)"]


def test_every_launch_is_joined_to_its_operator_module_and_step(tmp_path: Path) -> None:
    with SimWorkload("transformer", log=tmp_path / "truth") as job:
        taken = capture([job.pid], tmp_path / "capture", lambda: job.more(MUCH))
        job.stop()
    report = analyse(taken)
    assert report.unjoined == {}
    launches = taken.table("launches").to_pylist()
    # The window cuts the first step: what made its backward pass was not seen.
    whole = {row["step"] for row in taken.table("steps").to_pylist() if row["whole"]}
    inside = [row for row in launches if row["step"] in whole - {0, 1}]
    assert len(inside) > 100
    assert all(row["operator"] for row in inside)
    backward = {row["backward"] for row in inside}
    assert backward == {True, False}
    parts = ("aten::mm", "aten::sum", "aten::gelu_backward", "aten::native_layer_norm_backward")
    of_layers = [row for row in inside if row["operator"] in parts and row["backward"]]
    assert of_layers and all(row["module"] is not None for row in of_layers)


def test_kernels_of_a_graph_know_the_graph_and_the_launch(tmp_path: Path) -> None:
    with SimWorkload("graph", log=tmp_path / "truth") as job:
        taken = capture([job.pid], tmp_path / "capture", lambda: job.more(MUCH))
        job.stop()
        compared = Compared(taken, job.truth())
    compared.check()
    nodes = [row for row in compared.captured.values() if row["graph_id"]]
    assert len(nodes) > 100
    assert all(row["graph_node_id"] for row in nodes)
    launches = {row["correlation_id"]: row for row in taken.table("launches").to_pylist()}
    first, last = min(launches), max(launches)
    inside = [row["correlation_id"] for row in nodes if first <= row["correlation_id"] <= last]
    assert {launches[c]["call"] for c in inside} == {"cudaGraphLaunch"}
    replays = [row for row in launches.values() if row["call"] == "cudaGraphLaunch"]
    usual = Counter(row["device_rows"] for row in replays).most_common(1)[0][0]
    assert usual == len({row["graph_node_id"] for row in nodes}) > 10


def test_a_planted_gap_is_idle_time_of_the_gpu(tmp_path: Path) -> None:
    with SimWorkload("host_bound", "--gap-ms", "25", log=tmp_path / "truth") as job:
        taken = capture([job.pid], tmp_path / "capture", lambda: job.more(MUCH))
        job.stop()
    steps = [row for row in taken.table("steps").to_pylist() if row["whole"]]
    assert len(steps) > 5
    # The first begins with its first operator: the gap before it is not seen to be its own.
    for step in steps[1:]:
        assert step["duration_ns"] - step["gpu_busy_ns"] > 25_000_000
    (rank,) = analyse(taken).ranks
    assert rank.breakdown is not None
    total = sum(rank.breakdown.values())
    assert total == sum(step["duration_ns"] for step in steps)
    assert rank.breakdown["idle"] >= 25_000_000 * len(steps[1:])


@pytest.mark.parametrize("pinned", [False, True])
def test_a_planted_copy_is_there_once_a_step(pinned: bool, tmp_path: Path) -> None:
    size = 5 << 20
    options = ["--mib", "5", *(["--pinned"] if pinned else [])]
    with SimWorkload("pageable", *options, log=tmp_path / "truth") as job:
        taken = capture([job.pid], tmp_path / "capture", lambda: job.more(300))
        job.stop()
    steps = [row["step"] for row in taken.table("steps").to_pylist() if row["whole"]]
    rows = taken.query(
        "SELECT d.*, l.step, l.operator FROM device d JOIN launches l USING (correlation_id)"
        f" WHERE d.kind = 'memcpy' AND d.bytes = {size} ORDER BY d.start_ns"
    ).to_pylist()
    copies = [row for row in rows if row["step"] in steps]
    assert [row["step"] for row in copies] == steps
    source = "pinned" if pinned else "pageable"
    assert {(r["copy_kind"], r["src_kind"]) for r in copies} == {("htod", source)}
    assert {row["operator"] for row in copies} == {"aten::copy_"}


@pytest.mark.parametrize("ranks", [2, 4])
def test_collectives_of_data_parallel_ranks(ranks: int, tmp_path: Path) -> None:
    options = ["--ranks", str(ranks), "--straggler", "1", "15"]
    with SimWorkload("ddp", *options, log=tmp_path / "truth", ranks=ranks) as job:
        taken = capture(
            job.pids, tmp_path / "capture", lambda: job.more(45, b"ncclDevKernel", job.pids[0])
        )
        job.stop()
        compared = [Compared(taken, job.truth(r.pid), r.rank) for r in taken.ranks]
    for one in compared:
        one.check()
    for rank, one in enumerate(compared):
        rows = taken.table("collectives", rank=rank).to_pylist()
        nccl = [row for row in rows if row["backend"] == "nccl"]
        # At the edges of the window a call or a kernel lies outside: a step has three of them.
        timed = [row for row in nccl if row["timing_source"] == "device"]
        assert len(timed) > 10
        assert len(nccl) - len(timed) <= 4
        kernels = [row for row in one.captured.values() if row["category"] == "communication"]
        assert 0 <= len(kernels) - len(timed) <= 4
        assert {row["start_ns"] for row in timed} <= {row["start_ns"] for row in kernels}
        assert {(r["op"], r["world_size"], r["algorithm"]) for r in timed} == {
            ("all_reduce", ranks, "ring")
        }
        steps = [row["step"] for row in taken.table("steps", rank=rank).to_pylist() if row["whole"]]
        sums = {s: sum(r["bytes"] for r in nccl if r["step"] == s) for s in steps[1:-1]}
        # All gradients, once a step: as many bytes as the model's parameters have.
        assert set(sums.values()) == {_parameter_bytes()}
    report = analyse(taken)
    (straggler,) = [f for f in report.findings if f.rule == "straggler"]
    assert "Rank 1 comes last" in straggler.claim
    sizes = [c for c in report.collectives if c.backend == "nccl"]
    assert sizes
    for collective in sizes:
        assert collective.timing_source == "device"
        assert collective.transfer_ns is not None and collective.busbw is not None
        assert collective.bytes is not None
        factor = 2 * (ranks - 1) / ranks
        assert collective.busbw == pytest.approx(
            collective.bytes / collective.transfer_ns * 1e9 * factor
        )
    # The early ranks' kernels hold their wait for the late one; the transfer does not.
    first = max(sizes, key=lambda c: c.max_ns)
    assert first.max_ns > 10_000_000
    assert first.transfer_ns is not None and first.transfer_ns < 5_000_000


@cache
def _parameter_bytes() -> int:
    code = "from gpt import GPT; print(sum(4 * p.numel() for p in GPT().parameters()))"
    folder = FOLDER / "torch" / "workloads"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True
    )
    return int(done.stdout)
