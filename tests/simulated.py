"""Targets on the simulated GPU, captured at level `device`, and what the device really did."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from gputap.injectors.library.device import DeviceConfig
from gputap.profiler.cupti.demangle import demangle
from gputap.profiler.schema import DeviceState
from gputap.profiler.store import Capture
from tests import tapped
from tests.simgpu import build, truth
from tests.simgpu.torch import build as torch_build
from tests.workload import Workload

FOLDER = Path(__file__).resolve().parent / "simgpu"
WORK = ("kernel", "memcpy", "memset")


def libraries(sanitize: str = "") -> Path:
    """The folder of the simulated libraries; skips where they cannot be built."""
    return _built(build.ensure, sanitize)


def _built(ensure: Callable[..., Path], *arguments: str) -> Path:
    try:
        return ensure(*arguments)
    except (build.CannotBuild, torch_build.CannotBuild) as exc:
        pytest.skip(f"no simulated GPU: {exc}")


@cache
def stack() -> tuple[Path, Path]:
    """The folders of the simulated libraries and of the torch backend; skips if there are none."""
    given = [os.environ.get(name) for name in ("SIMGPU_LIBRARIES", "SIMCUDA_MODULES")]
    if all(given):
        return Path(str(given[0])), Path(str(given[1]))
    return libraries(), _built(torch_build.ensure)


def simcuda(**variables: str) -> str:
    """Source that makes the device known to torch, for an `agent_driver.Target`."""
    libraries, modules = stack()
    variables |= {"SIMGPU_LIBRARIES": str(libraries), "SIMCUDA_MODULES": str(modules)}
    return f"""
os.environ.update({variables!r})
sys.path.insert(0, {str(FOLDER / "torch")!r})
import simcuda
"""


class SimWorkload(Workload):
    """A workload of `tests/simgpu/torch/workloads` with its truth log."""

    def __init__(
        self, name: str, *args: str, log: Path, env: Mapping[str, str] | None = None, **options: Any
    ) -> None:
        libraries, modules = stack()
        self._log = log
        variables = {
            "SIMGPU_LOG": f"{log}.%p",
            "SIMGPU_LIBRARIES": str(libraries),
            "SIMCUDA_MODULES": str(modules),
            **(env or {}),
        }
        script = FOLDER / "torch" / "workloads" / f"{name}.py"
        super().__init__(script, *args, env=variables, timeout_s=120, **options)

    def more(self, count: int, word: bytes = b"\n", pid: int | None = None) -> None:
        """Wait until the device has done so many operations more, whose line has `word` in it."""
        log = Path(f"{self._log}.{pid or self.pid}")
        wanted = log.read_bytes().count(word) + count
        until(lambda: log.read_bytes().count(word) >= wanted, 120)

    def now_ns(self) -> int:
        """Start of the device's last operation so far, by its own clock."""
        last = truth.read_last(Path(f"{self._log}.{self.pid}"))
        return last.start_ns if last else 0

    def truth(self, pid: int | None = None) -> list[truth.Operation]:
        """What the virtual device did so far: kernels, copies and fills."""
        found = truth.read(Path(f"{self._log}.{pid or self.pid}"))
        return [operation for operation in found if operation.kind in WORK]


def until(true: Callable[[], object], seconds: float = 60) -> None:
    """Wait for something to become true."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.02)


def until_recording(pid: int) -> None:
    """Wait until the agent in a tapped process has CUPTI, and has asked it for records since."""
    with tapped.agent_memory(pid) as memory:
        until(lambda: memory.get("device_state") == DeviceState.ON)
        turns = memory.get("device_clock_count") + 2
        until(lambda: memory.get("device_clock_count") >= turns)


def capture(
    pids: Sequence[int],
    path: Path,
    during: Callable[[], object],
    *,
    device: DeviceConfig | None = None,
) -> Capture:
    """One window at level `device`, open while `during` runs."""
    return tapped.capture(pids, path, during, device=device or DeviceConfig(), limit_s=180)


Work = tuple[str, int, int]
"""Kind, correlation id and node of its graph: names one piece of work within a process."""


class Compared:
    """A capture beside what the device really did within its window."""

    def __init__(self, taken: Capture, did: Sequence[truth.Operation], rank: int = 0) -> None:
        manifest = next(r for r in taken.ranks if r.rank == rank)
        assert manifest.window_start_ns is not None
        assert manifest.device is not None
        # The log has the simulated clock's times, the capture unix times by our clock.
        self.error_ns = manifest.device.clock_error_ns
        self.slack_ns = self.error_ns + 2_000
        table = taken.table("device", rank=rank).to_pylist()
        rows = [row for row in table if row["kind"] in WORK]
        self.captured = {
            (row["kind"], row["correlation_id"], row["graph_node_id"] or 0): row for row in rows
        }
        assert len(self.captured) == len(rows), "two rows for one piece of work"
        self.did = {(o.kind, o.correlation_id, o.graph_node_id): o for o in did}
        # A target that ended within the window never closed it.
        lo, hi = manifest.window_start_ns, manifest.window_end_ns or 1 << 63
        self.within = {
            key
            for key, o in self.did.items()
            if o.start_ns >= lo + self.slack_ns and o.end_ns <= hi - self.slack_ns
        }

    def missing(self) -> set[Work]:
        """What the device did within the window and the capture does not have."""
        return self.within - self.captured.keys()

    def invented(self) -> set[Work]:
        """What the capture has and the device never did."""
        return self.captured.keys() - self.did.keys()

    def wrong(self) -> list[tuple[Any, ...]]:
        """What both have with other times, sizes or places."""
        found = []
        for key, row in self.captured.items():
            o = self.did[key]
            late = row["start_ns"] - o.start_ns
            longer = row["duration_ns"] - (o.end_ns - o.start_ns)
            size = o.bytes if o.kind != "kernel" else row["bytes"]
            named = o.kind != "kernel" or row["name"] == demangle(o.name)
            same = named and (row["bytes"], row["stream_id"], row["device_id"]) == (
                size,
                o.stream,
                o.device,
            )
            if abs(late) > self.slack_ns or abs(longer) > self.error_ns or not same:
                found.append((key, late, longer, o, row))
        return found

    def check(self) -> None:
        """Exactly what the device did, as it did it."""
        assert self.within, "nothing ran within the window"
        missing, invented = self.missing(), self.invented()
        assert not missing, f"{len(missing)} of {len(self.within)}, e.g. {sorted(missing)[:3]}"
        assert not invented, f"{len(invented)}, e.g. {sorted(invented)[:3]}"
        wrong = self.wrong()
        assert not wrong, f"{len(wrong)} of {len(self.captured)}, e.g. {wrong[:3]}"


def names(operations: Sequence[truth.Operation]) -> Counter[str]:
    """How often each kernel ran, by its mangled name."""
    return Counter(o.name for o in operations if o.kind == "kernel")


__all__ = ["Compared", "SimWorkload", "capture", "names", "stack"]
