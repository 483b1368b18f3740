"""From a capture on disk to page and verdict, with the real analysis in between."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from gputap.dashboards import html_report, terminal, timeline
from gputap.profiler.analysis.report import analyse
from tests.synthetic import capture


def test_a_synthetic_job_is_drawn_as_it_was_built(tmp_path: Path) -> None:
    taken = capture(
        tmp_path / "c",
        steps=12,
        ranks=2,
        recorded_every=3,
        slow_steps=(6,),
        slow_data_wait_ns=10**7,
    )
    report = analyse(taken)
    drawn = timeline.select(taken, report)
    assert [(d.why, d.step) for d in drawn][1] == ("Slowest recorded step", 6)
    assert all(sum(bar.events for bar in d.bars) == d.events for d in drawn)
    assert [t.name for t in drawn[0].tracks] == ["MainThread", "pt_gloo_runner"]
    page = html_report.write(tmp_path / "report.html", report, drawn, notes=taken.notes)
    assert "12 steps on each of 2 ranks found" in page.read_text()
    console = Console(file=io.StringIO(), record=True, width=80)
    terminal.verdict(report, console, paths=[page])
    assert "aten::mm" in console.export_text()
