"""The workload of `gputap demo`, started and stopped as a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gputap.profiler.errors import UsageError

_LIFETIME_S = 600


@contextmanager
def workload(python: str = sys.executable) -> Iterator[int]:
    """Run the demo's training job and yield its pid once it trains; ended on the way out."""
    script = Path(__file__).with_name("train.py")
    try:
        process = subprocess.Popen(
            [python, str(script), str(_LIFETIME_S)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
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
