"""Late attach to PyTorch on the simulated GPU: what is captured is what the device did, exactly."""

from __future__ import annotations

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
    inside = [row for row in launches if (row["step"] or 0) > 1]
    assert len(inside) > 100
    assert all(row["operator"] for row in inside)
    backward = {row["backward"] for row in inside}
    assert backward == {True, False}
    parts = ("aten::mm", "aten::sum", "aten::gelu_backward", "aten::native_layer_norm_backward")
    of_layers = [row for row in inside if row["operator"] in parts and row["backward"]]
    assert of_layers and all(row["module"] for row in of_layers)
