"""The report page: one file that needs no network, verdict first, then what proves it.

Foreign strings (names, paths, arguments) are hostile until escaped, and a policy in the page
lets run no script but the three that are written here, and lets nothing be fetched.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from gputap.dashboards import html_charts, palette, text, view
from gputap.dashboards import html_parts as parts
from gputap.dashboards.html_device import gpus
from gputap.dashboards.html_parts import esc
from gputap.dashboards.timeline import TimelineStep
from gputap.profiler.analysis.model import Report
from gputap.profiler.errors import CaptureNotWritable
from gputap.profiler.files import whole_file


def write(
    path: str | os.PathLike[str],
    report: Report,
    timeline: Sequence[TimelineStep] = (),
    *,
    notes: Sequence[str] = (),
) -> Path:
    """Write the page of `report` to `path`, owner-only and all at once.

    Raises CaptureNotWritable, and then leaves nothing behind.
    """
    target = Path(path)
    page = render(report, timeline, notes=notes)
    try:
        with whole_file(target) as file:
            file.write(page.encode())
    except OSError as exc:
        raise CaptureNotWritable(f"Cannot write the report {target}: {exc.strerror}.") from exc
    return target


def render(
    report: Report, timeline: Sequence[TimelineStep] = (), *, notes: Sequence[str] = ()
) -> str:
    """The page as text. `notes` are what a reader must be told of the capture itself."""
    sections = _sections(report, timeline)
    body = "".join(
        (
            _top(report, notes),
            '<main id="verdict">',
            _verdict(report),
            _contents(sections),
            *(_section(identity, title, html) for identity, title, html in sections),
            "</main>",
        )
    )
    return _document(_title(report), body, _chart_data(report, timeline))


def _title(report: Report) -> str:
    return f"{report.job or 'job'}: {view.headline(report)} gputap report"


def _document(title: str, body: str, data: dict[str, Any]) -> str:
    """The whole file. Scripts are allowed by their hashes, so that no other one can run."""
    config = 'window.PlotlyConfig={MathJaxConfig:"local"};'
    scripts = [config, _plotly_js(), _asset("report.js")]
    policy = (
        "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data: blob:; "
        "font-src data:; style-src 'unsafe-inline'; script-src "
        + " ".join(f"'sha256-{_sha256(script)}'" for script in scripts)
    )
    tags = "".join(f"<script>{script}</script>\n" for script in scripts)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n<link rel="icon" href="data:,">\n'
        f"<title>{esc(title)}</title>\n"
        f"<style>{palette.css_variables()}{_asset('report.css')}</style>\n</head>\n"
        f'<body>\n<a class="skip" href="#verdict">To the verdict</a>\n{body}\n'
        f'<script type="application/json" id="data">{_json(data)}</script>\n'
        f"{tags}</body>\n</html>\n"
    )


def _json(data: object) -> str:
    """JSON that cannot end the element it stands in."""
    raw = json.dumps(data, ensure_ascii=True, separators=(",", ":"))
    return raw.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _sha256(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


@cache
def _plotly_js() -> str:
    from plotly.offline import get_plotlyjs

    script: str = get_plotlyjs()
    # A parser normalises line ends before it hashes, and would end the script at its end tag.
    return script.replace("\r\n", "\n").replace("\r", "\n").replace("</script", "<\\/script")


@cache
def _asset(name: str) -> str:
    return files("gputap.dashboards").joinpath("assets").joinpath(name).read_text(encoding="utf-8")


def _chart_data(report: Report, timeline: Sequence[TimelineStep]) -> dict[str, Any]:
    return {
        "palette": {"light": palette.LIGHT, "dark": palette.DARK},
        "words": view.PHASES | {view.UNRECORDED: view.UNRECORDED_WORDS},
        "steps": html_charts.step_chart(report),
        "timelines": [html_charts.timeline_chart(drawn) for drawn in timeline],
    }


# ------------------------------------------------------------------------------- verdict


def _top(report: Report, notes: Iterable[str]) -> str:
    level = view.level_sentence(report)
    name, _, words = level.partition(": ")
    reasons = "; ".join(text.clean(reason) for reason in report.level_reasons)
    why = f" <span>Why not more: {esc(reasons)}.</span>" if reasons else ""
    simulated = ""
    if report.simulated:
        simulated = (
            '<p class="banner" role="note"><b>Simulated.</b> The GPU of this run is not a real '
            "one; its times say nothing about hardware.</p>"
        )
    told = "".join(f'<p class="banner" role="note">{esc(note)}</p>' for note in notes)
    return (
        '<header><div class="bar"><span class="brand">gputap</span>'
        f'<span class="job">{esc(report.job)}</span>'
        f"<span>{esc(view.pids_words(report))}</span>{_when(report)}</div>"
        f'<p class="level"><b>{esc(name)}</b> {esc(words)}{"." if words else ""}{why}</p>'
        f"{simulated}{told}</header>"
    )


def _when(report: Report) -> str:
    starts = [step.start_ns for rank in report.ranks for step in rank.steps[:1]]
    if not starts:
        return ""
    at = datetime.fromtimestamp(min(starts) // 1_000_000_000, timezone.utc)
    return f'<time datetime="{at.isoformat()}">{at:%Y-%m-%d %H:%M:%S} UTC</time>'


def _verdict(report: Report) -> str:
    spent = view.step_time(report.ranks)
    breakdown = _breakdown(spent) if spent else ""
    return (
        f'<section class="verdict" aria-labelledby="headline">'
        f'<h1 id="headline">{esc(view.headline(report))}</h1>'
        f'<p class="captured">{esc(_sentence(view.captured_words(report)))}</p>'
        f"{breakdown}</section>"
        f'<section aria-labelledby="findings"><h2 id="findings">What holds it back</h2>'
        f"{parts.findings(report)}</section>"
    )


def _sentence(words: str) -> str:
    return words[0].upper() + words[1:] + "."


def _breakdown(spent: view.StepTime) -> str:
    kind = "recorded" if spent.recorded else "unrecorded"
    mean = f"mean of {text.plural(spent.steps, f'{kind} step')}"
    notes = []
    if not spent.recorded:
        notes.append("Forward and backward were not recorded in this window.")
    if spent.gap_ns:
        part = text.share(spent.gap_ns / spent.step_ns)
        notes.append(
            f"No operator ran on the step's thread for {text.duration(spent.gap_ns)} ({part})."
        )
    if spent.gc_ns:
        notes.append(f"Python garbage collection took {text.duration(spent.gc_ns)}.")
    said = f'<p class="note">{esc(" ".join(notes))}</p>' if notes else ""
    return (
        f'<div class="where-time"><h2>One step: {text.duration(spent.step_ns)} '
        f"<small>{esc(mean)}</small></h2>{parts.phase_bar(spent)}{parts.phase_legend(spent)}"
        f"{said}</div>"
    )


# ------------------------------------------------------------------------------ sections


def _sections(report: Report, timeline: Sequence[TimelineStep]) -> list[tuple[str, str, str]]:
    """Id, title and content of each section that there is something for."""
    made = [
        ("steps", "Steps", _steps(report)),
        ("timeline", "Timeline", _timelines(timeline)),
        ("operators-section", "Operators", parts.operators(report) if report.operators else ""),
        ("modules-section", "Modules", parts.modules(report) if report.modules else ""),
        (
            "collectives-section",
            "Collectives",
            parts.collectives(report) if report.collectives else "",
        ),
        ("gpu", "GPU", gpus(report)),
        ("not-answered", "Not answered", _abstained(report)),
        ("price", "Price of looking", _price(report)),
        ("environment", "Environment", _environment(report)),
    ]
    return [(identity, title, html) for identity, title, html in made if html]


def _contents(sections: Iterable[tuple[str, str, str]]) -> str:
    links = "".join(f'<li><a href="#{i}">{esc(title)}</a></li>' for i, title, _ in sections)
    return f'<nav aria-label="Sections"><ul>{links}</ul></nav>'


def _section(identity: str, title: str, html: str) -> str:
    return (
        f'<section id="{identity}" aria-labelledby="{identity}-title">'
        f'<h2 id="{identity}-title">{esc(title)}</h2>{html}</section>'
    )


def _steps(report: Report) -> str:
    chart = html_charts.step_chart(report)
    if chart is None:
        return ""
    words = "".join(f"<li>{esc(said)}</li>" for said in html_charts.step_words(report))
    swatches = "".join(_swatch(key, label) for key, label in view.PHASES.items())
    partly = any(not column["recorded"] for panel in chart["panels"] for column in panel["columns"])
    if partly:
        swatches += _swatch(view.UNRECORDED, "not recorded: forward, backward, other")
    grouped = ""
    if chart["group"] > 1:
        grouped = (
            f'<p class="note">Each bar stands for {chart["group"]} steps: the mean of those that '
            "were recorded, or of all where none was.</p>"
        )
    lighter = " Paler bars are steps that were not recorded operator by operator." if partly else ""
    ranks = parts.rank_table(report) if len(report.ranks) > 1 else ""
    return (
        f'<figure><ul class="legend flat">{swatches}</ul>{grouped}'
        '<div class="chart" id="steps-chart" role="img" '
        'aria-label="Stacked bars: time per step and phase"></div>'
        f"{_controls('steps-chart')}"
        f"<figcaption>Time per step by phase.{lighter}<ul>{words}</ul></figcaption></figure>{ranks}"
    )


def _swatch(key: str, label: str) -> str:
    return f'<li><span class="swatch {key}"></span><span>{esc(label)}</span></li>'


def _controls(identity: str) -> str:
    """Zoom without a mouse."""
    buttons = "".join(
        f'<button type="button" data-chart="{identity}" data-do="{action}">{words}</button>'
        for action, words in (
            ("in", "Zoom in"),
            ("out", "Zoom out"),
            ("left", "← Earlier"),
            ("right", "Later →"),
            ("reset", "Whole"),
        )
    )
    return f'<div class="controls" role="group" aria-label="Zoom">{buttons}</div>'


def _timelines(timeline: Sequence[TimelineStep]) -> str:
    made = []
    for at, drawn in enumerate(timeline):
        title = html_charts.timeline_title(drawn)
        hues = dict.fromkeys(html_charts.timeline_chart(drawn)["hue"])
        swatches = "".join(_swatch(h, w) for h, w in html_charts.HUE_WORDS.items() if h in hues)
        made.append(
            f'<figure><h3>{esc(title)}</h3><ul class="legend flat">{swatches}</ul>'
            f'<div class="chart" id="timeline-{at}" role="img" '
            f'aria-label="{esc(title)}: operators by thread and nesting depth"></div>'
            f"{_controls(f'timeline-{at}')}"
            f"<figcaption>{esc(html_charts.timeline_words(drawn))} Drag to zoom, double-click for "
            "the whole; a row per nesting depth, outermost on top.</figcaption>"
            f"{parts.longest_bars(f'longest-{at}', drawn.bars)}</figure>"
        )
    return "".join(made)


def _abstained(report: Report) -> str:
    if not report.abstained:
        return ""
    rows = "".join(
        f"<li><b>{esc(text.label(gap.rule))}</b> {esc(gap.reason)}</li>" for gap in report.abstained
    )
    return (
        "<p>This capture cannot say anything about the following. That is not the same as fine.</p>"
        f'<ul class="abstained">{rows}</ul>'
    )


def _price(report: Report) -> str:
    cost = view.price(report)
    words = "Measured in this very run"
    words += "; pause and slowdowns are the worst rank's." if len(report.ranks) > 1 else "."
    return f"<p>{words}</p>{parts.pairs(view.price_lines(cost))}"


def _environment(report: Report) -> str:
    target = {k: v for k, v in report.target.items() if k not in ("command", "argv", "cmdline")}
    command = view.command_words(report.target)
    shown = f'<pre class="command" tabindex="0">{esc(command)}</pre>' if command else ""
    hosts = dict.fromkeys(rank.host for rank in report.ranks)
    rows = [("host", ", ".join(hosts)), ("mode", view.mode_words(report))] if hosts else []
    worlds = {rank.world_size for rank in report.ranks if rank.world_size}
    if worlds:
        rows.append(("ranks", f"{len(report.ranks)} of {max(worlds)} captured"))
    return f"{shown}{parts.pairs([*rows, *view.facts(target)])}"
