"""Memory and CPU of gputap itself while it captures, as the command line does it.

    python benchmarks/rss.py [--seconds 20] [full|bursts ...]

Its resident memory includes the pages of the shared rings that it has read. `cpu_percent` is of one
core, over the window; what follows the window (the last part, the analysis, the page) is given
apart.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from common import Trainer, emit

from gputap.profiler.store import Capture

TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Look:
    """A process at one moment."""

    at_s: float
    cpu_s: float
    rss_mb: float
    shared_mb: float
    capturing: bool


def look(pid: int, path: Path) -> Look | None:
    """None when it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    status = dict(line.split(":", 1) for line in lines)
    if "VmRSS" not in status:
        return None
    return Look(
        at_s=time.monotonic(),
        cpu_s=(int(fields[11]) + int(fields[12])) * TICK_S,
        rss_mb=int(status["VmRSS"].split()[0]) / 1024,
        shared_mb=int(status["RssShmem"].split()[0]) / 1024,
        capturing=_capturing(path),
    )


def _capturing(path: Path) -> bool:
    try:
        manifest = json.loads((path / "manifest.json").read_text())
    except (OSError, ValueError):
        return False
    tables = {part["table"] for part in manifest["parts"]}
    return bool(manifest["ranks"]) and "stacks" not in tables and manifest["state"] == "open"


def measure(workload: str, mode: str, seconds: float) -> None:
    with Trainer(workload) as trainer, tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "capture"
        command = [sys.executable, "-m", "gputap.cli", "attach", str(trainer.pid)]
        command += ["-d", f"{seconds}s", "-o", str(path), *(["--full"] if mode == "full" else [])]
        looks = []
        with subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            while seen := look(process.pid, path):
                looks.append(seen)
                time.sleep(0.1)
        assert process.returncode == 0, process.returncode
        rank = Capture.open(path).manifest.ranks[0]
        size = sum(part.bytes for part in Capture.open(path).manifest.parts)
    first = next(seen for seen in looks if seen.capturing)
    window = [seen for seen in looks if first.at_s <= seen.at_s <= first.at_s + seconds]
    last = window[-1]
    length_s = last.at_s - first.at_s
    emit(
        "rss",
        workload=workload,
        mode=mode,
        window_s=seconds,
        events=rank.events,
        events_per_s=round((rank.events or 0) / seconds),
        dropped=rank.dropped,
        bytes_per_event=round(size / (rank.events or 1), 2),
        window_rss_mb={
            "at_a_quarter": round(window[len(window) // 4].rss_mb, 1),
            "at_the_end": round(last.rss_mb, 1),
            "peak": round(max(seen.rss_mb for seen in window), 1),
            "of_it_rings": round(max(seen.shared_mb for seen in window), 1),
        },
        window_cpu_percent=round(100 * (last.cpu_s - first.cpu_s) / length_s, 1),
        analysis={
            "seconds": round(looks[-1].at_s - last.at_s, 1),
            "cpu_s": round(looks[-1].cpu_s - last.cpu_s, 1),
            "peak_mb": round(max(seen.rss_mb for seen in looks), 1),
        },
    )


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    options.add_argument("modes", nargs="*", default=["full", "bursts"])
    options.add_argument("--workload", default="mlp")
    options.add_argument("--seconds", type=float, default=20.0)
    chosen = options.parse_args()
    for mode in chosen.modes:
        measure(chosen.workload, mode, chosen.seconds)


if __name__ == "__main__":
    main()
