"""Of a long capture the newest events are analysed, and the report says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from gputap.profiler.analysis import report
from tests import synthetic


def test_a_capture_of_the_usual_length_is_analysed_whole(tmp_path: Path) -> None:
    taken = synthetic.capture(tmp_path / "c", steps=40, part_steps=10)
    analysed = report.analyse(taken)
    assert analysed.ranks[0].steps_found == 40
    assert "whole_window" not in {gap.rule for gap in analysed.abstained}


def test_the_newest_parts_are_analysed_and_the_rest_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = synthetic.capture(tmp_path / "c", steps=40, part_steps=10)
    sizes = [file.rows for file in taken.files if file.table == "events"]
    assert len(sizes) == 4
    monkeypatch.setattr(report, "MOST_EVENTS", sizes[-1] + sizes[-2])
    analysed = report.analyse(taken)
    assert 18 <= analysed.ranks[0].steps_found <= 20
    assert analysed.ranks[0].window_ns < taken.ranks[0].window_ns
    gap = next(gap for gap in analysed.abstained if gap.rule == "whole_window")
    assert f"newest {sizes[-1] + sizes[-2]:,} of {sum(sizes):,} events" in gap.reason
    for step in analysed.ranks[0].steps:
        phases = step.phases
        parts = (phases.data_wait_ns, phases.forward_ns, phases.backward_ns)
        assert sum(parts) + phases.optimizer_ns + phases.other_ns == step.dur_ns
