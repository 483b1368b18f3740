"""Pieces of the report page as HTML. Everything that is not literally here goes through `esc`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Final, Literal

from gputap.dashboards import text, view
from gputap.profiler.analysis.model import Finding, Module, Operator, Report

OPERATORS: Final = 150
MODULES: Final = 300
RANKS: Final = 64


def esc(words: object) -> str:
    """`words` as text of an element or of a quoted attribute: cleaned, then escaped."""
    return escape(text.clean(words), quote=True)


def breakable(words: str) -> str:
    """`words` escaped, with places to break a long name at."""
    broken = esc(words)
    for mark in ("::", ".", "/", "_"):
        broken = broken.replace(mark, f"{mark}<wbr>")
    return broken


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell: what is shown (HTML), what it is sorted by, and a share drawn as a small meter."""

    html: str
    order: float | str
    share: float | None = None


@dataclass(frozen=True, slots=True)
class Head:
    """One column. Numbers are aligned right and sorted largest first."""

    words: str
    kind: Literal["number", "name"] = "number"
    hint: str = ""


def table(
    identity: str,
    caption: str,
    heads: Sequence[Head],
    rows: Sequence[Sequence[Cell]],
    *,
    sorted_by: int | None = None,
    row_classes: Sequence[str] = (),
) -> str:
    """A table whose columns sort on click or key; scrolls in its own frame when it is long."""
    head = "".join(_head(i, h, i == sorted_by) for i, h in enumerate(heads))
    body = "".join(
        f"<tr{_class(row_classes[at] if row_classes else '')}>"
        + "".join(_cell(cell, heads[i]) for i, cell in enumerate(row))
        + "</tr>"
        for at, row in enumerate(rows)
    )
    frame = ' tabindex="0"' if len(rows) > 12 else ""
    return (
        f'<div class="scroll" role="region" aria-labelledby="{identity}-caption"{frame}>'
        f'<table id="{identity}" class="sortable"><caption id="{identity}-caption">{esc(caption)}'
        f"</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _head(at: int, head: Head, is_sorted: bool) -> str:
    order = "descending" if head.kind == "number" else "ascending"
    state = f' aria-sort="{order}"' if is_sorted else ""
    hint = f' title="{esc(head.hint)}"' if head.hint else ""
    return (
        f'<th scope="col" class="{head.kind}"{state}>'
        f'<button type="button" data-column="{at}"{hint}>{esc(head.words)}</button></th>'
    )


def _cell(cell: Cell, head: Head) -> str:
    html = cell.html
    if cell.share is not None:
        part = max(0.0, min(1.0, cell.share))
        html = f'<span class="meter"><i style="width:{part:.2%}"></i></span>{html}'
    return f'<td class="{head.kind}" data-order="{esc(cell.order)}">{html}</td>'


def _class(name: str) -> str:
    return f' class="{esc(name)}"' if name else ""


# ----------------------------------------------------------------------------- step time


def phase_bar(spent: view.StepTime, *, small: bool = False, length: float = 1.0) -> str:
    """The mean step as one bar of phases. Described in words for those who do not see it."""
    said = ", ".join(f"{p.label} {text.share(p.share)}" for p in spent.slices)
    parts = "".join(
        f'<span class="phase {part.key}" style="width:{part.share:.4%}">'
        + (f"<b>{text.share(part.share)}</b>" if part.share >= 0.07 and not small else "")
        + "</span>"
        for part in spent.slices
        if part.share > 0
    )
    kind = "phases small" if small else "phases"
    style = f' style="width:{length:.4%}"' if small else ""
    return f'<div class="{kind}" role="img" aria-label="{esc(said)}"{style}>{parts}</div>'


def phase_legend(spent: view.StepTime) -> str:
    """One entry per phase with its time and share."""
    items = "".join(
        f'<li><span class="swatch {part.key}"></span><span>{esc(part.label)}</span>'
        f"<b>{text.duration(part.ns)}</b><i>{text.share(part.share)}</i></li>"
        for part in spent.slices
    )
    return f'<ul class="legend">{items}</ul>'


def rank_table(report: Report) -> str:
    """Phases of each rank's mean step, slowest first, with a bar on one scale."""
    timed = [(rank, spent) for rank in report.ranks if (spent := view.step_time([rank]))]
    timed.sort(key=lambda pair: -pair[1].step_ns)
    longest = max(spent.step_ns for _, spent in timed)
    rows = []
    for rank, spent in timed[:RANKS]:
        parts = {part.key: part for part in spent.slices}
        numbers = [_phase_cell(parts.get(key)) for key in view.PHASES]
        bar = phase_bar(spent, small=True, length=spent.step_ns / longest)
        rows.append(
            [
                Cell(f"{rank.rank} <small>{esc(rank.host)}, pid {rank.pid}</small>", rank.rank),
                Cell(bar, spent.step_ns),
                Cell(text.duration(spent.step_ns), spent.step_ns),
                *numbers,
            ]
        )
    heads = [Head("rank", "name"), Head("mean step", "name"), Head("time")]
    heads += [Head(words) for words in view.PHASES.values()]
    more = f"; {len(timed) - RANKS} faster ranks left out" if len(timed) > RANKS else ""
    caption = f"Phases of the mean step by rank, slowest first{more}"
    return table("ranks", caption, heads, rows, sorted_by=None)


def _phase_cell(part: view.Slice | None) -> Cell:
    if part is None:
        return Cell('<span class="none">not recorded</span>', -1)
    return Cell(text.duration(part.ns), part.ns)


# ------------------------------------------------------------------------------ findings

_MARKS: Final = {"critical": "■", "warning": "▲", "info": "●"}


def findings(report: Report) -> str:
    """The findings, most important first, each with numbers, ceiling and advice."""
    shown, more = view.shown_findings(report)
    if not shown:
        rest = " What could not be judged is listed under “Not answered”."
        return f"<p>No finding.{rest if report.abstained else ''}</p>"
    items = "".join(_finding(at, finding) for at, finding in enumerate(shown, start=1))
    rest = (
        f'<p class="note">{text.plural(more, "further finding")} in the JSON.</p>' if more else ""
    )
    return f'<ol class="findings">{items}</ol>{rest}'


def _finding(at: int, finding: Finding) -> str:
    severity = finding.severity if finding.severity in _MARKS else "info"
    where = f'<span class="where">rank {finding.rank}</span>' if finding.rank is not None else ""
    gain = ""
    if finding.ceiling_ns is not None:
        gain = (
            f'<div class="gain"><b>{text.duration(finding.ceiling_ns)}</b>'
            "<span>per step at most to gain</span></div>"
        )
    rows = "".join(_evidence(row) for row in finding.evidence[:6])
    return (
        f'<li class="finding {severity}"><div class="says">'
        f'<p class="tags"><span class="tag"><span aria-hidden="true">{_MARKS[severity]}</span> '
        f"{severity}</span>{where}</p>"
        f"<h3>{esc(finding.claim)}</h3>"
        f'<p class="advice"><b>Do this</b> {esc(finding.advice)}</p>{rows}</div>{gain}</li>'
    )


def _evidence(row: Mapping[str, Any]) -> str:
    items = "".join(
        f"<div><dt>{esc(text.label(str(key)))}</dt><dd>{esc(text.value(str(key), data))}</dd></div>"
        for key, data in row.items()
    )
    return f'<dl class="evidence">{items}</dl>'


# -------------------------------------------------------------------------------- tables


def operators(report: Report) -> str:
    """Operators by own time."""
    steps = view.whole_recorded(report)
    shown = sorted(report.operators, key=lambda op: -op.self_ns)[:OPERATORS]
    most = max(op.share for op in shown)
    rows = [_operator_row(op, steps or 1, most) for op in shown]
    heads = [
        Head("operator", "name"),
        Head("own time", hint="Without the operators that it calls"),
        Head("share", hint="Own time, of the recorded steps' time"),
        Head("total", hint="With the operators that it calls"),
        Head("calls"),
        Head("mean", hint="One call, with the operators that it calls"),
        *_gpu_head(report, "Of the kernels and copies that it launches itself"),
        Head("mostly in", "name", hint="Module and line with most of the own time"),
    ]
    caption = _caption("operator", shown, report.operators, steps)
    return table("operators", caption, heads, rows, sorted_by=1)


def _operator_row(op: Operator, steps: int, most: float) -> list[Cell]:
    calls = op.count / steps
    where = "<br>".join(
        part
        for part in (
            breakable(op.top_module or "(root)") if op.top_module is not None else "",
            f"<small>{breakable(op.top_source)}</small>" if op.top_source else "",
        )
        if part
    )
    return [
        Cell(f"<code>{breakable(op.name)}</code>{_kind(op.kind)}", op.name),
        Cell(text.duration(op.self_ns / steps), op.self_ns),
        Cell(text.share(op.share), op.share, share=op.share / most if most else 0),
        Cell(text.duration(op.total_ns / steps), op.total_ns),
        Cell(text.count(round(calls)) if calls >= 10 else f"{calls:.3g}", op.count),
        Cell(text.duration(op.mean_ns), op.mean_ns),
        *_gpu_cell(op.device_ns, steps),
        Cell(where, op.top_module or ""),
    ]


def _gpu_head(report: Report, hint: str) -> list[Head]:
    """The column of GPU times, where they are known."""
    known = any(op.device_ns is not None for op in report.operators)
    return [Head("GPU time", hint=hint)] if known else []


def _gpu_cell(ns: int | None, steps: int) -> list[Cell]:
    return [] if ns is None else [Cell(text.duration(ns / steps), ns)]


def _kind(kind: str) -> str:
    return "" if kind == "operator" else f' <span class="kind">{esc(kind.replace("_", " "))}</span>'


def _caption(noun: str, shown: Sequence[object], every: Sequence[object], steps: int) -> str:
    said = text.plural(len(every), noun)
    if len(shown) < len(every):
        said = f"The {text.count(len(shown))} largest of {said}"
    if steps:
        return f"{said}. Times and calls are per step, over {text.plural(steps, 'recorded step')}."
    return f"{said}. Times and calls are over everything that was recorded."


def modules(report: Report) -> str:
    """Modules as a tree; sorted by a number it becomes a flat list of full names."""
    steps = view.whole_recorded(report)
    largest = sorted(report.modules, key=lambda m: -m.total_ns)[:MODULES]
    shown = sorted(largest, key=lambda m: _path(m.name))
    names = {module.name for module in shown}
    rows = [
        _module_row(module, at, steps or 1, [a for a in _above(module.name) if a in names])
        for at, module in enumerate(shown)
    ]
    heads = [
        Head("module", "name", hint="Sorted by this, it is a tree"),
        Head("forward"),
        Head("backward"),
        Head("share", hint="Forward and backward, of the recorded steps' time"),
        Head("own forward", hint="Without the modules inside"),
        Head("own backward", hint="Without the modules inside"),
        Head("calls"),
    ]
    caption = _caption("module", shown, report.modules, steps)
    return table("modules", caption, heads, rows, sorted_by=0)


def _path(name: str) -> list[tuple[int, int, str]]:
    """Sorts `layers.10` after `layers.9`, and a module right before what is inside of it."""
    parts = name.split(".") if name else []
    return [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in parts]


def _above(name: str) -> list[str]:
    """Names of the modules around, outermost first, the root left out."""
    parts = name.split(".")
    return [".".join(parts[:n]) for n in range(1, len(parts))]


def _module_row(module: Module, at: int, steps: int, above: Sequence[str]) -> list[Cell]:
    prefix = f"{above[-1]}." if above else ""
    own = breakable(module.name[len(prefix) :]) or "(root)"
    depth = min(len(above) + 1, 12) if module.name else 0
    calls = module.count / steps
    return [
        Cell(
            f'<span class="node" style="--depth:{depth}">'
            f'<span class="above">{breakable(prefix)}</span><b>{own}</b> '
            f'<span class="kind">{esc(module.module_class)}</span></span>',
            at,
        ),
        Cell(text.duration(module.forward_ns / steps), module.forward_ns),
        Cell(text.duration(module.backward_ns / steps), module.backward_ns),
        Cell(text.share(module.share), module.share, share=module.share),
        Cell(text.duration(module.self_forward_ns / steps), module.self_forward_ns),
        Cell(text.duration(module.self_backward_ns / steps), module.self_backward_ns),
        Cell(text.count(round(calls)) if calls >= 10 else f"{calls:.3g}", module.count),
    ]


def collectives(report: Report) -> str:
    """Collectives by operation, group and size."""
    rows = [
        [
            Cell(f"<code>{breakable(c.op)}</code>", c.op),
            Cell(_or_unknown(c.backend), c.backend or ""),
            Cell(_or_unknown(c.group_name), c.group_name or ""),
            Cell(_or_unknown(c.dtype), c.dtype or ""),
            Cell(_or_unknown(None if c.bytes is None else text.size(c.bytes)), c.bytes or -1),
            Cell(text.count(c.count), c.count),
            Cell(text.duration(c.total_ns), c.total_ns),
            Cell(text.duration(c.mean_ns), c.mean_ns),
            Cell(text.duration(c.max_ns), c.max_ns),
            Cell(
                _or_unknown(None if c.transfer_ns is None else text.duration(c.transfer_ns)),
                -1 if c.transfer_ns is None else c.transfer_ns,
            ),
            Cell(
                _or_unknown(None if c.busbw is None else f"{c.busbw / 1e9:.3g} GB/s"),
                -1 if c.busbw is None else c.busbw,
            ),
            Cell(_TIMED_BY.get(c.timing_source or "", "not known"), c.timing_source or ""),
        ]
        for c in sorted(report.collectives, key=lambda c: -c.total_ns)
    ]
    heads = [Head(words, "name") for words in ("operation", "backend", "group", "type")]
    heads += [Head(words) for words in ("payload", "count", "total", "mean", "longest")]
    heads += [
        Head("transfer", hint="Mean from the last rank's coming to the end"),
        Head("bus bandwidth", hint="Of the transfer, by the formulas of nccl-tests"),
        Head("timed", "name"),
    ]
    return table(
        "collectives",
        "All ranks and the whole window; a rank that comes early waits for the others in its time",
        heads,
        rows,
        sorted_by=6,
    )


_TIMED_BY: Final = {
    "device": "on the GPU",
    "host_work": "on the CPU, the work",
    "host_call": "on the CPU, the call",
    "mixed": "in different ways",
}


def _or_unknown(words: str | None) -> str:
    return '<span class="none">not known</span>' if words is None else breakable(words)


def longest_bars(identity: str, bars: Iterable[Any], *, most: int = 25) -> str:
    """The longest events of a drawn step as a table: the timeline for those who do not see it."""
    shown = sorted(bars, key=lambda bar: -bar.duration_ns)[:most]
    rows = [
        [
            Cell(f"<code>{breakable(bar.name)}</code>{_kind(bar.kind)}", bar.name),
            Cell(text.duration(bar.start_ns), bar.start_ns),
            Cell(text.duration(bar.duration_ns), bar.duration_ns),
            Cell("" if bar.module is None else breakable(bar.module or "(root)"), bar.module or ""),
            Cell(breakable(bar.source or ""), bar.source or ""),
        ]
        for bar in shown
    ]
    heads = [Head("event", "name"), Head("start"), Head("length")]
    heads += [Head("module", "name"), Head("source", "name")]
    body = table(identity, f"The {len(shown)} longest bars", heads, rows, sorted_by=2)
    return f"<details><summary>The {len(shown)} longest as a table</summary>{body}</details>"


def pairs(rows: Iterable[tuple[str, str]]) -> str:
    """Labels and values."""
    items = "".join(f"<div><dt>{esc(name)}</dt><dd>{esc(said)}</dd></div>" for name, said in rows)
    return f'<dl class="pairs">{items}</dl>'
