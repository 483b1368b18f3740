"""Attach to other interpreters and torch versions than our own: `docs/versions.md` has the results.

`GPUTAP_TEST_PYTHONS=/a/bin/python:/b/bin/python` names interpreters that can import torch.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from gputap.injectors.attach import inject
from gputap.injectors.built import AGENT, built
from gputap.injectors.library.client import AgentClient, WindowConfig
from gputap.injectors.library.detect import detect
from gputap.profiler.schema import CaptureMode
from gputap.profiler.store import Capture
from tests.tapped import capture, names_per_step, profiler_counts, run_all, whole
from tests.workload import Workload

PYTHONS = [path for path in os.environ.get("GPUTAP_TEST_PYTHONS", "").split(":") if path]
STEPS = 20
TAPS = 5

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(not PYTHONS, reason="GPUTAP_TEST_PYTHONS names no interpreter"),
    pytest.mark.parametrize("python", PYTHONS),
]

WORKLOADS = ("mlp", "transformer", "infer", "infer_loader", "slow_loader", "gan")

WHAT_IT_IS = """
import json, platform, torch
print(json.dumps({
    "cpython": platform.python_version(),
    "torch": torch.__version__,
    "cuda": torch.version.cuda,
    "cxx11_abi": bool(torch._C._GLIBCXX_USE_CXX11_ABI),
    "driver": torch.cuda.is_available(),
    "libtorch_cuda": any("libtorch_cuda.so" in line for line in open("/proc/self/maps")),
}))
"""


def tapped(name: str, python: str, path: Path, *arguments: str) -> Capture:
    """A held workload, tapped for the whole of its steps."""
    held = ("--steps", str(STEPS), "--hold", "--linger", *arguments)
    with Workload(name, *held, python=python) as workload:
        taken = capture([workload.pid], path, lambda: run_all(workload))
        workload.stop()
        assert workload.errors == ""
    return taken


def said(capture: Capture) -> dict[str, Any]:
    """What the manifest says of its one rank."""
    rank = capture.manifest.ranks[0]
    return {"proven": rank.target["proven"], "reasons": list(rank.level_reasons)}


def show(what: str, interpreter: str, **figures: Any) -> None:
    """One JSON line: what docs/versions.md quotes."""
    print(json.dumps({"versions": what, "interpreter": interpreter, **figures}))


def build_of(python: str) -> dict[str, Any]:
    done = subprocess.run(
        [python, "-c", WHAT_IT_IS], capture_output=True, text=True, timeout=120, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_what_is_proven(python: str, tmp_path: Path) -> None:
    """In a job that trains, every field that this version can prove; shapes too."""
    build = build_of(python)
    # Adam keeps state, so that one sees from its memory that the job has done backward passes.
    with Workload("transformer", "--linger", python=python) as workload:
        taken = capture(
            [workload.pid], tmp_path / "capture", lambda: None, want_shapes=True, limit_s=30
        )
        workload.stop()
    show("proven", python, **build, **said(taken))
    wanted = {"name_and_time", "scope", "seq", "forward_tid", "stack", "module", "shapes"}
    assert set(taken.manifest.ranks[0].target["proven"]) == wanted
    torch = taken.manifest.ranks[0].target["torch"]
    assert torch["version"] == build["torch"]


@pytest.mark.parametrize("name", WORKLOADS)
def test_operators_and_steps(python: str, name: str, tmp_path: Path) -> None:
    taken = tapped(name, python, tmp_path / "capture")
    tables, trace = profiler_counts(name, python)
    # Old torches tell times in whole microseconds: on a fast machine their tables do not see which
    # of two calls lies in the other, and count differently from run to run. Their trace is right.
    raw = tuple(map(int, build_of(python)["torch"].split(".")[:2])) < (2, 2)
    expected, steps = (trace if raw else tables), names_per_step(taken, raw=raw)
    show(name, python, steps=len(steps), operators=sum(expected.values()), **said(taken))
    assert len(whole(taken)) == STEPS
    assert taken.manifest.ranks[0].dropped == {}
    assert all(step["recorded"] for step in whole(taken))
    # The first steps create optimizer state; the window's edge cuts the last loader call off.
    for counts in steps[3:-1]:
        assert counts == expected


IN_LIST = """
import ctypes, os, torch
library = ctypes.CDLL(os.path.join(os.path.dirname(torch.__file__), "lib", "libtorch_cpu.so"))
library._ZN2at18hasGlobalCallbacksEv.restype = ctypes.c_bool
result = str(library._ZN2at18hasGlobalCallbacksEv())
"""


def test_user_scopes_come_without_an_entry_in_torchs_list(python: str) -> None:
    """Backward passes would pay for it. Not so where torch is built in another way; then say so."""
    with Workload("transformer", "--linger", python=python) as workload:
        injection = inject(workload.pid, agent=built(AGENT))
        found = detect(workload.pid)
        with AgentClient(workload.pid, injection.control_fd) as client:
            client.configure(found.torch_layout, found.python_layout)
            client.start(WindowConfig(mode=CaptureMode.ALWAYS_ON))
            deadline = time.monotonic() + 30
            while client.memory.get("boundaries") < 3 and time.monotonic() < deadline:
                time.sleep(0.01)
            answer = client.run_python(IN_LIST, 10)
            steps = client.memory.get("boundaries")
            client.stop()
    show("in torch's list", python, entry=answer, steps=steps)
    assert steps >= 3
    assert answer == "False"


def in_capture(taken: Capture) -> set[tuple[str | None, tuple[tuple[str, str, int], ...]]]:
    """Innermost module and stack of every place that ran `aten::frac`."""
    rows = taken.query(
        "SELECT DISTINCT stack_id, module FROM events WHERE name = 'aten::frac'"
    ).to_pylist()
    frames: dict[int, list[tuple[str, str, int]]] = {}
    for row in taken.query("SELECT * FROM stacks ORDER BY stack_id, frame").to_pylist():
        frame = (row["function"], row["file"], row["line"])
        frames.setdefault(row["stack_id"], []).append(frame)
    return {(row["module"], tuple(frames.get(row["stack_id"], ()))) for row in rows}


def test_stacks_and_modules_are_the_interpreter_s_own(python: str, tmp_path: Path) -> None:
    truth = tmp_path / "stacks.json"
    taken = tapped("stacks", python, tmp_path / "capture", "--stacks", str(truth))
    expected = {
        (module, tuple((function, file, line) for function, file, line in stack))
        for module, stack in json.loads(truth.read_text())
    }
    found = in_capture(taken)
    show("stacks", python, stacks=len(expected), frames=sum(len(stack) for _, stack in expected))
    assert found == expected


def test_taps_again_and_again_leave_the_losses_as_they_are(python: str, tmp_path: Path) -> None:
    arguments = ("--steps", "3000", "--linger", "--seed", "3")
    losses = []
    for taps in (0, TAPS):
        found: Counter[int] = Counter()
        with Workload("gan", *arguments, python=python, record_losses=True) as workload:
            for tap in range(taps):
                taken = capture([workload.pid], tmp_path / f"{tap}", lambda: None, limit_s=30)
                found[len(taken.manifest.ranks)] += 1
            workload.wait_done()
            losses.append(workload.stop())
        assert found == Counter({1: taps} if taps else {})
    show("losses", python, taps=TAPS, losses=len(losses[0]))
    assert len(losses[0]) == 3000
    assert losses[0] == losses[1]
