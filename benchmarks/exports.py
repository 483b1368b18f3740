"""A capture of about a million events to OTLP messages and to a Perfetto file, in one run.

Prints one JSON line each. Rates are events (OTLP: read, nested and chosen from; Perfetto: written)
per second of CPU time, reading Parquet included; memory is the peak of this process.
"""

from __future__ import annotations

import json
import platform
import resource
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa

from gputap.exporters.otlp import encode_otlp
from gputap.exporters.perfetto import export_perfetto
from gputap.profiler import schema
from gputap.profiler.store import Capture, CaptureWriter, RankManifest

START_NS = 1_700_000_000_000_000_000
OPS = 2_000
"""Operators of a step: each holds three more, one inside another."""


def words(codes: np.ndarray, names: list[str]) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), pa.array(names))


def events(steps: int) -> pa.Table:
    count = steps * OPS * 4
    index = np.arange(count)
    op, depth = index // 4, index % 4
    module = op % OPS // 10
    columns = {
        "start_ns": START_NS + op * 10_000 + depth * 100,
        "duration_ns": 9_000 - depth * 1_000,
        "tid": np.full(count, 4242),
        "depth": depth,
        "kind": words(np.zeros(count), ["operator"]),
        "name": words((op % 40) * 4 + depth, [f"aten::op_{i}" for i in range(160)]),
        "seq": op,
        "module": words(module, [f"layers.{i // 4}.part{i % 4}" for i in range(OPS // 10)]),
        "module_class": words(module % 4, ["Linear", "Norm", "Attention", "Dropout"]),
        "flags": np.zeros(count),
    }
    target = schema.arrow_schema(schema.EVENTS)
    arrays = [
        pa.array(columns[f.name], f.type)
        if isinstance(columns.get(f.name), np.ndarray)
        else columns.get(f.name, pa.nulls(count, f.type))
        for f in target
    ]
    return pa.Table.from_arrays(
        [a.cast(f.type) for a, f in zip(arrays, target, strict=True)], schema=target
    )


def steps_table(steps: int) -> pa.Table:
    length = OPS * 10_000
    rows = [
        {
            "step": i, "start_ns": START_NS + i * length, "duration_ns": length, "tid": 4242,
            "boundary": "optimizer", "recorded": True, "whole": True, "micro_steps": 1,
            "data_wait_ns": 0, "forward_ns": length, "backward_ns": 0, "optimizer_ns": 0,
            "other_ns": 0, "gap_ns": 0, "gc_ns": 0, "collective_ns": 0, "events": OPS * 4,
        }
        for i in range(steps)
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=schema.arrow_schema(schema.STEPS))


def make(path: Path, steps: int) -> Capture:
    with CaptureWriter(path, job="benchmark") as writer:
        writer.set_rank(RankManifest(rank=0, host="host", pid=4242))
        writer.write("events", events(steps), rank=0)
        writer.write("steps", steps_table(steps), rank=0)
    return Capture.open(path)


def report(name: str, count: int, seconds: float, size: int) -> None:
    figures = {
        "benchmark": name,
        "events": count,
        "events_per_s": round(count / seconds),
        "seconds": round(seconds, 2),
        "bytes_per_event": round(size / count, 1),
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "pyarrow": version("pyarrow"),
    }
    print(json.dumps(figures), flush=True)


def main() -> None:
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 125
    with tempfile.TemporaryDirectory() as folder:
        capture = make(Path(folder) / "capture", steps)
        count = capture.rows("events")
        before = time.process_time()
        size = sum(len(message) for message in encode_otlp(capture))
        report("export_otlp", count, time.process_time() - before, size)
        before = time.process_time()
        result = export_perfetto(capture, Path(folder) / "trace.pftrace")
        report("export_perfetto", count, time.process_time() - before, result.bytes)


if __name__ == "__main__":
    main()
