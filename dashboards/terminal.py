"""The verdict on a terminal, in one screen, and the progress of a capture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Final

from gputap.dashboards import text, view
from gputap.profiler.analysis.model import Finding, Kernel, Module, Operator, Rank, Report

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

WIDTH: Final = 100
"""Lines are never wider, however wide the terminal: long lines are hard to read."""
ROWS: Final = 5
RANKS_SHOWN: Final = 8

_SEVERITY_STYLE: Final = {"critical": "bold red", "warning": "bold yellow", "info": "bold cyan"}
_PHASE_STYLE: Final = {
    "data_wait": "#e69f00",
    "forward": "#0072b2",
    "backward": "#56b4e9",
    "optimizer": "#009e73",
    "other": "#8a94a3",
    view.UNRECORDED: "#8a94a3",
}
_COLOURED: Final = dict.fromkeys(_PHASE_STYLE, "█") | {view.UNRECORDED: "░"}
_PLAIN: Final = dict(zip(_PHASE_STYLE, "█▓▒=·░", strict=True))
_ASCII: Final = dict(zip(_PHASE_STYLE, "#FB=.-", strict=True))
_ASCII_WORDS: Final = {"µ": "u", "…": "...", "→": "->", "·": "-", "\N{REPLACEMENT CHARACTER}": "?"}


@dataclass(frozen=True, slots=True)
class _Page:
    """A console with what it can show: width, colour, and characters beyond ASCII or not."""

    console: Console
    width: int
    unicode: bool
    colour: bool

    def write(self, line: str | Text = "", style: str = "") -> None:
        """One line as it is: no markup, no highlighting, no wrapping."""
        from rich.text import Text

        body = Text(self.plain(line), style=style) if isinstance(line, str) else line
        self.console.print(body, soft_wrap=True, highlight=False)

    def paragraph(self, words: str, *, first: str = "", rest: str = "", style: str = "") -> None:
        """`words` wrapped to the width, `first` before the first line, `rest` before others."""
        lines = wrap(self.plain(words), self.width - max(len(first), len(rest))) or [""]
        for at, line in enumerate(lines):
            self.write((rest if at else first) + line, style)

    def plain(self, words: str) -> str:
        """`words` in the characters that this console can encode."""
        if self.unicode:
            return words
        for fancy, simple in _ASCII_WORDS.items():
            words = words.replace(fancy, simple)
        return words.encode("ascii", "replace").decode("ascii")

    def shorten(self, words: str, width: int) -> str:
        """`words` cut to `width`, the end kept."""
        return text.shorten(self.plain(words), width, ellipsis="…" if self.unicode else "...")

    @property
    def glyphs(self) -> dict[str, str]:
        """One character per phase; all the same where colours tell them apart."""
        if not self.unicode:
            return _ASCII
        return _COLOURED if self.colour else _PLAIN


def verdict(report: Report, console: Console, *, paths: Sequence[str | Path] = ()) -> None:
    """Write the verdict of `report` to `console`; `paths` are what was written, report first."""
    page = _Page(
        console=console,
        width=min(console.width, WIDTH),
        unicode=console.encoding.lower().startswith("utf"),
        colour=console.color_system is not None and not console.no_color,
    )
    _head(page, report)
    _step_time(page, report)
    _findings(page, report)
    _operators(page, report)
    _modules(page, report)
    _kernels(page, report)
    _tail(page, report, paths)


def _head(page: _Page, report: Report) -> None:
    level = f"{text.clean(report.level)} level"
    job = text.clean(report.job) or "job without a name"
    page.paragraph(
        f"{job} · {view.pids_words(report)} · {level} · {view.captured_words(report)}",
        style="bold",
    )
    if report.simulated:
        page.paragraph("SIMULATED: the GPU of this run is not a real one.", style="bold yellow")
    words = view.LEVEL_WORDS.get(report.level)
    reasons = "; ".join(text.clean(reason) for reason in report.level_reasons)
    if words:
        page.paragraph(f"{words[0].upper()}{words[1:]}.", style="dim")
    if reasons:
        page.paragraph(f"Why not more: {reasons}.", rest="  ", style="dim")


# ----------------------------------------------------------------------------- step time


def _step_time(page: _Page, report: Report) -> None:
    spent = view.step_time(report.ranks)
    page.write()
    if spent is None:
        page.paragraph("No whole step in the window: no step time can be given.")
        for words in _gpu_notes(report):
            page.paragraph(words)
        return
    kind = "recorded" if spent.recorded else "unrecorded"
    what = f"mean of {text.plural(spent.steps, f'{kind} step')}"
    page.paragraph(f"Step {text.duration(spent.step_ns)} ({what})", style="bold")
    page.write(_bar(page, spent, page.width - 2, indent="  "))
    _legend(page, spent)
    for line in _step_notes(spent):
        page.paragraph(line, first="  ", rest="  ")
    for words in _gpu_notes(report):
        page.paragraph(words, first="  ", rest="  ")
    if len(report.ranks) > 1:
        _rank_bars(page, report.ranks)


def _gpu_notes(report: Report) -> list[str]:
    gpu = view.gpu_sentence(report)
    return [*([gpu] if gpu else []), *view.memory_sentences(report)]


def _bar(page: _Page, spent: view.StepTime, width: int, *, indent: str) -> Text:
    from rich.text import Text

    bar = Text(indent)
    for part, cells in zip(spent.slices, cells_of(spent, width), strict=True):
        bar.append(page.glyphs[part.key] * cells, style=_style(page, part.key))
    return bar


def cells_of(spent: view.StepTime, width: int) -> list[int]:
    """`width` cells divided by the slices' shares: whole cells that add up exactly."""
    exact = [part.share * width for part in spent.slices]
    cells = [int(e) for e in exact]
    by_remainder = sorted(range(len(exact)), key=lambda i: cells[i] - exact[i])
    for i in by_remainder[: max(0, width - sum(cells))]:
        cells[i] += 1
    return cells


