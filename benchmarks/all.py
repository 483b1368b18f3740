"""Every benchmark, one after another; the figures as JSON lines in build/bench.json.

    python benchmarks/all.py [NAME ...]

About twenty minutes on a quiet machine. A benchmark that fails is named, and the others run on.
`python benchmarks/tables.py` puts the figures into docs/overhead.md and docs/performance.md.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from common import where

FOLDER = Path(__file__).resolve().parent
RESULTS = FOLDER.parent / "build" / "bench.json"
COMMANDS = {
    "op_cost": ["op_cost.py"],
    "overhead": ["overhead.py"],
    "budget": ["budget.py"],
    "pause": ["pause.py"],
    "rss": ["rss.py"],
    "ingest": ["ingest.py", "--json"],
    "cupti_decode": ["cupti_decode.py"],
    "analysis": ["analysis.py"],
    "exports": ["exports.py"],
    "otlp_encode": ["otlp_encode.py"],
}


def objects(text: str) -> list[dict[str, object]]:
    """The JSON objects in what a benchmark printed, over one line or several."""
    found, decoder, at = [], json.JSONDecoder(), text.find("{")
    while at >= 0:
        try:
            value, end = decoder.raw_decode(text, at)
            found.append(value)
        except ValueError:
            end = at + 1
        at = text.find("{", end)
    return found


def run(name: str) -> list[dict[str, object]]:
    """The figures of one benchmark, each with where it was measured."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, str(FOLDER / COMMANDS[name][0]), *COMMANDS[name][1:]],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.stderr.write(done.stderr)
        return [{"benchmark": name, "failed": done.returncode}]
    took = {"took_s": round(time.monotonic() - began)}
    return [{"benchmark": name, "where": where()} | one | took for one in objects(done.stdout)]


def main() -> int:
    names = sys.argv[1:] or list(COMMANDS)
    RESULTS.parent.mkdir(exist_ok=True)
    failed = 0
    with RESULTS.open("w") as file:
        for name in names:
            for figures in run(name):
                failed += "failed" in figures
                line = json.dumps(figures)
                file.write(line + "\n")
                file.flush()
                print(line, flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
