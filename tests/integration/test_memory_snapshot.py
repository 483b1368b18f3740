"""`gputap snapshot`: torch's memory snapshot, on request, from jobs on the simulated GPU."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from torch.cuda import _memory_viz

from tests.agent_driver import Target, maps_of_agent, threads_of, wait_until
from tests.simulated import simcuda
from tests.tapped import GPUTAP

MIB = 1 << 20
HISTORY_IS_ON = "value = torch._C._simcuda_isHistoryEnabled()"
ALLOCATE = 'torch.empty({mib} << 20, dtype=torch.uint8, device="simcuda")'


def on_simcuda() -> Target:
    return Target(
        simcuda()
        + f"""
kept = [{ALLOCATE.format(mib=3)}, {ALLOCATE.format(mib=8)}]
{ALLOCATE.format(mib=20)}
"""
    )


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    with on_simcuda() as target:
        yield target
        assert target.end() == 0


def run(target: Target, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*GPUTAP, "snapshot", str(target.pid), *map(str, arguments)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    wait_until(lambda: not [n for n in threads_of(target.pid) if n.startswith("gputap")])
    assert not maps_of_agent(target.pid)
    return done


def taken(target: Target, path: Path, *arguments: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What gputap said, and the snapshot."""
    done = run(target, "-o", path, "--json", *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), pickle.loads(path.read_bytes())


def test_it_has_every_block_and_opens_in_pytorchs_viewer(target: Target, tmp_path: Path) -> None:
    said, snapshot = taken(target, tmp_path / "memory.pickle")
    stats = target.do("value = torch.accelerator.memory_stats()")
    assert said["allocated"] == stats["allocated_bytes.all.current"] == 11 * MIB
    assert said["reserved"] == stats["reserved_bytes.all.current"]
    states = sorted((s["allocated_size"], s["blocks"][0]["state"]) for s in snapshot["segments"])
    assert states == [
        (0, "inactive"), (3 * MIB, "active_allocated"), (8 * MIB, "active_allocated"),
    ]  # fmt: skip
    assert (said["history"], said["events"], said["segments"]) == ("none", 0, 3)
    assert "segments: 3" in _memory_viz.segsum(snapshot)
    assert "20.0MiB allocated" in _memory_viz.segsum(snapshot)
    assert "<html" in _memory_viz.segment_plot(snapshot)
    assert (tmp_path / "memory.pickle").stat().st_mode & 0o077 == 0


def test_the_history_is_recorded_for_as_long_as_asked_and_no_longer(
    target: Target, tmp_path: Path
) -> None:
    path = tmp_path / "memory.pickle"
    command = [*GPUTAP, "snapshot", str(target.pid), "-o", path, "--json", "--record", "1s"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as gputap:
        wait_until(lambda: target.do(HISTORY_IS_ON), 30)
        target.do(f"for _ in range(7): {ALLOCATE.format(mib=1)}")
        out, _ = gputap.communicate(timeout=60)
    assert gputap.returncode == 0
    said, snapshot = json.loads(out), pickle.loads(path.read_bytes())
    assert said["history"] == "ours"
    (events,) = snapshot["device_traces"]
    assert len(events) == said["events"]
    allocated = [e for e in events if e["action"] == "alloc" and e["size"] == MIB]
    freed = [e for e in events if e["action"] == "free_completed" and e["size"] == MIB]
    assert len(allocated) == len(freed) == 7
    assert "free" in _memory_viz.trace(snapshot)
    assert "<html" in _memory_viz.trace_plot(snapshot)
    assert target.do(HISTORY_IS_ON) is False


def test_a_history_of_the_jobs_own_goes_on(target: Target, tmp_path: Path) -> None:
    target.do("simcuda.memory._record_memory_history(max_entries=1000)")
    target.do(ALLOCATE.format(mib=2))
    for arguments in ([], ["--record", "50ms"]):
        said, _ = taken(target, tmp_path / "memory.pickle", *arguments)
        assert (said["history"], said["events"] > 0) == ("the job's", True)
        assert target.do(HISTORY_IS_ON) is True
    target.do("simcuda.memory._record_memory_history(None)")


def test_the_recording_ends_though_gputap_is_killed(target: Target, tmp_path: Path) -> None:
    path = tmp_path / "memory.pickle"
    command = [*GPUTAP, "snapshot", str(target.pid), "-o", path, "--record", "3s"]
    with subprocess.Popen(command) as gputap:
        wait_until(lambda: target.do(HISTORY_IS_ON), 30)
        gputap.kill()
    wait_until(lambda: not target.do(HISTORY_IS_ON), 20)
    wait_until(lambda: not [n for n in threads_of(target.pid) if n.startswith("gputap")])
    assert not path.exists()
    said, _ = taken(target, path)
    assert said["history"] == "none"


def test_interrupted_it_lets_go_and_leaves_no_file(target: Target, tmp_path: Path) -> None:
    path = tmp_path / "memory.pickle"
    command = [*GPUTAP, "snapshot", str(target.pid), "-o", path, "--record", "3s"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as gputap:
        wait_until(lambda: target.do(HISTORY_IS_ON), 30)
        gputap.terminate()
        _, said = gputap.communicate(timeout=30)
    assert (gputap.returncode, "Traceback" in said) == (130, False)
    assert os.listdir(tmp_path) == []
    wait_until(lambda: not target.do(HISTORY_IS_ON), 20)
    wait_until(lambda: not [n for n in threads_of(target.pid) if n.startswith("gputap")])


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("raise RuntimeError('no')", "RuntimeError: no"),
        ("return 5", "AttributeError"),
        ("return {'segments': [], 'x': lambda: 1}", "pickle"),
    ],
)
def test_a_torch_that_gives_none_says_why(
    target: Target, tmp_path: Path, broken: str, said: str
) -> None:
    target.do(
        "kept_snapshot = simcuda.memory._snapshot\n"
        f"def broken():\n    {broken}\n"
        "simcuda.memory._snapshot = broken"
    )
    done = run(target, "-o", tmp_path / "memory.pickle")
    target.do("simcuda.memory._snapshot = kept_snapshot")
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert os.listdir(tmp_path) == []


def test_without_a_device_there_is_nothing_to_tell(tmp_path: Path) -> None:
    with Target() as target:
        done = run(target, "-o", tmp_path / "memory.pickle")
        assert target.end() == 0
    assert done.returncode == 1
    assert "no memory of a device" in done.stderr
    assert os.listdir(tmp_path) == []


def test_a_file_that_cannot_be_written_is_found_before_the_target_is_asked(
    target: Target, tmp_path: Path
) -> None:
    for path in (tmp_path, tmp_path / "none" / "memory.pickle", Path("/proc/memory.pickle")):
        done = run(target, "-o", path)
        assert done.returncode == 1
        assert str(path) in done.stderr
    no_process = subprocess.run(
        [*GPUTAP, "snapshot", "4194304", "-o", tmp_path / "x"], capture_output=True, check=False
    )
    assert no_process.returncode == 3
    assert os.listdir(tmp_path) == []


def test_it_says_what_is_in_it_and_how_to_look(target: Target, tmp_path: Path) -> None:
    path = tmp_path / "memory.pickle"
    done = run(target, "-o", path)
    assert done.stdout == f"{path}\n"
    assert "simcuda: 11.0 MiB allocated of" in done.stderr
    assert f"segment_plot {path} -o memory.html" in done.stderr
    page = tmp_path / "memory.html"
    command = [sys.executable, "-m", "torch.cuda._memory_viz", "segment_plot", path, "-o", page]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    assert "<html" in page.read_text()
