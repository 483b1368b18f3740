"""The workload of `gputap demo`, started and stopped as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from gputap.profiler.errors import UsageError

_LIFETIME_S = 600
_SIMULATED = Path(__file__).resolve().parents[2] / "tests" / "simgpu"
"""There in a checkout only: the simulated GPU is no part of the package."""

DEVICES = ("auto", "cpu", "cuda", "simulated")


@dataclass(frozen=True, slots=True)
class Device:
    """What the job trains on, by torch's name, and the environment that it needs for it."""

    name: str
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def words(self) -> str:
        """For people."""
        return {"cuda": "a GPU", "simcuda": "a simulated GPU"}.get(self.name, "the CPU")


def choose(wanted: str, python: str, say: Callable[[str], None]) -> Device:
    """The device to train on. `auto`: a GPU, else the simulated one of a checkout, else the CPU.

    Raises UsageError for a device that cannot be had.
    """
    if wanted not in DEVICES:
        raise UsageError(f"--device {wanted} is none of {', '.join(DEVICES)}.")
    if wanted == "cuda" or (wanted == "auto" and _has_cuda(python)):
        return Device("cuda")
    if wanted == "cpu" or (wanted == "auto" and not _SIMULATED.exists()):
        return Device("cpu")
    try:
        return _simulated(python, say)
    except UsageError as exc:
        if wanted == "simulated":
            raise
        say(f"no simulated GPU, so the CPU: {exc.message}")
        return Device("cpu")


def _has_cuda(python: str) -> bool:
    code = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    try:
        return not subprocess.run([python, "-c", code], capture_output=True, check=False).returncode
    except OSError:
        return False


def _simulated(python: str, say: Callable[[str], None]) -> Device:
    if not _SIMULATED.exists():
        raise UsageError("The simulated GPU comes with a checkout of gputap, not with the package.")
    say("preparing the simulated GPU (some minutes the first time)")
    libraries = _built(python, _SIMULATED / "build.py")
    modules = _built(python, _SIMULATED / "torch" / "build.py")
    path = os.pathsep.join(filter(None, [str(_SIMULATED / "torch"), os.environ.get("PYTHONPATH")]))
    variables = {"SIMGPU_LIBRARIES": libraries, "SIMCUDA_MODULES": modules, "PYTHONPATH": path}
    return Device("simcuda", variables)


def _built(python: str, script: Path) -> str:
    """The folder that a build script prints when it is done."""
    # cmake may be a package of this Python's environment, which need not be activated.
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)])
    try:
        done = subprocess.run(
            [python, str(script)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PATH": path},
        )
    except OSError as exc:
        raise UsageError(f"Cannot run {python}: {exc.strerror}.") from exc
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no reason given"]
        raise UsageError(f"The simulated GPU does not build: {lines[-1]}")
    return done.stdout.strip()


@contextmanager
def workload(python: str = sys.executable, device: Device | None = None) -> Iterator[int]:
    """Run the demo's training job and yield its pid once it trains; ended on the way out."""
    script = Path(__file__).with_name("train.py")
    device = device or Device("cpu")
    try:
        process = subprocess.Popen(
            [python, str(script), str(_LIFETIME_S), device.name],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **device.environment},
        )
    except OSError as exc:
        raise UsageError(f"Cannot run {python}: {exc.strerror}.") from exc
    try:
        assert process.stdout is not None and process.stderr is not None
        if not process.stdout.readline().startswith("ready"):
            lines = process.stderr.read().strip().splitlines() or ["no reason given"]
            raise UsageError(
                f"The demo's training job did not start: {lines[-1]}",
                hint="It needs torch: give a Python that has it with --python.",
            )
        yield process.pid
    finally:
        process.terminate()
        process.communicate()
