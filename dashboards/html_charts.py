"""Data of the page's charts, for `assets/report.js`, and the same in words."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from statistics import fmean, median
from typing import Any, Final

from gputap.dashboards import text, view
from gputap.dashboards.timeline import MERGED, Bar, TimelineStep
from gputap.profiler.analysis.model import Rank, Report, Step

PANELS: Final = 8
"""Ranks with a chart of their own, slowest first."""
COLUMNS: Final = 300
"""Bars per rank; more steps than that are averaged in groups."""

_UNITS: Final = ((1e9, "s"), (1e6, "ms"), (1e3, "µs"))
_HUES: Final = {
    "operator": "forward",
    "autograd": "backward",
    "torchscript": "forward",
    "gc": "gc",
    "collective": "collective",
    MERGED: "merged",
}
HUE_WORDS: Final = {
    "data_wait": "data wait",
    "forward": "operator",
    "backward": "autograd (backward)",
    "optimizer": "optimizer",
    "collective": "collective",
    "gc": "garbage collection",
    "scope": "other scope",
    "merged": "merged short events",
}


def unit_for(ns: float) -> tuple[float, str]:
    """Nanoseconds per axis unit, and its name, for values up to `ns`."""
    return next(((scale, unit) for scale, unit in _UNITS if ns >= scale), _UNITS[-1])


# ---------------------------------------------------------------------------- step chart


def step_chart(report: Report) -> dict[str, Any] | None:
    """Stacked bars per step, a panel per rank; None where there is no whole step."""
    ranks = charted_ranks(report)
    if not ranks:
        return None
    scale, unit = unit_for(max(step.dur_ns for rank in ranks for step in _whole(rank)))
    longest = max(len(_whole(rank)) for rank in ranks)
    group = -(-longest // COLUMNS)
    return {
        "unit": unit,
        "group": group,
        "panels": [_panel(rank, scale, group) for rank in ranks],
    }


def charted_ranks(report: Report) -> list[Rank]:
    """Ranks with whole steps: all of them if they fit, else the slowest; by number."""
    ranks = [rank for rank in report.ranks if _whole(rank)]
    slowest = sorted(ranks, key=lambda rank: (-(rank.median_step_ns or 0), rank.rank))
    return sorted(slowest[:PANELS], key=lambda rank: rank.rank)


def _whole(rank: Rank) -> list[Step]:
    return [step for step in rank.steps if step.whole]


def _panel(rank: Rank, scale: float, group: int) -> dict[str, Any]:
    columns = [_column(steps, scale) for steps in _grouped(_whole(rank), group)]
    return {"title": f"rank {rank.rank}", "columns": columns}


def _grouped(steps: Sequence[Step], group: int) -> Iterator[list[Step]]:
    for at in range(0, len(steps), group):
        yield list(steps[at : at + group])


def _column(steps: Sequence[Step], scale: float) -> dict[str, Any]:
    """One bar: a step, or the mean of a group's recorded steps, else of all of it."""
    recorded = [step for step in steps if step.recorded]
    spent = recorded or steps
    parts = {
        key: fmean(getattr(step.phases, f"{key}_ns") for step in spent) / scale
        for key in view.PHASES
    }
    if not recorded:
        rest = parts["forward"] + parts["backward"] + parts["other"]
        parts = {k: parts[k] for k in ("data_wait", "optimizer")} | {view.UNRECORDED: rest}
    kind = "recorded" if recorded else "not recorded"
    length = text.duration(fmean(step.dur_ns for step in spent))
    if len(steps) == 1:
        title = f"step {steps[0].step}: {length}, {kind}"
    else:
        first, last = steps[0].step, steps[-1].step
        title = f"steps {first} to {last}: mean {length} of {len(spent)}, {kind}"
    return {
        "x": (steps[0].step + steps[-1].step) / 2,
        "n": len(steps),
        "recorded": bool(recorded),
        "title": title,
        "parts": {key: round(part, 6) for key, part in parts.items()},
    }


def step_words(report: Report) -> list[str]:
    """What the step chart shows, one sentence per rank, and what it leaves out."""
    ranks = charted_ranks(report)
    said = [_rank_words(rank) for rank in ranks]
    timed = sum(1 for rank in report.ranks if _whole(rank))
    if timed > len(ranks):
        said.append(f"{timed - len(ranks)} faster ranks are not drawn.")
    cut = sum(not step.whole for rank in report.ranks for step in rank.steps)
    if cut:
        verb = "is" if cut == 1 else "are"
        said.append(f"{text.plural(cut, 'step')} cut by the window's edge {verb} left out.")
    return said


