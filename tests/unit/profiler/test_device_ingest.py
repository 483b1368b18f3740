"""From the device section to the tables: times, names, threads, and what is left out."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from gputap.profiler import schema
from gputap.profiler.agent_memory import AgentMemory
from gputap.profiler.cupti.abi import ActivityKind
from gputap.profiler.device_ingest import DeviceIngest
from gputap.profiler.device_memory import DeviceMemory
from gputap.profiler.ingest import Ingest
from tests.fake_agent import FakeAgent
from tests.unit.profiler.cupti.packing import record

V = (13, 0)
UNIX = 1_700_000_000_000_000_000
"""Unix time at tick 0; one ns is two ticks."""

CUPTI = 5_000_000_000
"""CUPTI's time at tick 0; its clock runs like ours."""


class Bench:
    """A fake agent whose clocks are known, and what came out of it."""

    def __init__(self, tids: dict[int, int] | None = None) -> None:
        self.agent = FakeAgent(2, 256)
        for i in range(5):
            self.agent.clock_sample(2_000_000 * i, 1_000_000 * i, UNIX + 1_000_000 * i)
            self.agent.device_clock_sample(2_000_000 * i, CUPTI + 1_000_000 * i)
        memory = AgentMemory(self.agent.path)
        self.out: list[tuple[str, pa.Table]] = []
        self.ingest = Ingest(memory, self.sink)
        self.device = DeviceIngest(
            DeviceMemory(memory),
            self.sink,
            strings=self.ingest.strings,
            clock=self.ingest.clock_now,
            host_tids=tids or {},
        )

    def sink(self, name: str, rows: pa.Table) -> None:
        assert rows.schema.equals(schema.arrow_schema(getattr(schema, name.upper())))
        self.out.append((name, rows))

    def kernel(self, start: int, end: int, name: str = "k", **fields: int) -> bytes:
        times = {"start": CUPTI + start if start else 0, "end": CUPTI + end}
        text = self.agent.intern(name)
        return record(ActivityKind.CONCURRENT_KERNEL, V, name=text, **times, **fields)

    def call(self, kind: ActivityKind, start: int, end: int, **fields: int) -> bytes:
        return record(kind, V, start=CUPTI + start, end=CUPTI + end, **fields)

    def rows(self, table: str) -> list[dict[str, Any]]:
        self.device.finish()
        return [row for name, rows in self.out if name == table for row in rows.to_pylist()]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_kernel_has_its_name_and_unix_time(bench: Bench) -> None:
    name = "_Z6vecAddPKfS0_Pfi"
    bench.agent.emit_device([bench.kernel(1000, 3500, name, correlationId=7, streamId=13)], 1300)
    (row,) = bench.rows("device")
    assert (row["start_ns"], row["duration_ns"]) == (UNIX + 1000, 2500)
    assert row["name"] == "vecAdd(float const*, float const*, float*, int)"
    assert (row["kind"], row["correlation_id"], row["stream_id"]) == ("kernel", 7, 13)
    assert bench.device.rows == 1


def test_the_clock_may_be_read_before_the_first_event_was_drained(bench: Bench) -> None:
    bench.agent.emit_device([bench.kernel(1000, 3500)], 1300)
    bench.device.poll()
    bench.device.flush()
    assert bench.out[0][1].column("start_ns").to_pylist() == [UNIX + 1000]


def test_what_ended_before_the_window_is_not_kept(bench: Bench) -> None:
    bench.device.window_start_ticks = 4000
    kernels = [(1000, 1999), (1000, 2000), (3000, 4000)]
    bench.agent.emit_device([bench.kernel(*times) for times in kernels], 1300)
    assert [row["start_ns"] - UNIX for row in bench.rows("device")] == [1000, 3000]


def test_calls_have_our_thread_ids_and_no_nested_ones() -> None:
    bench = Bench({17: 4017})
    bench.agent.emit_device(
        [
            bench.call(ActivityKind.DRIVER, 110, 190, cbid=307, threadId=17, correlationId=5),
            bench.call(ActivityKind.RUNTIME, 100, 200, cbid=211, threadId=17, correlationId=5),
            bench.call(ActivityKind.DRIVER, 300, 400, cbid=307, threadId=18, correlationId=6),
        ],
        1300,
    )
    found = [(r["name"], r["tid"], r["correlation_id"]) for r in bench.rows("cuda_api")]
    assert found == [("cudaLaunchKernel", 4017, 5), ("cuLaunchKernel", 18, 6)]


def test_a_nested_call_that_comes_before_the_outer_one_in_another_part(bench: Bench) -> None:
    inner = bench.call(ActivityKind.DRIVER, 110, 190, cbid=307, threadId=17, correlationId=5)
    alone = bench.call(ActivityKind.DRIVER, 300, 310, cbid=307, threadId=17, correlationId=6)
    outer = bench.call(ActivityKind.RUNTIME, 100, 200, cbid=211, threadId=17, correlationId=5)
    for records in ([inner, alone], [outer]):
        bench.agent.emit_device(records, 1300)
        bench.device.poll()
        bench.device.flush()
    found = [(r["name"], r["correlation_id"]) for r in bench.rows("cuda_api")]
    assert sorted(found) == [("cuLaunchKernel", 6), ("cudaLaunchKernel", 5)]


def test_what_makes_no_sense_is_counted_not_kept(bench: Bench) -> None:
    bench.agent.emit_device([bench.kernel(0, 10), bench.kernel(20, 10), bench.kernel(5, 9)], 1300)
    bench.agent.emit_device([b"\xfe" * 64], 1300)
    assert len(bench.rows("device")) == 1
    assert bench.device.lost == {"unknown_kind": 1, "nonsense": 1, "zero_times": 1}


def test_devices_are_named(bench: Bench) -> None:
    name = bench.agent.intern("NVIDIA H200")
    bench.agent.emit_device([record(ActivityKind.DEVICE, V, id=1, name=name)], 1300)
    bench.device.finish()
    assert bench.device.devices == {1: "NVIDIA H200"}


def test_a_step_of_the_clock_is_seen_and_times_follow_it(bench: Bench) -> None:
    for i in range(5, 10):
        bench.agent.clock_sample(2_000_000 * i, 1_000_000 * i, UNIX + 1_000_000 * i)
        bench.agent.device_clock_sample(2_000_000 * i, CUPTI + 3_000_000_000 + 1_000_000 * i)
    later = 3_000_000_000 + 7_000_000
    bench.agent.emit_device([bench.kernel(1000, 2000), bench.kernel(later, later + 500)], 1300)
    assert [row["start_ns"] - UNIX for row in bench.rows("device")] == [1000, 7_000_000]
    assert bench.device.clock_steps == 1


def test_parts_are_written_before_there_is_too_much(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gputap.profiler.device_ingest.PART_BYTES", 1000)
    for i in range(1, 9):
        bench.agent.emit_device([bench.kernel(10 * i, 10 * i + 5)], 1300)
        bench.device.poll()
    parts = [rows.num_rows for name, rows in bench.out if name == "device"]
    assert parts == [5]
    assert len(bench.rows("device")) == 8
