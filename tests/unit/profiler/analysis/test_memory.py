"""Which reading of the allocator is which step's."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from gputap.profiler import schema
from gputap.profiler.analysis.memory import memory_readings, memory_totals, step_memory
from gputap.profiler.analysis.steps import Cuts
from gputap.profiler.columns import table
from gputap.profiler.memory_samples import ALLOCATED, METRICS, RETRIES

MS = 1_000_000


def steps(*ends_ms: int) -> Cuts:
    """Steps one after the other, from 0."""
    end = np.array(ends_ms, np.int64) * MS
    start = np.concatenate([[0], end])[:-1].astype(np.int64)
    all_ = np.ones(len(end), np.bool_)
    return Cuts(start, end, all_, all_, 1, "optimizer")


def samples(*readings: tuple[float, str, int, int]) -> pa.Table:
    """Readings at (ms, device, allocated, retries)."""
    rows = [
        (round(at * MS), metric, float({ALLOCATED: held, RETRIES: retries}.get(metric, 0)), dev)
        for at, dev, held, retries in readings
        for metric, _ in METRICS
    ]
    names = ("time_ns", "metric", "value", "hw_id")
    columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    return table(schema.SAMPLES, columns)


def values(cuts: Cuts, read: pa.Table, column: str) -> list[int | None]:
    got, none = step_memory(cuts, memory_readings(read))[column]
    return [None if missing else v for v, missing in zip(got.tolist(), none.tolist(), strict=True)]


def test_the_first_reading_soon_after_a_step_is_that_steps() -> None:
    cuts = steps(100, 200, 300, 400, 500)
    read = samples(
        (50, "cuda:0", 9, 0),  # before any end
        (101, "cuda:0", 1, 0),
        (105, "cuda:0", 8, 0),  # the second after the same end
        (215, "cuda:0", 7, 0),  # later than a tenth of a step: in mid-step
        (300, "cuda:0", 3, 0),  # at the very end
        (509, "cuda:0", 5, 0),  # after the last
    )
    assert values(cuts, read, "memory_allocated") == [1, None, 3, None, 5]
    (memory,) = memory_totals(cuts, memory_readings(read))
    assert memory.step_ends == 3
    assert (memory.allocated, memory.allocated_least, memory.allocated_most) == (5, 1, 5)


def test_counts_are_since_the_reading_before_wherever_that_was() -> None:
    cuts = steps(100, 200, 300)
    read = samples(
        (50, "cuda:0", 0, 4), (101, "cuda:0", 0, 6), (250, "cuda:0", 0, 7), (301, "cuda:0", 0, 7)
    )
    assert values(cuts, read, "alloc_retries") == [2, None, 0]
    (memory,) = memory_totals(cuts, memory_readings(read))
    assert memory.retries == 3


def test_a_counter_that_the_job_set_back_counts_nothing_below_zero() -> None:
    cuts = steps(100, 200, 300)
    read = samples((101, "cuda:0", 0, 6), (201, "cuda:0", 0, 1), (301, "cuda:0", 0, 3))
    assert values(cuts, read, "alloc_retries") == [0, 0, 2]
    (memory,) = memory_totals(cuts, memory_readings(read))
    assert memory.retries == 2


def test_devices_of_a_process_are_added_up_by_step_and_told_apart_in_total() -> None:
    cuts = steps(100, 200)
    read = samples(
        (101, "cuda:0", 1, 0), (101, "cuda:1", 10, 0), (201, "cuda:1", 20, 0), (201, "cuda:0", 2, 0)
    )
    assert values(cuts, read, "memory_allocated") == [11, 22]
    assert [m.device for m in memory_totals(cuts, memory_readings(read))] == ["cuda:0", "cuda:1"]


def test_without_steps_all_readings_count() -> None:
    cuts = steps()
    read = samples((50, "cuda:0", 9, 0), (101, "cuda:0", 1, 0))
    (memory,) = memory_totals(cuts, memory_readings(read))
    assert (memory.step_ends, memory.allocated_least, memory.allocated_most) == (0, 1, 9)
    assert values(cuts, read, "memory_allocated") == []


def test_only_whole_readings_count() -> None:
    read = samples((101, "cuda:0", 1, 0), (201, "cuda:0", 2, 0))
    torn = read.slice(0, read.num_rows - 1)
    (one,) = memory_readings(torn)
    assert one.time.tolist() == [101 * MS]
    other = table(
        schema.SAMPLES,
        {"time_ns": [1], "metric": ["hw.gpu.power"], "value": [300.0], "hw_id": ["GPU-0"]},
    )
    assert memory_readings(other) == ()
