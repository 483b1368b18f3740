"""The command line: one function per verb, options and wiring only.

stdout is data, stderr is talk. Exit codes: 0 ok, 1 failed, 2 usage, 3 target refused, 4 lossy
under --strict, 5 regression found.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gputap.profiler.errors import (
    CaptureNotWritable,
    LossyCapture,
    ProfilerError,
    TargetError,
    UsageError,
)

if TYPE_CHECKING:
    from rich.console import Console

    from gputap.injectors.entry import Entry
    from gputap.injectors.library.client import WindowConfig
    from gputap.injectors.tap import AgentTap
    from gputap.profiler.analysis.model import Report
    from gputap.profiler.session import Plan
    from gputap.profiler.store import Capture

app = typer.Typer(
    name="gputap",
    help="Tap a running PyTorch process by PID; see what it does, and what holds it back.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# BadParameter > UsageError > ClickException: newer typers bring their own click, so the base of
# all errors in a command line is reached through the class that every typer has.
_BadCommandLine: type[Any] = typer.BadParameter.__mro__[2]

CaptureArgument = Annotated[
    Path, typer.Argument(metavar="CAPTURE", help="Directory that `gputap attach -o` wrote.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
OtlpOption = Annotated[
    str | None,
    typer.Option(
        "--otlp",
        metavar="URL",
        help="Send the steps as OTLP traces, e.g. http://localhost:4318. OTEL_* variables apply.",
    ),
]
BudgetSpansOption = Annotated[
    int,
    typer.Option(
        "--spans", metavar="N", min=1, help="Most spans per trace; the rest is rolled up."
    ),
]

TrustSeccompOption = Annotated[
    bool,
    typer.Option(
        "--trust-seccomp",
        help="Go ahead where the target's seccomp filter cannot be read; one that kills on"
        " memfd_create or clone3 would kill the target.",
    ),
]
ViaOption = Annotated[
    str,
    typer.Option(
        metavar="WAY",
        help="How to get in: auto, ptrace or remote-exec (CPython 3.14 and later, PEP 768).",
    ),
]


def talk() -> Console:
    """Console for people, on stderr."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def data_console(*, wide: bool = False) -> Console:
    """Console for what the command was asked for, on stdout. `wide` never wraps into a pipe."""
    from rich.console import Console

    width = 1_000_000 if wide and not sys.stdout.isatty() else None
    return Console(highlight=False, emoji=False, width=width)


def print_json(data: Any) -> None:
    """One JSON document on stdout."""
    import json

    sys.stdout.write(json.dumps(data, indent=2, ensure_ascii=False, default=str) + "\n")


def _version(show: bool) -> None:
    if show:
        from gputap import __version__

        sys.stdout.write(f"gputap {__version__}\n")
        raise typer.Exit


