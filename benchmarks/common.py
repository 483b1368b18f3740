"""What the benchmarks share: a training process that tells its own step times, and the figures.

Not a benchmark itself.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from gputap.injectors.entry import Entry
from gputap.injectors.library.client import WindowConfig
from gputap.injectors.tap import AgentTap
from gputap.profiler import session
from gputap.profiler.schema import CaptureMode
from gputap.profiler.store import Capture

FOLDER = Path(__file__).resolve().parent
WORKLOADS = FOLDER.parent / "tests" / "workloads"
REQUEST, STATE, VERSION, STEPS, CPU_NS, WALL_NS = range(6)
WORDS = 8

PATIENT = Entry(timeout_s=60)


@dataclass(frozen=True, slots=True)
class Count:
    """A training loop's own account of itself at one moment, or between two."""

    steps: int
    cpu_ns: int
    wall_ns: int

    def __sub__(self, other: Count) -> Count:
        """What lies between."""
        return Count(
            self.steps - other.steps, self.cpu_ns - other.cpu_ns, self.wall_ns - other.wall_ns
        )

    @property
    def cpu_us(self) -> float:
        """CPU time of a step, microseconds."""
        return self.cpu_ns / self.steps / 1e3

    @property
    def wall_us(self) -> float:
        """Wall time of a step, microseconds."""
        return self.wall_ns / self.steps / 1e3


class Trainer:
    """A process that trains `mlp` or `transformer` until the end of the block."""

    def __init__(self, name: str) -> None:
        """Name one of the loops of targets/steps.py."""
        self.name = name

    def __enter__(self) -> Trainer:
        """Start it, and wait until it trains."""
        self._folder = tempfile.TemporaryDirectory(prefix="gputap-bench-")
        file = Path(self._folder.name) / "words"
        self._words = np.memmap(file, np.int64, "w+", shape=(WORDS,))
        self.process = subprocess.Popen(
            [sys.executable, str(FOLDER / "targets" / "steps.py"), self.name, str(file)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._folder.cleanup()

    @property
    def pid(self) -> int:
        """Its pid."""
        return self.process.pid

    def now(self) -> Count:
        """Its next account: complete, and younger than this call."""
        words = self._words
        seen = int(words[VERSION])
        while True:
            before = int(words[VERSION])
            count = Count(int(words[STEPS]), int(words[CPU_NS]), int(words[WALL_NS]))
            if before % 2 == 0 and before > seen + 1 and before == int(words[VERSION]):
                return count
            if self.process.poll() is not None:
                raise RuntimeError(f"the training process ended: {self.process.returncode}")
            time.sleep(0.0005)

    def during(self, seconds: float) -> Count:
        """What it does in so long."""
        before = self.now()
        time.sleep(seconds)
        return self.now() - before

    def profiled(self, seconds: float) -> Count:
        """What it does in so long under torch.profiler, CPU activities, nothing else asked for."""
        self._profile(True)
        try:
            return self.during(seconds)
        finally:
            self._profile(False)

    def _profile(self, on: bool) -> None:
        self._words[REQUEST] = int(on)
        while self._words[STATE] != int(on):
            time.sleep(0.001)


def tapped(
    pid: int, config: WindowConfig, during: Callable[[], Count], path: Path, *, limit_s: float
) -> tuple[Count, Capture]:
    """`during` while gputap captures from outside, as the command line does it.

    `limit_s` is the length of the window that is asked for, which the budget is shared out over.
    """
    opened, done = threading.Event(), threading.Event()
    found: list[Count] = []

    def act() -> None:
        opened.wait()
        try:
            found.append(during())
        finally:
            done.set()

    actor = threading.Thread(target=act)
    actor.start()
    try:
        tap = AgentTap(pid, config, PATIENT)
        plan = session.Plan(path, int(limit_s * 1e9), config.mode, overwrite=True)
        capture = session.run([tap], plan, progress=lambda _: opened.set(), stop_asked=done.is_set)
    finally:
        opened.set()
        actor.join()
    return found[0], capture


def attached(pid: int, during: Callable[[], Count]) -> Count:
    """`during` while gputap is attached with everything prepared, and no window open."""
    tap = AgentTap(pid, WindowConfig(mode=CaptureMode.FULL), PATIENT)
    try:
        tap.prepare()
        return during()
    finally:
        tap.detach()


# ------------------------------------------------------------------------------------ figures


def middle(values: Sequence[float]) -> dict[str, float]:
    """Median and quartiles: the spread between rounds of one run."""
    ordered = sorted(values)
    quarter = statistics.quantiles(ordered, n=4) if len(ordered) > 1 else [ordered[0]] * 3
    return {
        "median": round(statistics.median(ordered), 3),
        "q1": round(quarter[0], 3),
        "q3": round(quarter[2], 3),
        "rounds": len(ordered),
    }


def tail(values: Sequence[float]) -> dict[str, float]:
    """Percentiles of a distribution, nearest rank."""
    ordered = sorted(values)
    last = len(ordered) - 1
    at = {f"p{p}": round(ordered[min(last, len(ordered) * p // 100)], 3) for p in (50, 90, 99)}
    return {**at, "max": round(ordered[last], 3), "count": len(ordered)}


def emit(benchmark: str, **figures: Any) -> None:
    """One JSON object on one line, with what is needed to judge it."""
    print(json.dumps({"benchmark": benchmark, **figures, "where": where()}), flush=True)


def where() -> dict[str, Any]:
    """Machine, versions, date, and how busy the machine was."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "")
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "cpu": cpu or platform.machine(),
        "cpus": os.cpu_count(),
        "os_kernel": platform.release(),
        "python": platform.python_version(),
        "torch": version("torch"),
        "load": [round(load, 1) for load in os.getloadavg()],
    }
