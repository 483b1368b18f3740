from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gputap.profiler import ingest as ingest_module
from gputap.profiler import schema
from gputap.profiler.agent_memory import AgentMemory
from gputap.profiler.convert import COLLECTIVE_PREFIXES
from gputap.profiler.ingest import Ingest
from gputap.profiler.schema import EventFlag, EventKind
from gputap.profiler.store import Capture, CaptureWriter, RankManifest
from tests.fake_agent import FakeAgent

MONO = 5_000_000
UNIX = 1_700_000_000_000_000_000
"""Unix time at tick 0; one ns is two ticks."""


class Bench:
    """A fake agent, an ingest that reads it, and what came out."""

    def __init__(self, **options: Any) -> None:
        self.agent = FakeAgent(4, 4096)
        for i in range(4):
            self.agent.clock_sample(2_000_000 * i, MONO + 1_000_000 * i, UNIX + 1_000_000 * i)
        self.memory = AgentMemory(self.agent.path)
        self.out: list[tuple[str, pa.Table]] = []
        self.ingest = Ingest(self.memory, lambda *part: self.out.append(part), **options)

    def emit(self, ring: int, start: int, end: int, name: str | int, **fields: Any) -> None:
        assert self.agent.emit(ring, start, end, name, **fields)

    def events(self) -> list[dict[str, Any]]:
        self.ingest.finish()
        tables = [table for name, table in self.out if name == "events"]
        for table in tables:
            table.validate(full=True)
            assert table.schema.equals(schema.arrow_schema(schema.EVENTS))
        return [row for table in tables for row in table.to_pylist()]

    def column(self, name: str) -> list[Any]:
        return [row[name] for row in self.events()]

    def threads(self, **options: Any) -> dict[int, dict[str, Any]]:
        self.ingest.poll()
        return {row["tid"]: row for row in self.ingest.threads(**options).to_pylist()}


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_one_event_becomes_one_row(bench: Bench) -> None:
    stack = bench.agent.stack([bench.agent.code("f", "/f.py")])
    bench.ingest._modules_of = lambda ids: [(f"layer{i}", "Linear") for i in ids]
    bench.emit(0, 200, 300, "aten::add", seq=7, depth=2, stack_id=stack, shapes="[[2]]", flags=4)
    assert bench.events() == [
        {
            "start_ns": UNIX + 100,
            "duration_ns": 50,
            "tid": 1000,
            "depth": 2,
            "kind": "operator",
            "name": "aten::add",
            "seq": 7,
            "fwd_tid": None,
            "module": "layer1",
            "module_class": "Linear",
            "stack_id": 1,
            "shapes": "[[2]]",
            "flags": EventFlag.NAME_LOST,
        }
    ]


def test_what_is_not_there_is_null(bench: Bench) -> None:
    bench.emit(0, 2, 4, 0)
    (row,) = bench.events()
    absent = ("name", "seq", "fwd_tid", "module", "module_class", "stack_id", "shapes")
    assert [row[name] for name in absent] == [None] * 7


def test_rows_are_sorted_by_thread_then_start(bench: Bench) -> None:
    bench.emit(1, 30, 40, "d")
    bench.emit(0, 20, 30, "b", depth=1)
    bench.emit(0, 10, 40, "a")
    bench.emit(0, 50, 60, "c")
    bench.emit(1, 50, 60, "e")
    assert "".join(bench.column("name")) == "abcde"


def test_of_two_with_the_same_start_the_parent_comes_first(bench: Bench) -> None:
    bench.emit(0, 10, 20, "c", depth=2)
    bench.emit(0, 10, 30, "b", depth=1)
    bench.emit(0, 10, 30, "a", depth=0)
    assert "".join(bench.column("name")) == "abc"


def test_every_kind_by_its_name(bench: Bench) -> None:
    apart = (EventKind.CUDA_API, EventKind.NCCL_API)  # in tables of their own
    kinds = [kind for kind in EventKind if kind not in apart]
    for i, kind in enumerate(kinds):
        bench.emit(0, 10 * i, 10 * i + 1, "x", kind=kind)
    assert bench.column("kind") == [kind.name.lower() for kind in kinds]


