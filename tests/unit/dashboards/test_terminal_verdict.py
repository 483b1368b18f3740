"""The verdict on a terminal, character by character, and the progress line."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from gputap.dashboards import terminal, view
from tests.sample_report import FINDINGS, OPERATORS, rank, sample_report


def verdict(
    report: Any,
    *,
    width: int = 80,
    encoding: str = "utf-8",
    paths: tuple[str, ...] = ("/c/report.html", "/c"),
    **options: Any,
) -> str:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    console = Console(file=stream, width=width, **options)
    terminal.verdict(report, console, paths=paths)
    stream.flush()
    return raw.getvalue().decode(encoding)


PLAIN = """\
vit-b16 · pids 4242, 4243 · framework level · 40 steps on each of 2 ranks found,
15% recorded (bursts of whole steps) in 10.0 s
CPU-side times; no GPU kernel times were measured.
Why not more: no CUDA driver is mapped in the target.

Step 194 ms (mean of 12 recorded steps)
  █████████████████████████████████████████████▓▓▓▓▓▓▓▓▓▓▓▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒===··
  █ data wait 113 ms 58%  ▓ forward 28.0 ms 14%  ▒ backward 41.1 ms 21%
  = optimizer 7.54 ms 3.9%  · other 4.36 ms 2.2%
  Gaps: no operator on the step's thread for 119 ms (61%).
  rank 1     █████████████████████████████████▓▓▓▓▓▓▓▓▒▒▒▒▒▒▒▒▒▒▒▒==· 198 ms
  rank 0     ███████████████████████████████▓▓▓▓▓▓▓▓▒▒▒▒▒▒▒▒▒▒▒▒==· 190 ms

Findings
  1 critical The job waits for data: 113 ms of each 194 ms step (58%). At most
             113 ms per step to gain.
             → Raise num_workers of the DataLoader from 2 to 6 (16 CPUs are
               there), and set persistent_workers=True so that workers are not
               started again each epoch.
  2 warning  rank 0: One step in 40 takes 1.3 times the median, and all of the
             excess is data wait. At most 2.00 ms per step to gain.
             → Look at what the loader reads at that point: large files, or a
               shuffle buffer.
  3 info     AdamW runs unfused: 7.5 ms per step in 31 operators. At most 5.00
             ms per step to gain.
             → Pass fused=True to torch.optim.AdamW.

Operators
  self/step  share  calls/step  operator                  mostly in
    18.4 ms   9.8%          49  aten::addmm               vit.py:88 forward
    17.2 ms   9.2%          49  AddmmBackward0            train.py:61 train_step
    14.6 ms   7.8%          98  aten::mm                  train.py:61 train_step
    4.10 ms   2.2%          25  aten::native_layer_norm   vit.py:71 forward
    3.90 ms   2.1%          12  …flash_attention_for_cpu  vit.py:64 forward

Modules
  own/step  forward  backward  module                  class
   3.00 ms  1.20 ms   1.80 ms  encoder.layers.0.mlp.0  Linear
   3.00 ms  1.20 ms   1.80 ms  encoder.layers.1.mlp.0  Linear
   3.00 ms  1.20 ms   1.80 ms  encoder.layers.2.mlp.0  Linear
   3.00 ms  1.20 ms   1.80 ms  encoder.layers.3.mlp.0  Linear
   3.00 ms  1.20 ms   1.80 ms  encoder.layers.4.mlp.0  Linear

Price of looking: one thread paused for 310 µs at attach; recorded steps 2.1%
  slower; the whole window 0.3% slower; 61,712 events, 0 dropped.
Abstained: gpu idle: level framework: the process uses no CUDA device
Abstained: stragglers: the clocks of the ranks were not compared in this
  window
