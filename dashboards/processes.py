"""`gputap ps` and `gputap doctor` on a terminal, and query results as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from gputap.dashboards.text import clean, shorten

if TYPE_CHECKING:
    import pyarrow as pa

    from gputap.profiler.discovery import Scan
    from gputap.profiler.doctor import Check, Diagnosis
    from gputap.profiler.target import Target

MAX_ROWS: Final = 1000
"""Rows of a query that a terminal shows; `--json` gives all."""

_STYLES: Final = {"ok": "green", "warn": "yellow", "fail": "red", "unknown": "dim"}


def process_table(scan: Scan, console: Console) -> None:
    """One line per PyTorch process worth tapping."""
    table = RichTable(box=None, pad_edge=False, header_style="bold")
    for name in ("PID", "RANK", "PYTHON", "TORCH", "CUDA", "LEVEL", "COMMAND"):
        table.add_column(name, no_wrap=name != "COMMAND", overflow="fold")
    for target in scan.targets:
        table.add_row(*(Text(cell) for cell in _cells(target)))
    if scan.targets:
        console.print(table)
    else:
        console.print("No PyTorch process that could be tapped was found.", markup=False)
    others = len(scan.found) - len(scan.targets)
    if others:
        console.print(f"{others} more are launchers, workers or helpers of these.", style="dim")
    if scan.hidden:
        console.print(
            f"{scan.hidden} processes of others could not be looked into; root sees them.",
            style="dim",
        )


def _cells(target: Target) -> list[str]:
    rank = target.placement.rank
    world = target.placement.world_size
    place = "-" if rank is None else str(rank) if world is None else f"{rank}/{world}"
    versions = [
        "-" if part is None else clean(part.version or "?")
        for part in (target.python, target.torch)
    ]
    cuda = "yes" if target.cuda else "no"
    command = shorten(clean(" ".join(target.argv)), 200)
    return [str(target.pid), place, *versions, cuda, target.level_obtainable or "none", command]


def diagnosis_page(diagnosis: Diagnosis, console: Console) -> None:
    """What is possible here, for a process if one was given, and how to get more."""
    _checks(console, "This machine", diagnosis.machine)
    if diagnosis.target is None:
        return
    target = diagnosis.target
    _checks(console, f"Process {target.pid}", diagnosis.target_checks)
    console.print("\nLevels", style="bold")
    for verdict in diagnosis.levels:
        words = "possible" if verdict.possible else "not possible: " + "; ".join(verdict.because)
        style = "green" if verdict.possible else "yellow"
        console.print(Text(f"  {verdict.level:<10} {clean(words)}", style=style), soft_wrap=True)
        for step in verdict.next_steps:
            console.print(Text(f"             -> {clean(step)}"), soft_wrap=True)


def _checks(console: Console, title: str, checks: tuple[Check, ...]) -> None:
    console.print(Text(title, style="bold"))
    for check in checks:
        line = Text(f"  {check.status:<8}", style=_STYLES[check.status])
        line.append(f"{check.name}: {clean(check.finding)}", style="default")
        console.print(line, soft_wrap=True)
        if check.next_step and check.status != "ok":
            console.print(Text(f"          -> {clean(check.next_step)}"), soft_wrap=True)


def rows_table(rows: pa.Table, console: Console) -> None:
    """The result of a query, at most `MAX_ROWS` rows."""
    table = RichTable(box=None, pad_edge=False, header_style="bold")
    for name in rows.column_names:
        table.add_column(Text(clean(name)), overflow="fold")
    for row in rows.slice(0, MAX_ROWS).to_pylist():
        table.add_row(*(Text("" if v is None else clean(v)) for v in row.values()))
    console.print(table)
    if rows.num_rows > MAX_ROWS:
        console.print(f"{rows.num_rows - MAX_ROWS:,} more rows; --json gives all.", style="dim")
