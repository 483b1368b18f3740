"""Analysis of a capture from Parquet: time and memory for a number of events.

    python benchmarks/analysis.py [EVENTS]      (default 1,000,000)

The capture is a training loop of 12 layers with module names and Python stacks, 326 events per
step. The analysis runs in a fresh process, so that its memory is its own; the time is that of
`analyse` with the import of pyarrow left out and the reading of Parquet left in. Budget:
1 M events in 1.5 s and 500 MB.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

LAYERS = 12
OPS = 12
"""Events of one layer's forward pass."""

MEASURE = """
import json, resource, sys, time
import numpy, pyarrow, pyarrow.parquet, pyarrow.compute
from gputap.profiler.analysis.report import analyse
from gputap.profiler.capture import Capture
base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
times = []
for _ in range(3):
    start = time.perf_counter()
    report = analyse(Capture.open(sys.argv[1]))
    times.append(time.perf_counter() - start)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"s": times, "peak_mb": peak / 1024, "import_mb": base / 1024,
                  "steps": report.ranks[0].steps_found, "events": report.ranks[0].overhead.events}))
"""


def step_template() -> list[dict[str, Any]]:
    """One step's events, times relative to its start."""
    rows: list[dict[str, Any]] = []
    now = 0

    def add(name: str, length: int, kind: str = "operator", **more: Any) -> None:
        nonlocal now
        rows.append({"start": now, "length": length, "name": name, "kind": kind, **more})

    add("enumerate(DataLoader)#_SingleProcessDataLoaderIter.__next__", 20_000, "user_scope")
    now += 25_000
    for layer in range(LAYERS):
        add("aten::linear", 11_000, module=layer, seq=layer)
        now += 200
        for k in range(OPS - 1):
            inner = ("aten::t", "aten::addmm", "aten::expand", "aten::copy_")[k % 4]
            add(inner, 800, module=layer)
            now += 900
        now += 1_500
    for layer in reversed(range(LAYERS)):
        add("autograd::engine::evaluate_function: AddmmBackward0", 16_000, seq=layer)
        now += 100
        add("AddmmBackward0", 15_000, "autograd", seq=layer)
        now += 100
        for k in range(OPS):
            add(("aten::mm", "aten::t", "aten::sum", "aten::view")[k % 4], 900)
            now += 1_000
        now += 5_000
    add("Optimizer.step#AdamW.step", 30_000, "user_scope")
    now += 1_000
    for _ in range(10):
        add("aten::_foreach_add_", 2_000)
        now += 2_500
    rows[-1]["step_ns"] = now + 10_000
    return rows


def write_capture(path: Path, events: int) -> int:
    """Write a capture of at least so many events; returns how many."""
    import numpy as np
    import pyarrow as pa

    from gputap.profiler import schema
    from gputap.profiler.store import CaptureWriter, RankManifest

    template = step_template()
    step_ns = template[-1]["step_ns"]
    steps = -(-events // len(template))
    names = sorted({r["name"] for r in template})
    kinds = ["operator", "autograd", "user_scope"]
    modules = [f"layers.{i}" for i in range(LAYERS)]

    def column(key: str, missing: int = 0) -> Any:
        return np.tile(np.array([r.get(key, missing) for r in template], np.int64), steps)

    base = 1_700_000_000_000_000_000 + np.repeat(np.arange(steps) * step_ns, len(template))
    module = column("module", -1)
    seq = column("seq", -1)
    seq = np.where(seq >= 0, seq + np.repeat(np.arange(steps) * LAYERS, len(template)), -1)
    name = np.tile(np.array([names.index(r["name"]) for r in template], np.int32), steps)
    kind = np.tile(np.array([kinds.index(r["kind"]) for r in template], np.int32), steps)
    size = len(name)
    columns = {
        "start_ns": pa.array(base + column("start")),
        "duration_ns": pa.array(column("length")),
        "tid": pa.array(np.full(size, 77, np.int32)),
        "depth": pa.array(np.zeros(size, np.int16)),
        "kind": pa.DictionaryArray.from_arrays(kind, kinds),
        "name": pa.DictionaryArray.from_arrays(name, names),
        "seq": pa.array(seq, mask=seq < 0),
        "module": pa.DictionaryArray.from_arrays(
            pa.array(module.astype(np.int32), mask=module < 0), modules
        ),
        "module_class": pa.DictionaryArray.from_arrays(
            pa.array(np.zeros(size, np.int32), mask=module < 0), ["Linear"]
        ),
        "stack_id": pa.array((module + 1).astype(np.int32), mask=module < 0),
        "flags": pa.array(np.zeros(size, np.int8)),
    }
    stack = {
        "stack_id": list(range(1, LAYERS + 1)),
        "frame": [0] * LAYERS,
        "function": ["forward"] * LAYERS,
        "file": ["/app/model.py"] * LAYERS,
        "line": list(range(10, 10 + LAYERS)),
        "module": modules,
        "module_class": ["Linear"] * LAYERS,
    }
    with CaptureWriter(path, job="bench") as writer:
        writer.set_rank(RankManifest(rank=0, host="here", mode="full", events=size))
        table = pa.table(columns)
        for at in range(0, size, 250_000):
            writer.write("events", table.slice(at, 250_000), rank=0)
        target = schema.arrow_schema(schema.STACKS)
        arrays = [pa.array(stack[f.name]).cast(f.type) for f in target]
        writer.write("stacks", pa.Table.from_arrays(arrays, schema=target), rank=0)
    return size


def main() -> None:
    events = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "capture"
        start = time.perf_counter()
        size = write_capture(path, events)
        written = time.perf_counter() - start
        done = subprocess.run(
            [sys.executable, "-c", MEASURE, str(path)],
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
        )
    result = json.loads(done.stdout)
    best = min(result["s"])
    result |= {"rows": size, "write_s": written, "events_per_s": size / best}
    sys.stdout.write(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