wrote /c/report.html
wrote /c
"""


def test_the_verdict_in_80_plain_columns() -> None:
    assert verdict(sample_report()) == PLAIN


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    long = replace(OPERATORS[0], name="aten::" + "x" * 300, top_source="y" * 300)
    report = sample_report(operators=(long, *OPERATORS))
    lines = verdict(report, width=width).splitlines()
    assert max(map(len, lines)) <= min(width, terminal.WIDTH)


def test_ascii_where_the_encoding_has_no_more() -> None:
    said = verdict(sample_report(), encoding="ascii")
    assert said.isascii()
    assert "# data wait 113 ms 58%  F forward 28.0 ms 14%  B backward 41.1 ms 21%" in said
    assert "one thread paused for 310 us at attach" in said
    assert max(map(len, said.splitlines())) <= 80


def test_colour_on_a_terminal_and_none_with_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    assert "\x1b[38;5;" in verdict(sample_report(), force_terminal=True, color_system="256")
    monkeypatch.setenv("NO_COLOR", "1")
    assert not re.search(r"\x1b\[[\d;]*(3|4)8;", verdict(sample_report(), force_terminal=True))


def test_names_of_the_target_cannot_steer_the_terminal() -> None:
    hostile = "\x1b[2J\x1b]0;pwned\x07[bold red]x[/]\r\n\u202e"
    said = verdict(
        sample_report(
            job=hostile,
            level_reasons=(hostile,),
            operators=(replace(OPERATORS[0], name=hostile, top_source=hostile),),
            findings=(replace(FINDINGS[0], claim=hostile, advice=hostile),),
        ),
        paths=(f"/c/{hostile}",),
    )
    assert "\x1b" not in said
    assert "\r" not in said
    assert "\u202e" not in said
    assert "[bold red]x[/]" in said


def test_at_most_five_findings_and_the_rest_is_counted() -> None:
    said = verdict(sample_report(findings=FINDINGS * 3))
    assert "  5 warning" in said
    assert "  6 " not in said
    assert "  4 more in the report" in said


def test_drops_simulation_and_missing_phases_are_said() -> None:
    steps = tuple(s for s in rank(0).steps if not s.recorded)
    bare = replace(rank(0, dropped={"ring_full": 312}), steps=steps, steps_recorded=0)
    said = verdict(sample_report(ranks=(bare,), simulated=True, operators=(), modules=()))
    assert "SIMULATED: the GPU of this run is not a real one." in said
    assert "312 (ring full 312) dropped." in " ".join(said.split())
    assert "Forward and backward were not recorded in this window." in said
    assert "Operators" not in said


def test_no_step_at_all() -> None:
    bare = replace(rank(0), steps=(), steps_found=0, steps_recorded=0, median_step_ns=None)
    said = verdict(sample_report(ranks=(bare,), findings=()))
    assert "No whole step in the window: no step time can be given." in said
    assert "No step was found in 30,856 events" in said


def test_the_cells_of_the_bar_add_up() -> None:
    spent = view.step_time([rank(0)])
    assert spent is not None
    for width in range(1, 120):
        cells = terminal.cells_of(spent, width)
        assert sum(cells) == width
        assert min(cells) >= 0


def test_progress_rewrites_one_line_on_a_terminal_and_is_silent_elsewhere() -> None:
    quiet, loud = io.StringIO(), io.StringIO()
    with terminal.progress(Console(file=quiet), duration_s=10) as shown:
        shown.update(4, events=12_345)
    assert quiet.getvalue() == ""
    console = Console(file=loud, force_terminal=True, width=80)
    with pytest.raises(KeyboardInterrupt), terminal.progress(console, duration_s=10) as shown:
        shown.update(4, events=12_345, dropped=2, steps=40)
        raise KeyboardInterrupt
    line, rest = loud.getvalue().removeprefix("\r\x1b[2K").split("\r")
    assert line == "capturing ████████░░░░░░░░░░░░ 6 s left · 40 steps · 12,345 events · 2 dropped"
    assert rest == "\x1b[2K"


def test_progress_without_an_end_counts_up() -> None:
    line = terminal.progress_line(61.4, None, events=1, dropped=0, steps=1)
    assert line == "capturing 61 s · 1 step · 1 event · 0 dropped"
