"""The timeline draws the right steps, and counts what it merges or leaves out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from gputap.dashboards import timeline
from gputap.profiler import schema
from gputap.profiler.analysis.model import Phases, Step
from tests.sample_report import rank, sample_report
from tests.synthetic import capture as synthetic_capture
from tests.synthetic import event, events_table, table_of

SECOND = 1_000_000_000


class FakeTables:
    """A capture of one rank that was never written."""

    def __init__(self, events: pa.Table, stacks: pa.Table | None = None) -> None:
        self._tables = {"events": events}
        if stacks is not None:
            self._tables["stacks"] = stacks

    def table(
        self,
        name: str,
        columns: Sequence[str] | None = None,
        rank: int | None = None,
        *,
        last_rows: int | None = None,
    ) -> pa.Table:
        declared = next(t for t in schema.TABLES if t.name == name)
        found = self._tables.get(name, table_of(declared, []))
        return found.select(list(columns)) if columns else found


def report_of(*steps: tuple[int, int]):
    """A report of one rank whose recorded steps are (start, length)."""
    made = tuple(
        Step(i, start, length, True, True, "optimizer", 1, Phases(0, 0, 0, 0, length), 0, 0, 0, 1)
        for i, (start, length) in enumerate(steps)
    )
    return sample_report(ranks=(replace(rank(0), steps=made),))


def test_median_and_slowest_recorded_step_are_drawn() -> None:
    chosen = timeline.choose(report_of((0, 30), (30, 90), (120, 40), (160, 50), (210, 20)))
    assert [(w.step, w.why) for w in chosen] == [
        (2, "Median recorded step"),
        (1, "Slowest recorded step"),
    ]
    assert [w.step for w in timeline.choose(report_of((0, 30)))] == [0]


def test_every_event_of_the_step_is_a_bar_with_module_and_source(tmp_path: Path) -> None:
    capture = synthetic_capture(tmp_path / "c", steps=3, layers=2, slow_steps=(1,), ranks=1)
    table = capture.table("events", rank=0)
    begin = sorted(
        row["start_ns"] for row in table.to_pylist() if row["name"].startswith("enumerate")
    )
    steps = [(a, b - a) for a, b in zip(begin, [*begin[1:], begin[-1] + SECOND], strict=True)]
    (drawn,) = timeline.select(capture, report_of(steps[1]))
    inside = [r for r in table.to_pylist() if begin[1] <= r["start_ns"] < begin[2]]
    assert drawn.events == len(drawn.bars) == len(inside)
    assert (drawn.merged_events, drawn.hidden_events) == (0, 0)
    assert [(t.name, t.lanes) for t in drawn.tracks] == [("MainThread", 3)]
    linear = [bar for bar in drawn.bars if bar.name == "aten::linear"]
    assert [(b.module, b.module_class, b.source) for b in linear] == [
        ("layers.0", "Linear", "/app/train.py:10 train"),
        ("layers.1", "Linear", "/app/train.py:11 train"),
    ]
    by_start = {(r["name"], r["start_ns"] - begin[1]): r for r in inside}
    for bar in drawn.bars:
        row = by_start[bar.name, bar.start_ns]
        assert (bar.duration_ns, bar.lane, bar.kind) == (
            row["duration_ns"],
            row["depth"],
            row["kind"],
        )


def test_short_events_are_merged_and_counted() -> None:
    rng = np.random.default_rng(7)
    gaps, lengths = rng.integers(1, 60, 40_000), rng.integers(5, 400, 40_000)
    start = np.cumsum(gaps + lengths) - lengths
    n = len(start)
    columns = {
        "start_ns": start,
        "duration_ns": lengths,
        "tid": np.repeat(np.int32([7, 9]), n // 2),
        "depth": np.zeros(n, np.int16),
        "flags": np.zeros(n, np.int8),
    }
    blank = table_of(schema.EVENTS, [event(0, 0, "aten::add")] * n)
    for name, values in columns.items():
        at = blank.schema.get_field_index(name)
        blank = blank.set_column(at, blank.schema.field(name), pa.array(values))
    end = int(start[-1] + lengths[-1])
    (drawn,) = timeline.select(FakeTables(blank), report_of((0, end)), limit=500)
    assert drawn.events == n
    assert len(drawn.bars) <= 500
    assert sum(bar.events for bar in drawn.bars) == n
    assert drawn.merged_events == sum(b.events for b in drawn.bars if b.kind == timeline.MERGED)
    assert sum(b.kind != timeline.MERGED for b in drawn.bars) + drawn.merged_events == n
    kept = sorted(bar.duration_ns for bar in drawn.bars if bar.kind != timeline.MERGED)
    assert kept[-1] == lengths.max()
    for lane in (0, 1):
        bars = sorted((b.start_ns, b.duration_ns) for b in drawn.bars if b.lane == lane)
        assert all(a + d <= b for (a, d), (b, _) in pairwise(bars))


@pytest.mark.parametrize("limit", [3, 10, 64])
def test_any_limit_is_kept(limit: int) -> None:
    n = 1000
    start = np.arange(n, dtype=np.int64) * 1_000_000
    lane = np.repeat(np.arange(2, dtype=np.int64), n // 2)
    heads, tails = timeline.merge(lane, start, start + 1, limit=limit)
    assert len(heads) <= limit
    assert int((tails - heads + 1).sum()) == n
    assert (lane[heads] == lane[tails]).all()


def test_threads_beyond_the_most_busy_are_counted() -> None:
    rows = [event(0, 100 - t, "aten::add", tid=50 + t) for t in range(timeline.THREADS + 3)]
    rows.append(event(0, 10, "aten::deep", tid=50, depth=timeline.DEPTHS))
    (drawn,) = timeline.select(FakeTables(events_table(rows)), report_of((0, 100)))
    assert len(drawn.tracks) == timeline.THREADS
    assert drawn.hidden_events == 4
    assert drawn.tracks[0].name == "thread 50"


def test_events_in_flight_get_rows_of_their_own() -> None:
    rows = [event(0, 50, "aten::add"), event(60, 30, "aten::mul")]
    for start in (10, 20, 70):
        row = event(start, 40, "gloo:all_reduce", "collective")
        rows.append({**row, "flags": int(schema.EventFlag.ASYNC_END)})
    (drawn,) = timeline.select(FakeTables(events_table(rows)), report_of((0, 200)))
    assert [(t.name, t.first_lane, t.lanes) for t in drawn.tracks] == [
        ("thread 10000", 0, 1),
        ("thread 10000 (in flight)", 1, 2),
    ]
    lanes = {bar.start_ns: bar.lane for bar in drawn.bars if bar.kind == "collective"}
    assert lanes == {10: 1, 20: 2, 70: 1}


def test_without_recorded_steps_a_slice_is_drawn() -> None:
    rows = [event(SECOND * i // 100, 1000, f"aten::op{i}") for i in range(50)]
    bare = sample_report(ranks=(replace(rank(0), steps=()),))
    (drawn,) = timeline.select(FakeTables(events_table(rows)), bare)
    assert drawn.step is None
    assert drawn.why == "No whole step was recorded: the first 100 ms of events"
    assert drawn.events == 10
    assert timeline.select(FakeTables(table_of(schema.EVENTS, [])), bare) == ()


def test_hostile_names_are_one_clean_line() -> None:
    rows = [event(0, 10, "a\x1b[2J\nb", module="m\u202e", module_class="C\x07")]
    (drawn,) = timeline.select(FakeTables(events_table(rows)), report_of((0, 10)))
    assert (drawn.bars[0].name, drawn.bars[0].module) == ("a�[2J�b", "m�")
    assert drawn.bars[0].module_class == "C�"
