"""Whether the default budget of 1 % holds: slowdown of a whole window in bursts, measured.

    python benchmarks/budget.py [--rounds 12] [--window 6] [mlp] [transformer]

Windows with gputap (attached from outside, default mode) and stretches of the same length without
alternate; a window is compared with the stretches before and after it. `recorded_steps_percent` is
the same seen from within, and far less disturbed by the machine: how much longer recorded steps
take than the other steps of the same window, times their number, as a share of the window.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from common import Trainer, emit, middle, tapped

from gputap.injectors.library.client import WindowConfig
from gputap.profiler.store import Capture


def dearer_percent(capture: Capture) -> float:
    """What the recorded steps took longer than the others of the same window, as its share."""
    steps = [step for step in capture.table("steps").to_pylist() if step["whole"]]
    taken = [step["duration_ns"] for step in steps if step["recorded"]]
    others = [step["duration_ns"] for step in steps if not step["recorded"]]
    added_ns: float = len(taken) * (statistics.median(taken) - statistics.median(others))
    return 100 * added_ns / (capture.manifest.ranks[0].window_ns or 1)


def measure(name: str, rounds: int, window_s: float) -> None:
    cpu, wall, share, dearer, recorded = [], [], [], [], []
    config = WindowConfig()
    with Trainer(name) as trainer, tempfile.TemporaryDirectory() as folder:
        before = trainer.during(window_s)
        for _ in range(rounds):
            count, capture = tapped(
                trainer.pid,
                config,
                lambda: trainer.during(window_s),
                Path(folder) / "capture",
                limit_s=window_s + 0.5,
            )
            after = trainer.during(window_s)
            base_us = (before.cpu_us + after.cpu_us) / 2
            base_wall_us = (before.wall_us + after.wall_us) / 2
            cpu.append(100 * (count.cpu_us / base_us - 1))
            wall.append(100 * (count.wall_us / base_wall_us - 1))
            rank = capture.manifest.ranks[0]
            share.append(100 * (rank.recorded_ns or 0) / (rank.window_ns or 1))
            dearer.append(dearer_percent(capture))
            recorded.append(float(sum(s["recorded"] for s in capture.table("steps").to_pylist())))
            before = after
    emit(
        "budget",
        workload=name,
        window_s=window_s,
        budget_percent=config.budget_ppm / 1e4,
        slowdown_percent=middle(cpu),
        wall_slowdown_percent=middle(wall),
        recorded_steps_percent=middle(dearer),
        recorded_percent_of_window=middle(share),
        steps_recorded=middle(recorded),
    )


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    options.add_argument("loops", nargs="*", default=["mlp", "transformer"])
    options.add_argument("--rounds", type=int, default=12)
    options.add_argument("--window", type=float, default=6.0)
    chosen = options.parse_args()
    for name in chosen.loops:
        measure(name, chosen.rounds, chosen.window)


if __name__ == "__main__":
    main()
