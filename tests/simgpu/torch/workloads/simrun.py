"""What the workloads share: `tests/workloads/common.py`, on the simulated device.

The same handshake (`ready PID RANK`, SIGTERM, `done STEPS`, `--losses FILE`), so that
`tests.workload` starts them by their path; on top of it `--seconds`, `--device`, and the losses as
JSON at the end.
`--device cpu` runs the same program without the simulated stack, for comparison.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[2] / "workloads")]

import torch  # noqa: E402
from common import Run  # noqa: E402
from common import parser as common_parser  # noqa: E402
from ranks import launch as launch  # noqa: E402

KEPT = 10_000


def parser(doc: str | None) -> argparse.ArgumentParser:
    """The options of every workload."""
    options = common_parser(doc)
    options.add_argument("--seconds", type=float, help="end after so long, counted from ready")
    options.add_argument("--device", default="simcuda", help="simcuda or cpu")
    return options


def device(options: argparse.Namespace) -> torch.device:
    """The device to run on; makes simcuda known to torch."""
    if options.device != "cpu":
        import simcuda  # noqa: F401
    return torch.device(options.device)


class SimRun(Run):
    """`for step in run: ...; run.record(loss)`. Losses are printed as `{"losses": [...]}`."""

    def __init__(
        self, options: argparse.Namespace, *, rank: int = 0, together: bool = False
    ) -> None:
        self.device = device(options)
        super().__init__(options, rank=rank, together=together)
        self.values: list[float] = []
        self._rank_shown = rank
        self._until: float | None = None

    @property
    def stopped(self) -> bool:
        """SIGTERM has come, or the seconds are over."""
        return super().stopped or (self._until is not None and time.monotonic() > self._until)

    def say_ready(self) -> None:
        """From here on the seconds count."""
        super().say_ready()
        if self.options.seconds is not None and self._until is None:
            self._until = time.monotonic() + self.options.seconds

    def record(self, loss: torch.Tensor) -> None:
        """Read and keep the loss: the step ends with this synchronisation."""
        value = loss.item()
        if self.options.losses is not None:
            self._losses.append(value)
        if len(self.values) < KEPT:
            self.values.append(value)

    def finish(self) -> None:
        """Print the losses, then say goodbye."""
        self.say_ready()
        line = json.dumps({"rank": self._rank_shown, "losses": self.values})
        os.write(1, f"{line}\n".encode())
        super().finish()
