"""Late attach to PyTorch on a real GPU. `make gpu-test` runs it, and says why where there is none.

With `GPUTAP_GPU_DEVICE=simcuda` the parts that need no real GPU run on the simulated one.
"""

from __future__ import annotations

import json
import os
import pickle
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from torch.cuda import _memory_viz

from gputap.profiler.analysis.report import analyse
from gputap.profiler.cupti.demangle import demangle
from gputap.profiler.store import Capture
from tests.commanded import Commanded
from tests.simulated import capture
from tests.tapped import gputap

HERE = Path(__file__).resolve().parent
DEVICE = os.environ.get("GPUTAP_GPU_DEVICE", "cuda")
STEPS = 20


@cache
def gpu() -> str:
    """Name of the GPU; empty if there is none."""
    code = "import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else '')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip()


pytestmark = pytest.mark.skipif(
    DEVICE == "cuda" and not gpu(), reason="no GPU: torch.cuda.is_available() is false"
)


class Job(Commanded):
    """`job.py` as a process."""

    def __init__(self, workload: str) -> None:
        command = [sys.executable, str(HERE / "job.py"), workload, DEVICE]
        super().__init__(command, stderr=subprocess.DEVNULL)  # torch.profiler talks


@pytest.fixture(params=["mlp", "gpt", "graph"])
def job(request: pytest.FixtureRequest) -> Iterator[Job]:
    with Job(request.param) as started:
        yield started


def kernels(taken: Capture) -> list[tuple[str, int]]:
    """Name and length of each kernel, in order of start."""
    rows = taken.query(
        "SELECT name, duration_ns FROM device WHERE kind = 'kernel' ORDER BY start_ns"
    ).to_pylist()
    return [(row["name"], row["duration_ns"]) for row in rows]


def test_kernels_are_those_of_torch_profiler(job: Job, tmp_path: Path) -> None:
    """Ours first: once it has profiled, Kineto keeps CUPTI for good."""
    taken = capture([job.pid], tmp_path / "capture", lambda: job(f"steps {STEPS}"))
    assert taken.manifest.level == "device", taken.manifest.level_reasons
    ours = kernels(taken)
    theirs = [
        (demangle(name), length)
        for name, _, length in job(f"profile {STEPS}")
        if not name.startswith(("Memcpy", "Memset"))
    ]
    assert Counter(name for name, _ in ours) == Counter(name for name, _ in theirs)
    for name in {name for name, _ in ours}:
        mine = statistics.median(length for n, length in ours if n == name)
        other = statistics.median(length for n, length in theirs if n == name)
        assert abs(mine - other) <= max(0.01 * other, 64), name


def test_a_profile_in_mid_window_works_and_we_come_back(job: Job, tmp_path: Path) -> None:
    seen: list[int] = []

    def during() -> None:
        job(f"steps {STEPS}")
        seen.append(len(job(f"profile {STEPS}")))
        time.sleep(2.5)
        job(f"steps {STEPS}")

    taken = capture([job.pid], tmp_path / "capture", during)
    rank = taken.manifest.ranks[0]
    assert seen[0] > STEPS
    assert rank.device is not None and rank.device.yields >= 1
    per_step = len(kernels(taken)) / STEPS
    assert per_step >= 2 * seen[0] / STEPS * 0.9


def test_every_launch_is_joined(job: Job, tmp_path: Path) -> None:
    taken = capture([job.pid], tmp_path / "capture", lambda: job(f"steps {STEPS}"))
    rows = taken.query(
        "SELECT count(*) AS n, count(l.correlation_id) AS joined FROM device d"
        " LEFT JOIN launches l USING (rank, correlation_id) WHERE d.kind = 'kernel'"
    ).to_pylist()[0]
    assert rows["n"] == rows["joined"] > STEPS


def test_the_allocators_figures_are_those_of_torch(job: Job, tmp_path: Path) -> None:
    """It reads them by functions that only a CUDA build has."""

    def during() -> None:
        until = time.monotonic() + 1
        while time.monotonic() < until:
            job(f"steps {STEPS}")

    taken = capture([job.pid], tmp_path / "capture", during)
    (memory,) = analyse(taken).ranks[0].memory
    theirs = job("memory")
    assert memory.device == f"{DEVICE}:0"
    assert memory.allocated_peak == theirs["allocated_bytes.all.peak"]
    assert memory.reserved == theirs["reserved_bytes.all.current"]
    assert (memory.retries, memory.ooms) == (0, 0)


def test_a_memory_snapshot_opens_in_pytorchs_viewer(job: Job, tmp_path: Path) -> None:
    path = tmp_path / "memory.pickle"
    for arguments in ([], ["--record", "1s"]):
        done = gputap("snapshot", job.pid, "-o", path, "--json", *arguments)
        assert done.returncode == 0, done.stderr
        said, theirs = json.loads(done.stdout), job("memory")
        assert said["allocated"] == theirs["allocated_bytes.all.current"]
        assert said["reserved"] == theirs["reserved_bytes.all.current"]
        assert said["history"] == ("ours" if arguments else "none")
        snapshot = pickle.loads(path.read_bytes())
        assert f"segments: {said['segments']}" in _memory_viz.segsum(snapshot)


def test_a_hundred_cycles(tmp_path: Path) -> None:
    with Job("mlp") as job:
        before = job("loss")
        for cycle in range(100):
            taken = capture([job.pid], tmp_path / f"{cycle}", lambda: job("steps 3"))
            assert taken.manifest.level == "device", (cycle, taken.manifest.level_reasons)
            assert len(kernels(taken)) > 3
        assert job("loss") < before
