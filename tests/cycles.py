"""Attach, capture, let go, over and over: what the short and the long proofs share."""

from __future__ import annotations

import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

from gputap.injectors.entry import Entry
from gputap.injectors.library.client import WindowConfig
from gputap.injectors.tap import AgentTap
from gputap.profiler import session
from gputap.profiler.errors import ProfilerError
from gputap.profiler.schema import CaptureMode
from gputap.profiler.store import Capture
from tests.workload import Workload

ROOT = Path(__file__).resolve().parent.parent
THREADS = 3
ROUNDS = 16
"""Rounds after which the workload `threads` repeats itself."""


@dataclass(frozen=True, slots=True)
class Resources:
    """What a process holds, at the least of some looks: workers come and go meanwhile."""

    descriptors: int
    threads: int
    mappings: int
    rss_kb: int


def resources(pid: int | str, looks: int = 100, every_s: float = 0.05) -> Resources:
    """What `pid` holds when nothing passing is counted."""
    seen = []
    for _ in range(looks):
        seen.append(_resources_now(Path(f"/proc/{pid}")))
        time.sleep(every_s)  # between two looks, not for luck: the least of all is taken
    columns = zip(*seen, strict=True)
    return Resources(*(min(column) for column in columns))


def _resources_now(process: Path) -> tuple[int, int, int, int]:
    status = (process / "status").read_text()
    rss = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return (
        len(os.listdir(process / "fd")),
        len(os.listdir(process / "task")),
        (process / "maps").read_text().count("\n"),
        int(rss.split()[1]),
    )


def training(fork_every_s: float = 2.0) -> Workload:
    """A busy target: three Python threads train while DataLoader workers are forked."""
    return Workload("threads", "--fork-every", str(fork_every_s), record_losses=True)


def untapped_losses() -> list[list[float]]:
    """Each thread's losses in a run that nobody tapped."""
    with Workload("threads", "--rounds", str(ROUNDS), record_losses=True) as workload:
        workload.wait()
        return [workload.losses(thread) for thread in range(THREADS)]


def assert_losses_unchanged(tapped: Workload) -> int:
    """End the target cleanly and compare every round, bit for bit; returns how many rounds."""
    tapped.stop()
    expected, rounds = untapped_losses(), 0
    for thread in range(THREADS):
        losses = tapped.losses(thread)
        assert len(expected[thread]) == ROUNDS
        assert losses
        assert losses == [expected[thread][k % ROUNDS] for k in range(len(losses))]
        rounds += len(losses)
    return rounds


@dataclass(frozen=True, slots=True)
class Cycle:
    """What one attach, capture and detach was."""

    pause_ns: int
    attach_ns: int
    total_ns: int
    events: int
    reused: bool


def cycle(pid: int, path: Path, window_ns: int) -> Cycle:
    """One full cycle; asserts that operators were captured, and that nothing was lost."""
    began = time.monotonic_ns()
    try:
        tap = AgentTap(pid, WindowConfig(mode=CaptureMode.FULL), Entry(timeout_s=60))
    except ProfilerError as exc:
        raise AssertionError(f"{exc}\n{threads_of(pid)}") from exc
    attached = time.monotonic_ns()
    plan = session.Plan(path, window_ns, CaptureMode.FULL, overwrite=True)
    capture = session.run([tap], plan)
    ended = time.monotonic_ns()
    rank = capture.manifest.ranks[0]
    assert rank.stop_reason == "deadline"
    assert not rank.dropped
    assert capture.rows("events") == rank.events
    return Cycle(tap.pause_ns, attached - began, ended - began, _operators(capture), tap.reused)


def threads_of(pid: int) -> str:
    """What each thread of a target that cannot be attached to is doing."""
    lines = []
    for task in sorted(Path(f"/proc/{pid}/task").iterdir()):
        with suppress(OSError):
            status = (task / "status").read_text().splitlines()
            told = [line for line in status if line.startswith(("State", "TracerPid", "SigBlk"))]
            name, call = (task / "comm").read_text().strip(), (task / "syscall").read_text()
            lines.append(f"{task.name} {name} {told} {(task / 'wchan').read_text()} {call.strip()}")
    return "\n".join(lines)