def _legend(page: _Page, spent: view.StepTime) -> None:
    from rich.text import Text

    line = Text("  ")
    for part in spent.slices:
        words = f" {part.label} {text.duration(part.ns)} {text.share(part.share)}"
        item = Text(page.glyphs[part.key], style=_style(page, part.key))
        item.append(page.plain(words), style="")
        if len(line) > 2 and len(line) + 2 + len(item) > page.width:
            page.write(line)
            line = Text("  ")
        line.append("  " if len(line) > 2 else "").append_text(item)
    page.write(line)


def _style(page: _Page, key: str) -> str:
    return _PHASE_STYLE[key] if page.colour else ""


def _step_notes(spent: view.StepTime) -> Iterator[str]:
    if not spent.recorded:
        yield "Forward and backward were not recorded in this window."
    if spent.gap_ns:
        part = text.share(spent.gap_ns / spent.step_ns)
        yield f"Gaps: no operator on the step's thread for {text.duration(spent.gap_ns)} ({part})."
    if spent.gc_ns:
        part = text.share(spent.gc_ns / spent.step_ns)
        yield f"Python garbage collection took {text.duration(spent.gc_ns)} ({part})."


def _rank_bars(page: _Page, ranks: Sequence[Rank]) -> None:
    """One short bar per rank, as long as its step compared with the slowest rank's."""
    timed = [(rank, spent) for rank in ranks if (spent := view.step_time([rank]))]
    slowest_first = sorted(timed, key=lambda pair: -pair[1].step_ns)
    room = page.width - 24
    for rank, spent in slowest_first[:RANKS_SHOWN]:
        cells = max(1, round(room * spent.step_ns / slowest_first[0][1].step_ns))
        line = _bar(page, spent, cells, indent=f"  rank {rank.rank:<5} ")
        line.append(page.plain(f" {text.duration(spent.step_ns)}"))
        page.write(line)
    if len(timed) > RANKS_SHOWN:
        page.write(f"  {len(timed) - RANKS_SHOWN} faster ranks not shown")


# ------------------------------------------------------------------------------ findings


def _findings(page: _Page, report: Report) -> None:
    shown, more = view.shown_findings(report)
    page.write()
    page.write("Findings", "bold")
    if not shown:
        page.paragraph(view.headline(report), first="  ", rest="  ")
    for at, finding in enumerate(shown, start=1):
        _finding(page, at, finding)
    if more:
        page.write(f"  {more} more in the report")


def _finding(page: _Page, at: int, finding: Finding) -> None:
    from rich.text import Text

    where = f"rank {finding.rank}: " if finding.rank is not None else ""
    label = f"  {at} {finding.severity:<8} "
    gain = ""
    if finding.ceiling_ns is not None:
        gain = f" At most {text.duration(finding.ceiling_ns)} per step to gain."
    claim = text.clean(finding.claim).rstrip(".") + "."
    lines = wrap(page.plain(f"{where}{claim}{gain}"), page.width - len(label))
    first = Text(label, style=_SEVERITY_STYLE.get(finding.severity, "bold"))
    page.write(first.append(lines[0] if lines else "", style="default"))
    for line in lines[1:]:
        page.write(" " * len(label) + line)
    arrow = page.plain("→ ")
    indent = " " * len(label)
    page.paragraph(
        text.clean(finding.advice),
        first=indent + arrow,
        rest=indent + " " * len(arrow),
        style="green",
    )


# -------------------------------------------------------------------------------- tables


def _operators(page: _Page, report: Report) -> None:
    steps = view.whole_recorded(report)
    unit = "/step" if steps else ""

    def row(operator: Operator) -> list[str]:
        return [
            text.duration(operator.self_ns / (steps or 1)),
            text.share(operator.share),
            _calls(operator.count, steps),
            text.clean(operator.name),
            _where(operator.top_module, operator.top_source),
        ]

    head = [f"self{unit}", "share", f"calls{unit}", "operator", "mostly in"]
    _table(page, "Operators", head, [row(op) for op in report.operators[:ROWS]])


def _calls(number: int, steps: int) -> str:
    per_step = number / (steps or 1)
    return text.count(round(per_step)) if per_step >= 10 else f"{per_step:.3g}"


