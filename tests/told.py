"""Targets on the simulated GPU that do what a test tells them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.simgpu import truth
from tests.simulated import WORK, stack

TARGETS = Path(__file__).resolve().parent / "targets"


class Told:
    """A target of `tests/targets` that does what it is told on stdin."""

    def __init__(self, script: str, *arguments: object, log: Path) -> None:
        libraries, modules = stack()
        self._log = log
        env = {"SIMGPU_LIBRARIES": libraries, "SIMCUDA_MODULES": modules, "SIMGPU_LOG": log}
        self.process = subprocess.Popen(
            [sys.executable, str(TARGETS / script), *map(str, arguments)],
            env={**os.environ, **{name: str(value) for name, value in env.items()}},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = int(self._line().split()[1])

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"it ended with {self.process.wait(10)}"
        return line

    def __call__(self, command: str) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return json.loads(self._line())

    def truth(self) -> list[truth.Operation]:
        return [o for o in truth.read(self._log) if o.kind in WORK]

    def did(self, what: Callable[[], object]) -> tuple[int, int]:
        """Kernels and copies that the device did in `what`."""
        before = len(self.truth())
        what()
        kinds = [o.kind for o in self.truth()[before:]]
        return kinds.count("kernel"), kinds.count("memcpy")

    def __enter__(self) -> Told:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        code = self.process.wait(60)
        assert self.process.stdout is not None
        self.process.stdout.close()
        if kind is None:
            assert code == 0
