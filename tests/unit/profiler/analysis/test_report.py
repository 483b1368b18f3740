"""The report as a whole: exact on a synthetic capture, and its JSON form."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gputap.profiler import schema
from gputap.profiler.analysis.model import REPORT_VERSION, to_json
from gputap.profiler.analysis.report import analyse, derived_tables, step_rows
from gputap.profiler.store import Capture, CaptureWriter
from tests.synthetic import build


def test_steps_are_the_planned_ones_to_the_nanosecond(tmp_path: Path) -> None:
    truth = build(tmp_path / "c", steps=12, ranks=2, gc_step=5)
    report = analyse(Capture.open(truth.path))
    for rank in report.ranks:
        planned = truth.steps[rank.rank]
        assert [(s.start_ns, s.dur_ns) for s in rank.steps] == [
            (p.start_ns, p.dur_ns) for p in planned
        ]
        for step, p in zip(rank.steps, planned, strict=True):
            assert step.whole
            assert step.recorded
            assert step.phases.data_wait_ns == p.data_wait_ns
            assert step.phases.forward_ns == p.forward_ns
            assert step.phases.backward_ns == p.backward_ns
            assert step.phases.optimizer_ns == p.optimizer_ns + p.zero_grad_ns
            assert step.gc_ns == p.gc_ns
            assert step.collective_ns == p.collective_ns


def test_sums_over_steps_are_those_of_the_rank(tmp_path: Path) -> None:
    report = analyse(Capture.open(build(tmp_path / "c", steps=9).path))
    (rank,) = report.ranks
    assert rank.phases is not None
    assert rank.phases.backward_ns == sum(s.phases.backward_ns for s in rank.steps)
    assert rank.steps_found == rank.steps_recorded == 9
    assert rank.overhead.recorded_share == 1.0
    assert rank.overhead.slowdown_recorded is None


@pytest.mark.parametrize("parts", [None, 2])
def test_derived_tables_have_the_schema_and_do_not_change_the_report(
    tmp_path: Path, parts: int | None
) -> None:
    truth = build(tmp_path / "c", steps=6, ranks=2, part_steps=parts)
    capture = Capture.open(truth.path)
    before = to_json(analyse(capture))
    for rank in capture.ranks:
        tables = derived_tables(capture, rank)
        assert tables["steps"].schema.equals(schema.arrow_schema(schema.STEPS))
        assert tables["collectives"].schema.equals(schema.arrow_schema(schema.COLLECTIVES))
        assert tables["steps"].num_rows == tables["collectives"].num_rows == 6
    assert to_json(analyse(Capture.open(truth.path))) == before
    assert step_rows(capture, capture.ranks[0]).num_rows == 6


def test_json_keeps_its_promise(tmp_path: Path) -> None:
    report = analyse(Capture.open(build(tmp_path / "c", steps=30, data_wait_ns=2_000_000).path))
    data = json.loads(json.dumps(to_json(report)))
    top = "schema level ranks kernels operators modules collectives findings abstained"
    assert set(top.split()) <= set(data)
    assert data["schema"] == REPORT_VERSION
    (rank,) = data["ranks"]
    assert {"rank", "window_ns", "breakdown", "steps"} <= set(rank)
    assert {"step", "start_ns", "dur_ns", "phases", "gap_ns"} <= set(rank["steps"][0])
    assert {"name", "count", "total_ns", "mean_ns", "self_ns"} <= set(data["operators"][0])
    keys = {"rule", "severity", "claim", "evidence", "ceiling_ns", "advice"}
    assert all(keys <= set(f) for f in data["findings"])
    assert all(set(a) == {"rule", "reason"} for a in data["abstained"])
    assert data["findings"][0]["rule"] == "input_bound"


def test_a_capture_with_no_rows_gives_a_report(tmp_path: Path) -> None:
    with CaptureWriter(tmp_path / "c", job="none"):
        pass
    report = analyse(Capture.open(tmp_path / "c"))
    assert (report.ranks, report.findings, report.operators) == ((), (), ())
