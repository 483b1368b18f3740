"""Ring to Parquet: events per second of one core, bytes per event on disk, peak RSS.

    .venv/bin/python benchmarks/ingest.py [--events 4000000] [--trace FILE.json.gz] [--json]

A second process plays the target and fills real rings between the timed polls, so its work and
its memory are not counted. Events are shaped like training steps: about 2,500 per step on three
threads, 200 names, log-normal durations, nesting, modules, stacks, autograd numbers. With --trace
names, durations and nesting come from the cpu_op events of a torch.profiler file instead.

Time is CPU time of this process, all its threads, pinned to one CPU: what one core can do.
"""

from __future__ import annotations

import argparse
import gzip
import json
import multiprocessing
import multiprocessing.connection
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import numpy.typing as npt

from gputap.profiler import schema
from gputap.profiler.schema import EventKind
from tests.fake_agent import FakeAgent

RINGS = 3
CAPACITY = 131_072
TICKS_PER_NS = 2.7
STACKS = 900
FILL = 65_536
"""Records per ring and poll: a busy target polled ten times a second."""

BUDGETS = {"events_per_s": 3e6, "bytes_per_event": 8.0, "rss_mb": 150.0}


class Mix:
    """One step's events, repeated with fresh jitter for ever."""

    def __init__(self, agent: FakeAgent, trace: str | None) -> None:
        self.rng = np.random.default_rng(7)
        self.agent = agent
        shapes = _from_trace(trace) if trace else self._made_up()
        self.depth, self.kind, name, self.median_ns = shapes
        self.name_id = np.array([agent.intern(n) for n in name], np.uint32)
        frames = [agent.code(f"forward_{i}", f"/app/layer_{i}.py") for i in range(STACKS)]
        self.stacks = np.array([agent.stack([code]) for code in frames], np.uint32)
        self.at = np.full(RINGS, 10**12, np.int64)
        self.seq = 0

    def _made_up(self) -> tuple[npt.NDArray[Any], npt.NDArray[Any], list[str], npt.NDArray[Any]]:
        n = 2500
        depth = np.minimum(self.rng.geometric(0.45, n) - 1, 6).astype(np.uint16)
        depth[0] = 0
        depth = np.minimum(depth, np.concatenate([[0], depth[:-1] + 1])).astype(np.uint16)
        kind = np.where(self.rng.random(n) < 0.12, EventKind.AUTOGRAD, EventKind.OPERATOR)
        names = np.minimum(self.rng.zipf(1.4, n), 200)
        median = np.exp(self.rng.normal(8.5, 1.2, n)) / (1 + depth)
        return depth, kind.astype(np.uint8), [f"aten::operator_{i}" for i in names], median

    def records(self, ring: int, count: int) -> npt.NDArray[np.void]:
        """The next `count` records of a ring, in the order in which they end."""
        n = len(self.depth)
        pick = np.arange(count) % n
        depth = self.depth[pick].astype(np.int64)
        own = self.median_ns[pick] * self.rng.lognormal(0, 0.15, count)
        ticks = np.maximum(own * TICKS_PER_NS, 40).astype(np.int64)
        start = self.at[ring] + np.cumsum(ticks) - ticks
        total = np.concatenate([[0], np.cumsum(ticks)])
        self.at[ring] += total[-1] + int(20_000 * TICKS_PER_NS)
        end = self.at[ring] * 0 + start + _subtree(depth, total)
        out = np.zeros(count, schema.dtype(schema.EVENT_RECORD))
        out["start_ticks"], out["end_ticks"] = start, end
        has_seq = self.kind[pick] == EventKind.AUTOGRAD
        has_seq |= self.rng.random(n)[pick] < 0.5
        numbers = self.seq + np.cumsum(has_seq)
        out["seq"] = np.where(has_seq, numbers, -1)
        self.seq = int(numbers[-1])
        out["name_id"], out["depth"], out["kind"] = self.name_id[pick], depth, self.kind[pick]
        out["stack_id"] = self.stacks[pick * 7 // 19 % STACKS] * (depth < 3)
        out["tid"] = 1000 + ring
        out["fwd_tid"] = (out["kind"] == EventKind.AUTOGRAD) * 1
        return out[np.argsort(end, kind="stable")]


def _subtree(depth: npt.NDArray[Any], total: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Length of each event with everything nested in it, events being in order of start."""
    after = np.full(len(depth), len(depth))
    for level in range(int(depth.max()) + 1):
        closes = np.flatnonzero(depth <= level)
        here = np.flatnonzero(depth == level)
        nxt = np.searchsorted(closes, here, side="right")
        ends = np.append(closes, len(depth))
        after[here] = ends[nxt]
    length: npt.NDArray[Any] = total[after] - total[:-1]
    return length


def _from_trace(path: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any], list[str], Any]:
    with gzip.open(path) as file:
        events = json.load(file)["traceEvents"]
    ops = [e for e in events if e.get("ph") == "X" and e.get("cat") in ("cpu_op", "Operator")]
    threads = [str(e["tid"]) for e in ops]
    busiest = max(set(threads), key=threads.count)
    ops = [e for e in ops if str(e["tid"]) == busiest]
    ops.sort(key=lambda e: (float(e["ts"]), -float(e["dur"])))
    depth, stack = [], []
    for e in ops:
        while stack and stack[-1] <= float(e["ts"]):
            stack.pop()
        depth.append(len(stack))
        stack.append(float(e["ts"]) + float(e["dur"]))
    names = [e["name"] for e in ops]
    kind = [EventKind.AUTOGRAD if "Backward0" in n else EventKind.OPERATOR for n in names]
    own = np.array([float(e["dur"]) for e in ops]) * 1000 / (1 + np.array(depth))
    return np.array(depth, np.uint16), np.array(kind, np.uint8), names, own


def _play_target(agent: FakeAgent, pipe: Any, trace: str | None) -> None:
    """Fill the rings once for every message; the message is the number of records per ring."""
    mix = Mix(agent, trace)
    for ring in range(RINGS):
        agent.use_ring(ring, tid=1000 + ring, torch_tid=ring + 1, comm=f"thread{ring}")
    for i in range(20):
        ns = 10**8 * i
        agent.clock_sample(10**12 + int(ns * TICKS_PER_NS), 10**13 + ns, 17 * 10**17 + ns)
    pipe.send(0)
    while count := pipe.recv():
        for ring in range(RINGS):
            agent.emit_many(ring, mix.records(ring, count))
        now = int((mix.at.max() - 10**12) / TICKS_PER_NS)
        agent.clock_sample(int(mix.at.max()), 10**13 + now, 17 * 10**17 + now)
        pipe.send(0)


def run(events: int, trace: str | None, folder: str) -> dict[str, float]:
    agent = FakeAgent(RINGS, CAPACITY)
    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("fork")
    target = context.Process(target=_play_target, args=(agent, theirs, trace), daemon=True)
    target.start()
    ours.recv()
    try:
        return _timed(events, agent, ours, folder)
    finally:
        ours.send(0)
        target.join(10)


def _timed(
    events: int, agent: FakeAgent, pipe: multiprocessing.connection.Connection, folder: str
) -> dict[str, float]:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    import pyarrow as pa

    from gputap.profiler.agent_memory import AgentMemory
    from gputap.profiler.ingest import Ingest
    from gputap.profiler.store import CaptureWriter, RankManifest

    pa.set_cpu_count(1)
    before = _rss_mb("VmRSS")
    cpu = wall = 0.0
    with AgentMemory(agent.path) as memory, CaptureWriter(folder, job="bench") as writer:
        writer.set_rank(RankManifest(rank=0, host="bench"))
        modules = [(f"layers.{i % 48}.block", "Linear") for i in range(STACKS + 1)]
        ingest = Ingest(
            memory,
            lambda name, table: writer.write(name, table, rank=0),
            modules_of=lambda ids: [modules[i] for i in ids],
        )
        while ingest.events < events:
            pipe.send(FILL)
            pipe.recv()
            cpu_at, wall_at = time.process_time(), time.perf_counter()
            ingest.poll()
            cpu += time.process_time() - cpu_at
            wall += time.perf_counter() - wall_at
        cpu_at, wall_at = time.process_time(), time.perf_counter()
        ingest.finish()
        cpu += time.process_time() - cpu_at
        wall += time.perf_counter() - wall_at
        manifest = writer.manifest
    size = sum(part.bytes for part in manifest.parts)
    rows = manifest.rows("events")
    assert rows == ingest.events, (rows, ingest.events)
    return {
        "events": rows,
        "events_per_s": rows / cpu,
        "wall_events_per_s": rows / wall,
        "bytes_per_event": size / rows,
        "rss_mb": _rss_mb("VmHWM"),
        "rss_before_mb": before,
        "parts": len(manifest.parts),
    }


def _rss_mb(field: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    return 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--events", type=int, default=4_000_000)
    parser.add_argument("--trace", help="torch.profiler Chrome JSON, gzipped")
    parser.add_argument("--keep", help="write the capture here and keep it")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    folder = options.keep or tempfile.mkdtemp(prefix="gputap-bench-")
    try:
        result = run(options.events, options.trace, folder)
    finally:
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)
    if options.json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        budget = BUDGETS.get(name)
        print(f"{name:>20} {value:>14,.1f}" + (f"   budget {budget:,.0f}" if budget else ""))


if __name__ == "__main__":
    main()