def _rank_words(rank: Rank) -> str:
    steps = _whole(rank)
    longest = max(steps, key=lambda step: step.dur_ns)
    middle = median(step.dur_ns for step in steps)
    recorded = text.count(sum(step.recorded for step in steps))
    return (
        f"Rank {rank.rank}: {text.plural(len(steps), 'whole step')}, "
        f"{recorded} recorded; median {text.duration(middle)}, "
        f"longest {text.duration(longest.dur_ns)} (step {longest.step})."
    )


# ------------------------------------------------------------------------------ timeline


def timeline_chart(drawn: TimelineStep) -> dict[str, Any]:
    """Bars of one step as columns; strings once, by index."""
    scale, unit = unit_for(drawn.duration_ns)
    strings: dict[str, int] = {"": 0}

    def index(words: str | None) -> int:
        return strings.setdefault(words or "", len(strings))

    bars = sorted(drawn.bars, key=lambda bar: (bar.start_ns, bar.lane))
    hues = _hues(drawn, bars)
    return {
        "unit": unit,
        "length": round(drawn.duration_ns / scale, 6),
        "lanes": sum(track.lanes for track in drawn.tracks),
        "tracks": [
            {"name": text.shorten(t.name, 24), "first": t.first_lane, "lanes": t.lanes}
            for t in drawn.tracks
        ],
        "start": [round(bar.start_ns / scale, 6) for bar in bars],
        "width": [round(bar.duration_ns / scale, 6) for bar in bars],
        "lane": [bar.lane for bar in bars],
        "hue": hues,
        "shade": [0 if bar.kind == MERGED else zlib.crc32(bar.name.encode()) % 3 for bar in bars],
        "name": [index(bar.name) for bar in bars],
        "about": [index(_about(bar)) for bar in bars],
        "strings": list(strings),
    }


def _about(bar: Bar) -> str:
    """Further lines of the hover box; lines are apart by a newline."""
    lines = [f"{text.duration(bar.duration_ns)} at {text.duration(bar.start_ns)}, {bar.kind}"]
    if bar.module is not None:
        kind = f" ({bar.module_class})" if bar.module_class else ""
        lines.append(f"module {bar.module or 'root'}{kind}")
    if bar.source:
        lines.append(bar.source)
    return "\n".join(lines).replace("_", " ", 1) if bar.kind == "user_scope" else "\n".join(lines)


def _hues(drawn: TimelineStep, bars: Sequence[Bar]) -> list[str]:
    """Colour names: what runs inside of backward, optimizer or loader is coloured like it."""
    track_of = {
        lane: at
        for at, track in enumerate(drawn.tracks)
        for lane in range(track.first_lane, track.first_lane + track.lanes)
    }
    around: dict[int, list[tuple[int, str]]] = {}
    hues = []
    for bar in bars:
        outer = around.setdefault(track_of.get(bar.lane, -1), [])
        while outer and outer[-1][0] <= bar.start_ns:
            outer.pop()
        hue = _own_hue(bar)
        if hue == "forward" and outer and outer[-1][1] in ("backward", "optimizer", "data_wait"):
            hue = outer[-1][1]
        if bar.kind != MERGED:
            outer.append((bar.start_ns + bar.duration_ns, hue))
        hues.append(hue)
    return hues


def _own_hue(bar: Bar) -> str:
    if bar.name.startswith("autograd::engine"):
        return "backward"
    if bar.kind != "user_scope":
        return _HUES.get(bar.kind, "scope")
    if bar.name.startswith("enumerate(DataLoader)"):
        return "data_wait"
    return "optimizer" if bar.name.startswith("Optimizer.") else "scope"


def timeline_words(drawn: TimelineStep) -> str:
    """What is drawn, and how many events were merged or left out."""
    said = f"{text.plural(drawn.events, 'event')} in {text.duration(drawn.duration_ns)}, "
    said += f"drawn as {text.plural(len(drawn.bars), 'bar')}"
    if drawn.merged_events:
        bars = sum(bar.kind == MERGED for bar in drawn.bars)
        said += f"; the {text.count(drawn.merged_events)} shortest were merged into {bars}"
        said += " of these"
    said += "."
    if drawn.hidden_events:
        said += f" {text.plural(drawn.hidden_events, 'event')} on further threads or deeper levels"
        said += " are not drawn."
    return said


def timeline_title(drawn: TimelineStep) -> str:
    """`Median recorded step: step 5 of rank 1, 182 ms`."""
    if drawn.step is None:
        return f"{drawn.why} of rank {drawn.rank}"
    length = text.duration(drawn.duration_ns)
    return f"{drawn.why}: step {drawn.step} of rank {drawn.rank}, {length}"