def _where(module: str | None, source: str | None) -> str:
    if source:
        return text.clean(source.rsplit("/", 1)[-1])
    return "" if module is None else text.clean(module) or "(root)"


def _modules(page: _Page, report: Report) -> None:
    steps = view.whole_recorded(report)
    unit = "/step" if steps else ""
    own = sorted(report.modules, key=lambda m: -(m.self_forward_ns + m.self_backward_ns))

    def row(module: Module) -> list[str]:
        return [
            text.duration((module.self_forward_ns + module.self_backward_ns) / (steps or 1)),
            text.duration(module.self_forward_ns / (steps or 1)),
            text.duration(module.self_backward_ns / (steps or 1)),
            text.clean(module.name) or "(root)",
            text.clean(module.module_class),
        ]

    head = [f"own{unit}", "forward", "backward", "module", "class"]
    _table(page, "Modules", head, [row(m) for m in own[:ROWS]])


def _kernels(page: _Page, report: Report) -> None:
    steps = view.whole_steps(report)
    unit = "/step" if steps else ""

    def row(kernel: Kernel) -> list[str]:
        return [
            text.duration(kernel.total_ns / (steps or 1)),
            text.share(kernel.share),
            _calls(kernel.count, steps),
            text.clean(kernel.name),
            text.clean(kernel.top_operator or ""),
        ]

    title = "Kernels of a simulated GPU" if report.simulated else "GPU kernels"
    head = [f"time{unit}", "share", f"calls{unit}", "kernel", "launched by"]
    _table(page, title, head, [row(k) for k in report.kernels[:ROWS]])


def _table(page: _Page, title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Three columns of numbers, right-aligned, and two of names that share the rest."""
    if not rows:
        return
    widths = [max(len(page.plain(r[i])) for r in (head, *rows)) for i in range(3)]
    room = page.width - sum(widths) - 10
    longest = [max(len(page.plain(r[i])) for r in (head, *rows)) for i in (3, 4)]
    first = min(longest[0], max(room // 2, room - longest[1]))
    page.write()
    page.write(title, "bold")
    for at, row in enumerate((head, *rows)):
        numbers = "  ".join(f"{page.plain(row[i]):>{widths[i]}}" for i in range(3))
        names = f"{page.shorten(row[3], first):<{first}}  {page.shorten(row[4], room - first)}"
        page.write(f"  {numbers}  {names}".rstrip(), "" if at else "dim")


# ---------------------------------------------------------------------------------- tail


def _tail(page: _Page, report: Report, paths: Sequence[str | Path]) -> None:
    cost = view.price(report)
    page.write()
    page.paragraph(
        f"Price of looking: {view.price_sentence(cost)}",
        rest="  ",
        style="bold yellow" if cost.lost else "",
    )
    for reason, questions in view.abstentions(report):
        page.paragraph(
            f"Abstained: {', '.join(questions)}: {text.clean(reason)}", rest="  ", style="dim"
        )
    for path in paths:
        page.write(f"wrote {text.clean(path)}")


# ------------------------------------------------------------------------------ progress


class Progress:
    """Seconds left, events and drops while a capture runs. Silent where there is no terminal."""

    def __init__(self, console: Console, *, duration_s: float | None) -> None:
        """`duration_s` None: no end is known, time is counted up."""
        self._console = console
        self._duration_s = duration_s
        self._shown = False

    def update(self, elapsed_s: float, *, events: int, dropped: int = 0, steps: int = 0) -> None:
        """Show where the capture is. Cheap, but meant for a few times per second."""
        if not self._console.is_terminal:
            return
        line = progress_line(
            elapsed_s, self._duration_s, events=events, dropped=dropped, steps=steps
        )
        if not self._console.encoding.lower().startswith("utf"):
            line = line.replace("█", "#").replace("░", ".").replace("·", "-")
        stream = self._console.file
        # One line rewritten in place; a wrapped one could not be.
        stream.write("\r\x1b[2K" + line[: max(1, self._console.width - 1)])
        stream.flush()
        self._shown = True

    def close(self) -> None:
        """Take the line away. Idempotent."""
        if self._shown:
            self._console.file.write("\r\x1b[2K")
            self._console.file.flush()
            self._shown = False


def progress_line(
    elapsed_s: float, duration_s: float | None, *, events: int, dropped: int, steps: int
) -> str:
    """`capturing ████░░░░ 6 s left · 40 steps · 12,345 events · 0 dropped`."""
    if duration_s:
        done = min(1.0, max(0.0, elapsed_s / duration_s))
        cells = round(done * 20)
        left = max(0.0, duration_s - elapsed_s)
        clock = f"{'█' * cells}{'░' * (20 - cells)} {left:.0f} s left"
    else:
        clock = f"{elapsed_s:.0f} s"
    counts = f"{text.plural(steps, 'step')} · {text.plural(events, 'event')}"
    return f"capturing {clock} · {counts} · {text.count(dropped)} dropped"


@contextmanager
def progress(console: Console, *, duration_s: float | None) -> Iterator[Progress]:
    """A `Progress` that takes its line away at the end, whatever happens."""
    shown = Progress(console, duration_s=duration_s)
    try:
        yield shown
    finally:
        shown.close()