def _operators(capture: Capture) -> int:
    kinds: list[str] = capture.table("events", ["kind"]).column("kind").to_pylist()
    return kinds.count("operator")


def run_cycles(workload: Workload, folder: Path, count: int, seed: int = 0) -> list[Cycle]:
    """So many cycles with windows of 10 to 50 ms; the target must live after each."""
    chance, done = random.Random(seed), []
    for number in range(count):
        done.append(cycle(workload.pid, folder / "capture", chance.randint(10, 50) * 1_000_000))
        assert workload.alive, f"the target ended in cycle {number}: {workload.errors}"
    return done


# ---------------------------------------------------------------------------- killed gputaps

START = """
import sys
import gputap.cli, gputap.dashboards.html_report, gputap.injectors.tap, gputap.profiler.session
import gputap.profiler.analysis.report
sys.stdout.write("ready\\n"); sys.stdout.flush()
sys.stdin.readline()
gputap.cli.main()
"""
"""The command line with its imports done, so that kills hit its work and not its start."""


@contextmanager
def poised(arguments: Sequence[object]) -> Iterator[subprocess.Popen[str]]:
    """A gputap that begins at the first line it is sent; killed at the end if it still runs."""
    process = subprocess.Popen(
        [sys.executable, "-c", START, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def go(process: subprocess.Popen[str]) -> None:
    """Let a poised gputap begin."""
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def arguments(pid: int, path: Path) -> list[object]:
    """A short full capture."""
    return ["attach", pid, "--full", "-d", "150ms", "-o", path, "--overwrite"]


def whole_life_s(pid: int, path: Path) -> float:
    """How long a gputap that nobody kills takes here and now."""
    with poised(arguments(pid, path)) as process:
        began = time.monotonic()
        go(process)
        assert process.wait(120) == 0
        return time.monotonic() - began


def kill_after(pid: int, path: Path, delay_s: float) -> bool:
    """Kill gputap so long after it began; False if it had ended."""
    with poised(arguments(pid, path)) as process:
        go(process)
        time.sleep(delay_s)  # the point of death
        process.kill()
        return process.wait(60) == -signal.SIGKILL


def kill_inside_the_injector(pid: int, path: Path, delay_s: float, *, helper: bool) -> bool:
    """Kill gputap, and with `helper` gputap-inject too, so long after the helper was started.

    False if the helper had ended before.
    """
    with poised(arguments(pid, path)) as process:
        go(process)
        child = _helper_of(process)
        if not child:
            return False
        until = time.perf_counter() + delay_s
        while time.perf_counter() < until:
            pass
        os.kill(process.pid, signal.SIGSTOP)  # it cannot take its child's exit code from here on
        handle = os.pidfd_open(child) if child in _children(process.pid) else -1
        lived = handle >= 0 and not select.select([handle], [], [], 0)[0]
        process.kill()
        if handle >= 0:
            if helper:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
            os.close(handle)
        process.wait(60)
        return lived


def _children(pid: int) -> list[int]:
    """Children of the main thread of `pid`."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _helper_of(process: subprocess.Popen[str]) -> int:
    """The pid of its gputap-inject as soon as there is one; 0 if it was never seen."""
    while process.poll() is None:
        for child in _children(process.pid):
            with suppress(OSError):
                if Path(f"/proc/{child}/comm").read_text() == "gputap-inject\n":
                    return child
    return 0


def clear(path: Path) -> None:
    """Throw a capture away, whole or cut off."""
    shutil.rmtree(path, ignore_errors=True)


# ------------------------------------------------------------------------------------ figures


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, 90th and 99th percentile, and the largest."""
    ordered = sorted(values)
    last = len(ordered) - 1
    at = {f"p{p}": ordered[min(last, len(ordered) * p // 100)] for p in (50, 90, 99)}
    return {**at, "max": ordered[last]}


def keep(name: str, figures: dict[str, object]) -> None:
    """Print the figures of a long proof and keep them in build/soak."""
    when = {"date": datetime.now(timezone.utc).isoformat(timespec="minutes")}
    busy = {"load": [round(load, 1) for load in os.getloadavg()]}
    text = json.dumps({"soak": name, **figures, **when, **busy}, default=asdict)
    print(text)
    folder = ROOT / "build" / "soak"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(text + "\n")