def test_nccl_calls_have_a_table_of_their_own(bench: Bench) -> None:
    bench.emit(0, 200, 300, "my::exchange")
    bench.emit(0, 210, 290, "ncclGroupEnd", kind=EventKind.NCCL_API)
    bench.emit(0, 215, 216, "cudaMalloc", kind=EventKind.CUDA_API, seq=7)
    assert [row["name"] for row in bench.events()] == ["my::exchange"]
    tables = dict(bench.out)
    assert [row["name"] for row in tables["nccl_calls"].to_pylist()] == ["ncclGroupEnd"]
    assert [row["name"] for row in tables["cuda_api"].to_pylist()] == ["cudaMalloc"]
    assert tables["nccl_calls"].schema.equals(schema.arrow_schema(schema.NCCL_CALLS))


def test_cuda_calls_have_a_table_of_their_own(bench: Bench) -> None:
    kind = EventKind.CUDA_API
    bench.emit(0, 200, 300, "aten::mm")
    bench.emit(0, 210, 290, "cudaLaunchKernel_v7000", kind=kind, seq=7)
    bench.emit(0, 220, 280, "cuLaunchKernel", kind=kind, seq=7)
    bench.emit(0, 300, 320, "cuMemAlloc_v2", kind=kind, seq=9)
    bench.emit(1, 100, 120, "cudaMyOwn_ptsz", kind=kind, seq=8)
    assert [row["name"] for row in bench.events()] == ["aten::mm"]
    (calls,) = [table for name, table in bench.out if name == "cuda_api"]
    assert calls.schema.equals(schema.arrow_schema(schema.CUDA_API))
    assert [tuple(row.values()) for row in calls.to_pylist()] == [
        (UNIX + 105, 40, 1000, "cudaLaunchKernel", 7, "launch", None),
        (UNIX + 150, 10, 1000, "cuMemAlloc", 9, "memory", None),
        (UNIX + 50, 10, 1001, "cudaMyOwn", 8, None, None),
    ]


def test_an_unknown_kind_is_null(bench: Bench) -> None:
    record = bench.agent.record(1, 2, "x")
    record["kind"] = 200
    bench.agent.emit_many(0, record)
    assert bench.column("kind") == [None]


@pytest.mark.parametrize("prefix", COLLECTIVE_PREFIXES)
def test_collectives_are_known_by_name_whatever_their_scope(bench: Bench, prefix: str) -> None:
    bench.emit(0, 10, 20, prefix + "all_reduce", kind=EventKind.USER_SCOPE)
    bench.emit(0, 30, 40, prefix + "all_reduce", kind=EventKind.OPERATOR)
    bench.emit(0, 50, 60, "my " + prefix, kind=EventKind.USER_SCOPE)
    bench.emit(0, 70, 80, 0, kind=EventKind.OPERATOR)
    assert bench.column("kind") == ["collective", "collective", "user_scope", "operator"]


def test_strings_interned_twice_are_one_name(bench: Bench) -> None:
    first = bench.agent.intern("aten::mm")
    bench.agent._ids.clear()
    second = bench.agent.intern("aten::mm")
    assert first != second
    bench.emit(0, 1, 2, first)
    bench.emit(0, 3, 4, second)
    bench.ingest.finish()
    column = bench.out[0][1].column("name").combine_chunks()
    assert column.to_pylist() == ["aten::mm"] * 2
    assert len(column.dictionary) == 1


def test_a_part_holds_only_the_names_that_it_uses(bench: Bench) -> None:
    for i in range(100):
        bench.agent.intern(f"unused{i}")
    bench.emit(0, 1, 2, "used")
    bench.ingest.finish()
    assert bench.out[0][1].column("name").chunk(0).dictionary.to_pylist() == ["used"]


def test_a_string_still_being_written_does_not_hide_those_behind(bench: Bench) -> None:
    slow, quick = bench.agent.intern("slow"), bench.agent.intern("quick")
    bench.agent._strings[slow]["ready"] = 0
    bench.emit(0, 1, 2, quick)
    bench.ingest.poll()
    bench.ingest.flush()
    bench.agent._strings[slow]["ready"] = 1
    bench.emit(0, 3, 4, slow)
    assert bench.column("name") == ["quick", "slow"]


