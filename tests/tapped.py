"""Captures through the Python API, with the window open for exactly as long as a test needs."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gputap.injectors.library.client import WindowConfig
from gputap.injectors.library.device import DeviceConfig
from gputap.injectors.tap import AgentTap
from gputap.profiler import session
from gputap.profiler.agent_memory import AgentMemory
from gputap.profiler.schema import CaptureMode, EventFlag
from gputap.profiler.store import Capture
from gputap.profiler.target import inspect
from tests.workload import Workload

PROFILED = Path(__file__).resolve().parent / "profiled.py"
GPUTAP = [sys.executable, "-m", "gputap.cli"]


def agent_memory(pid: int) -> AgentMemory:
    """The memory of the agent in a tapped process."""
    control = inspect(pid).control_fd
    assert control is not None
    return AgentMemory(f"/proc/{pid}/fd/{control}")


def capture(
    pids: Sequence[int],
    path: Path,
    during: Callable[[], object],
    *,
    mode: CaptureMode = CaptureMode.FULL,
    device: DeviceConfig | None = None,
    limit_s: float = 120.0,
    **options: Any,
) -> Capture:
    """Attach to `pids`, run `during` while the window is open, let go."""
    opened, done = threading.Event(), threading.Event()
    failed: list[BaseException] = []

    def act() -> None:
        opened.wait(limit_s)
        try:
            during()
        except BaseException as exc:
            failed.append(exc)
        finally:
            done.set()

    actor = threading.Thread(target=act)
    actor.start()
    try:
        window = WindowConfig(mode=mode, **options)
        taps = [AgentTap(pid, window, device=device) for pid in pids]
        plan = session.Plan(path=path, duration_ns=int(limit_s * 1e9), mode=mode)
        result = session.run(taps, plan, progress=lambda _: opened.set(), stop_asked=done.is_set)
    finally:
        opened.set()
        actor.join(limit_s)
    if failed:
        raise failed[0]
    return result


def gputap(*arguments: object, timeout_s: float = 90.0) -> subprocess.CompletedProcess[str]:
    """Run the command line."""
    return subprocess.run(
        [*GPUTAP, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def run_all(workload: Workload) -> None:
    """Let a held workload do its steps."""
    workload.begin()
    workload.wait_done()


def whole(taken: Capture, rank: int | None = None) -> list[dict[str, object]]:
    """The steps that lie in the window from end to end."""
    return [s for s in taken.table("steps", rank=rank).to_pylist() if s["whole"]]


def profiler_counts(
    name: str, python: str | Path = sys.executable
) -> tuple[Counter[str], Counter[str]]:
    """What torch.profiler counts in one step of a workload: in its tables, and in its raw trace."""
    done = subprocess.run(
        [python, PROFILED, name],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    line = next(row for row in done.stdout.splitlines() if row.startswith("counts "))
    tables, trace = (
        Counter({name: count // 3 for name, count in counts.items()})
        for counts in json.loads(line.removeprefix("counts "))
    )
    assert sum(trace.values()) >= sum(tables.values()) > 0
    return tables, trace


def names_per_step(
    capture: Capture, rank: int | None = None, *, raw: bool = False
) -> list[Counter[str]]:
    """For every whole recorded step: how often each name was recorded in it.

    Without `raw`, a call that was dispatched twice under one name counts once.
    """
    steps = capture.table("steps", rank=rank).to_pylist()
    events = capture.table("events", ["start_ns", "name", "kind", "flags"], rank=rank).to_pylist()
    events = [e for e in events if raw or not e["flags"] & EventFlag.REDISPATCH]
    out = []
    for step in steps:
        if not (step["whole"] and step["recorded"]):
            continue
        end = step["start_ns"] + step["duration_ns"]
        out.append(
            Counter(
                e["name"]
                for e in events
                if step["start_ns"] <= e["start_ns"] < end and e["kind"] != "gc"
            )
        )
    return out
