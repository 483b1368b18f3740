"""What recording a kernel launch costs the launching thread, on the simulated CUDA stack.

    python benchmarks/launch_cost.py [--rounds 30]

Launches without anybody, with a client of CUPTI that throws its records away, and with gputap, in
turns in one process. The difference of the last two is what gputap adds to CUPTI; what CUPTI itself
costs on a GPU this stack cannot tell.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import FOLDER, PATIENT, emit

sys.path.insert(0, str(FOLDER.parent))

from gputap.injectors.library.client import WindowConfig
from gputap.injectors.library.device import DeviceConfig, state_of
from gputap.injectors.tap import AgentTap
from gputap.profiler.device_memory import DeviceMemory
from gputap.profiler.schema import CaptureMode, DeviceState
from tests.commanded import Commanded
from tests.simgpu import build

LAUNCHES = 50_000


class Target(Commanded):
    """The process that launches."""

    def __init__(self, folder: Path) -> None:
        libraries = build.ensure()
        library = folder / "launch_loop.so"
        source = FOLDER / "targets" / "launch_loop.c"
        names = ("libcudart.so.13", "libcuda.so.1", "libcupti.so.13")
        link = ["-Wl,--no-as-needed", "-L", libraries, *(f"-l:{name}" for name in names)]
        command = ["cc", "-O2", "-shared", "-fPIC", source, "-o", library, *link]
        subprocess.run([*map(str, command), f"-Wl,-rpath,{libraries}"], check=True)
        super().__init__([sys.executable, str(FOLDER / "targets" / "launches.py"), str(library)])

    def per_launch(self) -> float:
        """ns of the launching thread."""
        return float(self(f"launches {LAUNCHES}")) / LAUNCHES


def with_gputap(target: Target) -> float:
    """A launch while the device level is on and a window open; records are drained, not decoded."""
    device = DeviceConfig(record_limit=1 << 60)
    tap = AgentTap(target.pid, WindowConfig(mode=CaptureMode.FULL), PATIENT, device)
    try:
        tap.prepare()
        assert state_of(tap.memory) is DeviceState.ON
        memory = DeviceMemory(tap.memory)
        tap.start(0)
        cost = target.per_launch()
        while memory.drain(1 << 30):
            pass
        tap.stop()
        return cost
    finally:
        tap.detach()


def measure(rounds: int) -> dict[str, Any]:
    """Medians over rounds in which the three take turns."""
    seen: dict[str, list[float]] = {"alone": [], "cupti": [], "gputap": []}
    with tempfile.TemporaryDirectory() as folder:
        with Target(Path(folder)) as target:
            target.per_launch()
            for _ in range(rounds):
                seen["alone"].append(target.per_launch())
                assert target("client 1") == 0
                seen["cupti"].append(target.per_launch())
                assert target("client 0") == 0
                seen["gputap"].append(with_gputap(target))
    median = {name: statistics.median(values) for name, values in seen.items()}
    added = [g - c for g, c in zip(seen["gputap"], seen["cupti"], strict=True)]
    return {
        "simulated": True,
        "launches": LAUNCHES * rounds,
        "ns_per_launch": {name: round(value, 1) for name, value in median.items()},
        "added_to_cupti_ns": {
            "median": round(statistics.median(added), 1),
            "q1": round(statistics.quantiles(added)[0], 1),
            "q3": round(statistics.quantiles(added)[2], 1),
        },
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    emit("launch_cost", **measure(parser.parse_args().rounds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