def test_ids_that_were_never_given_out_are_null(bench: Bench) -> None:
    record = bench.agent.record(1, 2, 4_000_000_000, stack_id=4_000_000_000, fwd_tid=70_000)
    record["shape_id"] = 4_000_000_000
    bench.agent.emit_many(0, record)
    (row,) = bench.events()
    assert [row[c] for c in ("name", "stack_id", "fwd_tid", "shapes")] == [None] * 4


def test_an_end_before_its_start_has_no_length(bench: Bench) -> None:
    bench.emit(0, 100, 50, "x")
    assert bench.column("duration_ns") == [0]


def test_thread_ids_of_another_pid_namespace(bench: Bench) -> None:
    bench = Bench(host_tids={1000: 51000})
    bench.agent.use_ring(0, tid=1000, torch_tid=1)
    bench.agent.use_ring(1, tid=1001, torch_tid=2)
    bench.emit(0, 1, 2, "a")
    bench.emit(1, 1, 2, "b", kind=EventKind.AUTOGRAD, fwd_tid=1)
    bench.emit(1, 3, 4, "c", fwd_tid=9)
    assert [(r["name"], r["tid"], r["fwd_tid"]) for r in bench.events()] == [
        ("b", 1001, 51000),
        ("c", 1001, None),
        ("a", 51000, None),
    ]


def test_an_event_belongs_to_the_thread_that_started_it(bench: Bench) -> None:
    bench.emit(0, 1, 2, "a")
    bench.emit(0, 3, 9, "gloo:all_reduce", tid=1003, flags=EventFlag.ASYNC_END)
    bench.emit(0, 5, 6, "b")
    assert [(r["name"], r["tid"]) for r in bench.events()] == [
        ("a", 1000),
        ("b", 1000),
        ("gloo:all_reduce", 1003),
    ]


def test_modules_are_asked_once_per_stack_and_part(bench: Bench) -> None:
    asked: list[list[int]] = []

    def modules_of(ids: Any) -> list[tuple[str | None, str | None]]:
        asked.append(list(ids))
        return [("", "Model"), (None, None), ("fc", "Linear")]

    bench.ingest._modules_of = modules_of
    code = bench.agent.code("f", "/f.py")
    stacks = [bench.agent.stack([code, code][:n]) for n in (1, 2, 1)]
    for i, stack in enumerate([*stacks, *stacks]):
        bench.emit(0, i, i + 1, "x", stack_id=stack)
    rows = bench.events()
    assert asked == [[1, 2, 3]]
    assert [(r["module"], r["module_class"]) for r in rows[:3]] == [
        ("", "Model"),
        (None, None),
        ("fc", "Linear"),
    ]


def test_a_part_is_written_when_it_is_large() -> None:
    bench = Bench(part_rows=10)
    for i in range(25):
        bench.emit(0, i, i + 1, "x")
        bench.ingest.poll()
    assert [table.num_rows for _, table in bench.out] == [10, 10]
    assert bench.ingest.buffered == 5
    assert bench.ingest.events == 25


