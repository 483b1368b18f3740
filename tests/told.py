"""Targets on the simulated GPU that do what a test tells them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from tests.commanded import Commanded
from tests.simgpu import truth
from tests.simulated import WORK, stack

TARGETS = Path(__file__).resolve().parent / "targets"


class Told(Commanded):
    """A target of `tests/targets` that does what it is told on stdin."""

    def __init__(self, script: str, *arguments: object, log: Path) -> None:
        libraries, modules = stack()
        self._log = log
        env = {"SIMGPU_LIBRARIES": libraries, "SIMCUDA_MODULES": modules, "SIMGPU_LOG": log}
        super().__init__(
            [sys.executable, str(TARGETS / script), *map(str, arguments)],
            env={**os.environ, **{name: str(value) for name, value in env.items()}},
        )

    def truth(self) -> list[truth.Operation]:
        return [o for o in truth.read(self._log) if o.kind in WORK]

    def did(self, what: Callable[[], object]) -> tuple[int, int]:
        """Kernels and copies that the device did in `what`."""
        before = len(self.truth())
        what()
        kinds = [o.kind for o in self.truth()[before:]]
        return kinds.count("kernel"), kinds.count("memcpy")