@app.callback()
def options(
    _show_version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Tap a running PyTorch process by PID; see what it does, and what holds it back."""


# ------------------------------------------------------------------------------------- attach


@app.command(epilog="Example: gputap attach 4242 --duration 10s -o capture")
def attach(
    pids: Annotated[
        list[int] | None, typer.Argument(metavar="PID", help="Processes to tap.")
    ] = None,
    duration: Annotated[
        str,
        typer.Option(
            "--duration", "-d", metavar="TIME", help="Length of the window, e.g. 10s, 2m."
        ),
    ] = "10s",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="The capture; default gputap-PID-TIME."),
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every PyTorch process here.")] = False,
    match: Annotated[
        str | None, typer.Option(metavar="REGEX", help="PyTorch processes whose command matches.")
    ] = None,
    level: Annotated[
        str,
        typer.Option(metavar="LEVEL", help="auto, host, framework or device: the highest to try."),
    ] = "auto",
    full: Annotated[
        bool, typer.Option("--full", help="Record every operator of every step.")
    ] = False,
    steps_only: Annotated[
        bool,
        typer.Option("--steps-only", help="Record user scopes only: steps, loader, optimizer."),
    ] = False,
    budget: Annotated[
        str,
        typer.Option(
            metavar="SHARE", help="Most of the target's time that recording may cost, e.g. 1%."
        ),
    ] = "1%",
    shapes: Annotated[
        bool, typer.Option("--shapes", help="Record input shapes and dtypes.")
    ] = False,
    stacks: Annotated[bool, typer.Option(help="Record module paths and Python stacks.")] = True,
    otlp: OtlpOption = None,
    spans: BudgetSpansOption = 2000,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit 4 if any event was dropped.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a capture at DIR.")
    ] = False,
    trust_seccomp: TrustSeccompOption = False,
    via: ViaOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Capture a window of a running process, then say what holds it back.

    The process is stopped for a fraction of a millisecond, once, and runs on as before. Without
    --full whole steps are recorded in bursts so that the whole window stays within the budget.
    """
    from gputap.injectors.library.client import WindowConfig
    from gputap.profiler.clock import parse_duration
    from gputap.profiler.schema import CaptureMode
    from gputap.profiler.session import Plan

    if full and steps_only:
        raise UsageError("--full and --steps-only exclude each other.")
    _check_level(level)
    mode = CaptureMode.FULL if full else CaptureMode.ALWAYS_ON if steps_only else CaptureMode.BURSTS
    window = WindowConfig(
        mode=mode, budget_ppm=_ppm(budget), want_stacks=stacks, want_shapes=shapes
    )
    targets, must = _targets(pids or [], all_=all_, match=match)
    plan = Plan(
        path=output or _default_path(targets),
        duration_ns=parse_duration(duration),
        mode=mode,
        overwrite=overwrite,
    )
    with _terminated_politely():
        outcome = _capture(
            targets,
            window,
            plan,
            must=must,
            entry=_entry(via, trust_seccomp),
            device=level != "framework",
        )
    code = _show(outcome.capture, as_json=as_json, otlp=otlp, spans=spans)
    if strict:
        _strict(outcome.capture)
    raise typer.Exit(outcome.exit_code or code)


@dataclass(frozen=True, slots=True)
class _Outcome:
    capture: Capture
    exit_code: int


def _check_level(level: str) -> None:
    if level not in ("auto", "host", "framework", "device"):
        raise UsageError(f"--level {level} is none of auto, host, framework, device.")
    if level == "host":
        raise UsageError(
            "This version has no level `host` yet.",
            hint="Leave --level out: auto takes the highest level that can be had.",
        )


def _entry(via: str, trust_seccomp: bool) -> Entry:
    from gputap.injectors.entry import WAYS, Entry

    for way in WAYS:
        if via == way:
            return Entry(way, trust_seccomp)
    raise UsageError(f"--via {via} is none of {', '.join(WAYS)}.")


def _ppm(budget: str) -> int:
    text = budget.strip()
    try:
        share = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        share = -1.0
    if not 0 < share <= 1:
        raise UsageError(f"--budget {budget} is no share: give e.g. 1% or 0.01.")
    return max(1, round(share * 1e6))


def _targets(pids: Sequence[int], *, all_: bool, match: str | None) -> tuple[list[int], bool]:
    """The pids to tap, and whether each of them must be had."""
    from gputap.profiler.discovery import find
    from gputap.profiler.errors import TargetNotFound

    if bool(pids) + all_ + (match is not None) != 1:
        raise UsageError("Give PIDs, or --all, or --match REGEX.", hint="`gputap ps` lists them.")
    if pids:
        return list(dict.fromkeys(pids)), True
    found = [target.pid for target in find(match=match)]
    if not found:
        raise TargetNotFound(
            "No PyTorch process was found" + (f" that matches {match!r}." if match else ".")
        )
    return found, False


def _default_path(pids: Sequence[int]) -> Path:
    import time

    return Path(f"gputap-{pids[0]}-{time.strftime('%Y%m%d-%H%M%S')}")


@contextmanager
def _terminated_politely() -> Iterator[None]:
    """SIGTERM and SIGHUP end the window like Ctrl-C: what was captured is kept."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = {s: signal.signal(s, interrupt) for s in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _capture(
    pids: Sequence[int],
    window: WindowConfig,
    plan: Plan,
    *,
    must: bool,
    entry: Entry | None = None,
    device: bool = True,
) -> _Outcome:
    """Attach to all, capture one window, let go."""
    from gputap.dashboards.terminal import progress
    from gputap.profiler import session
    from gputap.profiler.store import check_writable

    check_writable(plan.path, overwrite=plan.overwrite)
    taps, refusals = _attach_all(pids, window, entry, device=device)
    if not taps or (refusals and must and len(pids) == 1):
        raise refusals[0]
    console = talk()
    for refusal in refusals:
        console.print(f"gputap: {refusal}", style="yellow", markup=False)
    stop = _Stop()
    with stop, progress(console, duration_s=plan.duration_ns / 1e9) as bar:
        capture = session.run(
            taps,
            plan,
            progress=lambda p: bar.update(
                p.elapsed_s, events=p.events, dropped=p.dropped, steps=p.boundaries
            ),
            stop_asked=stop.asked,
        )
    return _Outcome(capture, TargetError.exit_code if refusals and must else 0)


def _attach_all(
    pids: Sequence[int], window: WindowConfig, entry: Entry | None, *, device: bool
) -> tuple[list[AgentTap], list[ProfilerError]]:
    """A tap per process that can be had, and why the others cannot."""
    from gputap.injectors.library.device import DeviceConfig
    from gputap.injectors.tap import AUTO, AgentTap

    config = DeviceConfig() if device else None
    taps: list[AgentTap] = []
    refusals: list[ProfilerError] = []
    try:
        for pid in pids:
            try:
                taps.append(AgentTap(pid, window, entry or AUTO, config))
            except ProfilerError as exc:
                refusals.append(exc)
    except BaseException:
        for tap in taps:
            tap.detach()
        raise
    return taps, refusals


class _Stop:
    """Ctrl-C, SIGTERM and SIGHUP end a window; a second one is an interrupt as usual."""

    _SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self) -> None:
        self._asked = False

    def asked(self) -> bool:
        return self._asked

    def __enter__(self) -> _Stop:
        self._before = {number: signal.signal(number, self._note) for number in self._SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, *_: object) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True


def _show(capture: Capture, *, as_json: bool, otlp: str | None, spans: int) -> int:
    """Report page, verdict or JSON, and spans if asked for. Returns the exit code."""
    from gputap.profiler.analysis.report import analyse

    report = analyse(capture)
    written, code = [capture.path], 0 if capture.manifest.state == "closed" else 1
    try:
        written.append(_write_page(capture, report, capture.path / "report.html"))
    except CaptureNotWritable as exc:  # the verdict can be had all the same
        complain(exc)
        code = exc.exit_code
    _print_report(report, capture, paths=written, as_json=as_json)
    if otlp is None and not _otlp_in_environment():
        return code
    try:
        _send(capture, otlp, spans)
    except ProfilerError as exc:
        complain(exc)
        code = exc.exit_code
    return code


def _otlp_in_environment() -> bool:
    names = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    return any(os.environ.get(name) for name in names)


def _write_page(capture: Capture, report: Report, path: Path) -> Path:
    from gputap.dashboards import html_report, timeline

    html_report.write(path, report, timeline.select(capture, report), notes=capture.notes)
    return path


def _print_report(
    report: Report, capture: Capture, *, paths: Sequence[Path], as_json: bool
) -> None:
    from gputap.dashboards import terminal
    from gputap.profiler.analysis.model import to_json

    console = talk()
    for note in capture.notes:
        console.print(f"gputap: {note}", style="yellow", markup=False)
    if as_json:
        print_json(to_json(report))
    else:
        terminal.verdict(report, data_console(), paths=[])
    for path in paths:
        console.print(f"wrote {path}", markup=False, soft_wrap=True)


def _send(capture: Capture, endpoint: str | None, spans: int) -> None:
    from gputap.exporters.otlp import export_otlp

    result = export_otlp(capture, endpoint=endpoint, budget=spans)
    talk().print(f"sent {result.spans:,} spans to {result.target}", markup=False, soft_wrap=True)


def _strict(capture: Capture) -> None:
    lost = {k: n for r in capture.manifest.ranks for k, n in r.dropped.items() if n}
    if lost:
        causes = ", ".join(f"{count:,} {cause}" for cause, count in sorted(lost.items()))
        raise LossyCapture(f"Events were dropped: {causes}.")


# ------------------------------------------------------------------------------- other verbs


@app.command(epilog="Example: gputap report capture --json")
def report(
    capture: CaptureArgument,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="The page; default CAPTURE/report.html."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Analyse a capture again: verdict on the terminal, page on disk."""
    from gputap.profiler.analysis.report import analyse
    from gputap.profiler.store import Capture

    opened = Capture.open(capture)
    analysed = analyse(opened)
    page = _write_page(opened, analysed, output or opened.path / "report.html")
    _print_report(analysed, opened, paths=[page], as_json=as_json)


@app.command(epilog='Example: gputap query capture "SELECT name, count(*) FROM events GROUP BY 1"')
def query(
    capture: CaptureArgument,
    sql: Annotated[
        str, typer.Argument(metavar="SQL", help="One SELECT over the capture's tables.")
    ],
    as_json: JsonOption = False,
) -> None:
    """Run DuckDB over a capture: tables events, stacks, steps, collectives, threads, samples."""
    from gputap.profiler.store import Capture

    rows = Capture.open(capture).query(sql)
    if as_json:
        print_json(rows.to_pylist())
        return
    from gputap.dashboards.processes import rows_table

    rows_table(rows, data_console(wide=True))


@app.command(epilog="Example: gputap export capture --to perfetto -o trace.perfetto-trace")
def export(
    capture: CaptureArgument,
    to: Annotated[str, typer.Option("--to", metavar="FORMAT", help="perfetto or otlp.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="File to write.")
    ] = None,
    otlp: OtlpOption = None,
    spans: BudgetSpansOption = 2000,
) -> None:
    """Write a capture in another form: Perfetto (opens in ui.perfetto.dev), or send it as OTLP."""
    from gputap.profiler.store import Capture

    opened = Capture.open(capture)
    _say_what_is_left_out(opened)
    if to == "otlp":
        _send(opened, otlp, spans)
    elif to == "perfetto":
        from gputap.exporters.perfetto import export_perfetto

        path = output or opened.path / "trace.perfetto-trace"
        result = export_perfetto(opened, path)
        talk().print(
            f"wrote {path}: {result.events:,} events; open it in https://ui.perfetto.dev",
            markup=False,
            soft_wrap=True,
        )
    else:
        raise UsageError(f"--to {to} is none of perfetto, otlp.")


def _say_what_is_left_out(capture: Capture) -> None:
    from gputap.profiler.capture import MOST_EVENTS

    for rank in capture.ranks:
        if capture.rows("events", rank.rank) > MOST_EVENTS:
            talk().print(
                f"gputap: of rank {rank.rank}'s {capture.rows('events', rank.rank):,} events only"
                f" the newest {MOST_EVENTS:,} are exported; `gputap query` sees all",
                style="yellow",
                markup=False,
                soft_wrap=True,
            )


@app.command(epilog="Example: gputap detach 4242")
def detach(
    pid: Annotated[int, typer.Argument(metavar="PID", help="Process to let go.")],
) -> None:
    """Let go of a process; cleans up what a killed gputap left. Fine if nothing is attached."""
    from gputap.injectors.tap import let_go

    talk().print(f"pid {pid}: {let_go(pid)}", markup=False)


@app.command(epilog="Example: gputap snapshot 4242 --record 5s -o memory.pickle")
def snapshot(
    pid: Annotated[int, typer.Argument(metavar="PID", help="Process to ask.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Default gputap-PID-TIME.memory.pickle."
        ),
    ] = None,
    record: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Record the allocator's history for so long first, with Python stacks; PyTorch"
            " gives 2 microseconds as the price of one.",
        ),
    ] = None,
    trust_seccomp: TrustSeccompOption = False,
    via: ViaOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Have torch write down every block of GPU memory, for PyTorch's memory viewer.

    Python in the process stands still while torch does so; how long that was is measured and said.
    """
    from dataclasses import asdict

    from gputap.dashboards.snapshot import snapshot_lines
    from gputap.injectors.snapshot import take_snapshot
    from gputap.profiler.clock import parse_duration

    path = output or Path(f"{_default_path([pid])}.memory.pickle")
    record_s = parse_duration(record) / 1e9 if record else 0.0
    with _terminated_politely():
        taken = take_snapshot(pid, path, record_s=record_s, entry=_entry(via, trust_seccomp))
    if as_json:
        print_json(asdict(taken))
        return
    for line in snapshot_lines(asdict(taken)):
        talk().print(line, markup=False, soft_wrap=True)
    sys.stdout.write(f"{taken.path}\n")


@app.command(epilog="Example: gputap ps --json")
def ps(as_json: JsonOption = False) -> None:
    """List the PyTorch processes that can be tapped, and at which level."""
    from gputap.dashboards.processes import process_table
    from gputap.profiler.discovery import scan, to_json

    found = scan()
    if as_json:
        print_json(to_json(found))
    else:
        process_table(found, data_console(wide=True))


@app.command(epilog="Example: gputap doctor 4242")
def doctor(
    pid: Annotated[int | None, typer.Argument(metavar="PID", help="Process to look at.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Say what is possible here, for a process if one is given, and the exact step to get more."""
    from gputap.dashboards.processes import diagnosis_page
    from gputap.injectors.built import expected
    from gputap.profiler.doctor import diagnose, to_json

    diagnosis = diagnose(pid, native=expected())
    if as_json:
        print_json(to_json(diagnosis))
    else:
        diagnosis_page(diagnosis, data_console())
    if pid is not None and diagnosis.level_obtainable is None:
        raise typer.Exit(TargetError.exit_code)


@app.command(epilog="Example: gputap demo")
def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Where to write the capture.")
    ] = Path("demo-capture"),
    duration: Annotated[
        str, typer.Option("--duration", "-d", metavar="TIME", help="Length of the window.")
    ] = "5s",
    python: Annotated[
        str, typer.Option(metavar="PROGRAM", help="Python with torch that runs the workload.")
    ] = sys.executable,
    device: Annotated[
        str,
        typer.Option(
            metavar="DEVICE",
            help="What it trains on: auto, cpu, cuda or simulated (in a checkout of gputap).",
        ),
    ] = "auto",
    as_json: JsonOption = False,
) -> None:
    """Start a small training job with a planted fault, attach to it, say what is wrong with it.

    Without a GPU a checkout of gputap trains on a simulated one, and says so everywhere.
    """
    from gputap.demo import choose, workload
    from gputap.injectors.library.client import WindowConfig
    from gputap.profiler.clock import parse_duration
    from gputap.profiler.session import Plan

    console = talk()
    chosen = choose(device, python, lambda words: console.print(words, markup=False))
    with workload(python, chosen) as pid:
        console.print(
            f"a training job runs as pid {pid} on {chosen.words}; attaching to it", markup=False
        )
        plan = Plan(
            path=output, duration_ns=parse_duration(duration), source="demo", overwrite=True
        )
        outcome = _capture([pid], WindowConfig(), plan, must=True)
    raise typer.Exit(_show(outcome.capture, as_json=as_json, otlp=None, spans=2000))