def test_a_part_is_written_when_it_is_old(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(ingest_module.time, "monotonic", lambda: now[0])
    bench = Bench(part_seconds=30)
    bench.emit(0, 1, 2, "x")
    bench.ingest.poll()
    now[0] = 129.0
    bench.ingest.poll()
    assert bench.out == []
    now[0] = 130.0
    bench.ingest.poll()
    assert [table.num_rows for _, table in bench.out] == [1]
    now[0] = 500.0
    bench.ingest.poll()
    assert len(bench.out) == 1


def test_nothing_seen_writes_no_events_and_the_threads(bench: Bench) -> None:
    bench.ingest.finish()
    assert [(name, table.num_rows) for name, table in bench.out] == [("threads", 0)]


def test_threads_and_what_their_rings_lost(bench: Bench) -> None:
    bench.agent.use_ring(0, tid=1000, torch_tid=1, comm="python")
    bench.agent.use_ring(1, tid=1001, comm="pt_autograd_0")
    for i in range(3):
        bench.emit(1, i, i + 1, "x")
    bench.agent.ring(1)["dropped"] = 5
    bench.emit(0, 1, 2, "x")
    assert bench.threads(main_tid=1000, thread_names={1000: "MainThread"}) == {
        1000: {
            "tid": 1000,
            "name": "MainThread",
            "torch_tid": 1,
            "is_main": True,
            "events": 1,
            "dropped": 0,
        },
        1001: {
            "tid": 1001,
            "name": "pt_autograd_0",
            "torch_tid": None,
            "is_main": False,
            "events": 3,
            "dropped": 5,
        },
    }


def test_a_ring_used_by_a_second_thread_counts_for_each(bench: Bench) -> None:
    bench.agent.use_ring(2, tid=7, comm="first")
    bench.emit(2, 1, 2, "x")
    bench.agent.ring(2)["dropped"] = 2
    assert {t: r["dropped"] for t, r in bench.threads().items()} == {7: 2}
    bench.agent.use_ring(2, tid=8, comm="second")
    bench.emit(2, 3, 4, "x")
    bench.agent.ring(2)["dropped"] = 5
    threads = bench.threads()
    assert {t: (r["name"], r["events"], r["dropped"]) for t, r in threads.items()} == {
        7: ("first", 1, 2),
        8: ("second", 1, 3),
    }


def test_a_full_ring_loses_and_counts() -> None:
    bench = Bench()
    for i in range(4100):
        bench.agent.emit(0, i, i + 1, "x")
    assert bench.ingest.poll() == 4096
    assert bench.threads()[1000]["dropped"] == 4


def _random_records(agent: FakeAgent, seed: int, count: int) -> np.ndarray[Any, Any]:
    random = np.random.default_rng(seed)
    ids = np.array([0, *(agent.intern(f"name{i}") for i in range(20))])
    out = np.zeros(count, schema.dtype(schema.EVENT_RECORD))
    out["start_ticks"] = 2 * random.integers(0, 4_000_000, count)
    out["end_ticks"] = out["start_ticks"] + 2 * random.integers(0, 1000, count).astype(np.uint64)
    out["seq"] = random.integers(-1, 5, count)
    out["name_id"] = random.choice(ids, count)
    out["tid"] = random.integers(1000, 1003, count)
    out["depth"] = random.integers(0, 65536, count)
    out["kind"] = random.integers(1, 6, count)
    out["flags"] = random.integers(0, 8, count)
    return out


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 3000), st.integers(1, 1000))
def test_every_record_reaches_the_disk_unchanged(
    tmp_path_factory: pytest.TempPathFactory, seed: int, count: int, part_rows: int
) -> None:
    path: Path = tmp_path_factory.mktemp("round") / "c"
    bench = Bench(part_rows=part_rows)
    records = _random_records(bench.agent, seed, count)
    with CaptureWriter(path, job="j") as writer:
        writer.set_rank(RankManifest(rank=0, host="h"))
        bench.ingest._sink = lambda name, table: writer.write(name, table, rank=0)
        for at in range(0, count, 700):
            bench.agent.emit_many(0, records[at : at + 700])
            bench.ingest.poll()
        bench.ingest.finish()
    names = {bench.agent.intern(f"name{i}"): f"name{i}" for i in range(20)}
    expected = Counter(
        (
            UNIX + int(r["start_ticks"]) // 2,
            (int(r["end_ticks"]) - int(r["start_ticks"])) // 2,
            int(r["tid"]),
            min(int(r["depth"]), 32767),
            EventKind(int(r["kind"])).name.lower(),
            names.get(int(r["name_id"])),
            int(r["seq"]) if r["seq"] >= 0 else None,
            int(r["flags"]),
        )
        for r in records
    )
    columns = ["start_ns", "duration_ns", "tid", "depth", "kind", "name", "seq", "flags"]
    table = Capture.open(path).table("events", columns)
    assert Counter(zip(*(c.to_pylist() for c in table.columns), strict=True)) == expected
