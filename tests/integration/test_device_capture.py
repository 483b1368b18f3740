"""Late attach to PyTorch on the simulated GPU: what is captured is what the device did, exactly."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from gputap.profiler.analysis.report import analyse
from tests.simulated import Compared, SimWorkload, capture, stack

pytestmark = pytest.mark.usefixtures("simulated_gpu")


@pytest.fixture(scope="module")
def simulated_gpu() -> None:
    stack()


@pytest.mark.parametrize("name", ["mlp", "transformer"])
def test_every_kernel_and_copy_with_its_own_time(name: str, tmp_path: Path) -> None:
    with SimWorkload(name, log=tmp_path / "truth") as job:
        taken = capture([job.pid], tmp_path / "capture")
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
        taken = capture([job.pid], tmp_path / "capture")
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
        taken = capture([job.pid], tmp_path / "capture")
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
        taken = capture([job.pid], tmp_path / "capture")
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
        taken = capture([job.pid], tmp_path / "capture")
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