# --------------------------------------------------------------------------------------- main


def complain(error: ProfilerError) -> None:
    """What failed, why, and what to do next, on stderr."""
    sys.stderr.write(f"gputap: {error.message}\n")
    if error.hint:
        sys.stderr.write(f"  {error.hint}\n")


class _NoPandas:
    """Where pandas is installed, pyarrow imports it at its first array: 0.3 s and 40 MB in vain."""

    def find_spec(self, name: str, *_: object) -> None:
        """Says that there is no pandas."""
        if name == "pandas":
            raise ModuleNotFoundError("gputap does without pandas", name=name)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code. Never shows a traceback."""
    sys.meta_path.insert(0, _NoPandas())
    sys.exit(_run(sys.argv[1:] if arguments is None else list(arguments)))


def _run(arguments: list[str]) -> int:
    try:
        code = app(arguments, prog_name="gputap", standalone_mode=False)
        sys.stdout.flush()
    except ProfilerError as exc:
        complain(exc)
        return exc.exit_code
    except _BadCommandLine as exc:
        exc.show()
        return UsageError.exit_code
    except (KeyboardInterrupt, typer.Abort):
        sys.stderr.write("gputap: interrupted\n")
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except Exception as exc:
        return _internal(exc)
    return code if isinstance(code, int) else 0


def _internal(exc: Exception) -> int:
    """A defect of ours: one line, and the traceback in a file for the report of it."""
    import tempfile
    import traceback

    with tempfile.NamedTemporaryFile(
        "w", prefix="gputap-error-", suffix=".txt", delete=False
    ) as file:
        traceback.print_exc(file=file)
    sys.stderr.write(f"gputap: internal error: {type(exc).__name__}: {exc}\n")
    sys.stderr.write(f"  Please report it with {file.name}. A tapped process is unharmed.\n")
    return 1


if __name__ == "__main__":
    main()
