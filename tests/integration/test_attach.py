"""Attach to real training and inference loops: steps and operators are counted exactly."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from gputap.profiler.schema import CaptureMode

from tests.tapped import capture, gputap
from tests.workload import Workload

STEPS = 30


@pytest.mark.parametrize(
    "name",
    ["mlp", "transformer", "accumulate", "gan", "slow_loader", "infer", "infer_loader"],
)
def test_steps_found_are_steps_run(name: str, tmp_path: Path) -> None:
    with Workload(name, "--steps", str(STEPS), "--hold", "--linger") as workload:

        def run() -> None:
            workload.begin()
            workload.wait_done()

        taken = capture([workload.pid], tmp_path / "capture", run)
        workload.stop()
    steps = taken.table("steps").to_pylist()
    assert len([s for s in steps if s["whole"]]) == STEPS
    assert sum(taken.manifest.ranks[0].dropped.values()) == 0
