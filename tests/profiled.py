"""Runs a workload and prints, as JSON, what torch.profiler counts in some of its steps, by name.

`python tests/profiled.py NAME [ARGUMENTS]`: steps 5, 6 and 7 are profiled.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "workloads"
FIRST, STEPS = 5, 3


def main() -> None:
    sys.path.insert(0, str(FOLDER))
    import common
    from torch.profiler import ProfilerActivity, profile

    plain = common.Run.__iter__
    counts: Counter[str] = Counter()
    raw: Counter[str] = Counter()

    def profiled(self: common.Run) -> Iterator[int]:
        for step in plain(self):
            if step == FIRST:
                profiler = profile(activities=[ProfilerActivity.CPU])
                profiler.__enter__()
            if step == FIRST + STEPS:
                profiler.__exit__(None, None, None)
                # `events()` leaves out an only child of the same name, the raw results do not.
                counts.update(event.name for event in profiler.events())
                raw.update(e.name() for e in profiler.profiler.kineto_results.events())
            yield step

    common.Run.__iter__ = profiled  # type: ignore[method-assign]
    name, *arguments = sys.argv[1:]
    sys.argv = [name, *arguments, "--steps", str(FIRST + STEPS + 2)]
    runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
    os.write(1, f"counts {json.dumps([counts, raw])}\n".encode())


if __name__ == "__main__":
    main()
