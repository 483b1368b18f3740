"""One capture of one or several targets: open the windows together, drain, close, write.

A session is given taps (whatever way they came in) and hands back the capture it wrote. Whatever
happens in between (target ends, disk full, Ctrl-C), every tap is let go and what was captured is
kept and readable.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from gputap.profiler.clock import unix_offset_ns
from gputap.profiler.errors import CaptureNotWritable, ProfilerError
from gputap.profiler.schema import CaptureMode
from gputap.profiler.store import Capture, CaptureWriter
from gputap.profiler.tapped import Tap, Tapped

POLL_S: Final = 0.02
"""A ring of 131,072 records fills in 40 ms at three million events a second."""

PROGRESS_S: Final = 0.2

LATE_S: Final = 2.0
"""How long after its end a window may take to report itself closed."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a capture has come."""

    elapsed_s: float
    events: int
    dropped: int
    boundaries: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What to capture and where to write it."""

    path: Path
    duration_ns: int
    mode: CaptureMode = CaptureMode.BURSTS
    job: str = ""
    source: str = "attach"
    overwrite: bool = False


def run(
    taps: Sequence[Tap],
    plan: Plan,
    *,
    progress: Callable[[Progress], None] = lambda _: None,
    stop_asked: Callable[[], bool] = lambda: False,
) -> Capture:
    """Capture one window of all `taps` into `plan.path` and let them go.

    Raises CaptureNotWritable if nothing could be written; a disk that fills up later ends the
    window early and the capture says so. `stop_asked` ends the window early without an error.
    """
    try:
        _together(taps, lambda tap: tap.prepare())
        job = plan.job or _job(taps)
        simulated = any(tap.description.get("simulated") for tap in taps)
        with _writer(plan, job, simulated) as writer:
            tapped = _tapped(taps, plan, writer)
            try:
                for one in tapped:
                    one.open(plan.duration_ns)
                _drain(tapped, plan, progress, stop_asked, writer)
            finally:
                for one in tapped:
                    one.close()
            for one in tapped:
                writer.set_rank(one.finish())
            _derive(writer)
        return Capture.open(plan.path)
    finally:
        for tap in taps:
            with suppress(ProfilerError, OSError):
                tap.detach()


@contextmanager
def _writer(plan: Plan, job: str, simulated: bool) -> Iterator[CaptureWriter]:
    """The capture being written; a disk that fills up ends it early, not badly."""
    writer = CaptureWriter(
        plan.path,
        job=job,
        source=plan.source,
        simulated=simulated,
        overwrite=plan.overwrite,
    )
    try:
        yield writer
    except CaptureNotWritable:
        if not writer.manifest.parts:
            raise
    except BaseException as exc:
        with suppress(CaptureNotWritable):
            writer.close(truncated=str(exc) or type(exc).__name__)
        raise
    writer.close()


def _together(taps: Sequence[Tap], action: Callable[[Tap], None]) -> None:
    """Do something to all targets at once; the first failure is raised when all are done."""
    with ThreadPoolExecutor(max_workers=min(32, len(taps))) as pool:
        for future in [pool.submit(action, tap) for tap in taps]:
            future.result()


def _job(taps: Sequence[Tap]) -> str:
    named = next((str(t.description["job"]) for t in taps if t.description.get("job")), "")
    # A process without a job's name is a job of its own at each capture: traces must not mix.
    return named or f"pid-{taps[0].pid}-{time.strftime('%Y%m%dT%H%M%S')}"


def ranks_of(descriptions: Sequence[Mapping[str, Any]]) -> list[int]:
    """A rank for each target: its own where all differ, else the order given."""
    own = [d.get("rank") for d in descriptions]
    if all(isinstance(r, int) and r >= 0 for r in own) and len(set(own)) == len(own):
        return [int(r) for r in own if r is not None]
    return list(range(len(own)))


def _tapped(taps: Sequence[Tap], plan: Plan, writer: CaptureWriter) -> list[Tapped]:
    # One offset for all ranks of this host, so that their order in time is exact.
    offset_ns = unix_offset_ns()
    ranks = ranks_of([tap.description for tap in taps])
    found = []
    for tap, rank in zip(taps, ranks, strict=True):
        write = partial(writer.write, rank=rank)
        found.append(Tapped(tap, rank, write, mode=plan.mode.name.lower(), offset_ns=offset_ns))
        writer.set_rank(found[-1].manifest)
    return found


def _drain(
    tapped: Sequence[Tapped],
    plan: Plan,
    progress: Callable[[Progress], None],
    stop_asked: Callable[[], bool],
    writer: CaptureWriter,
) -> None:
    began = time.monotonic()
    until = began + plan.duration_ns / 1e9 if plan.duration_ns else float("inf")
    said = 0.0
    while not stop_asked() and not writer.failure:
        now = time.monotonic()
        for one in tapped:
            one.poll()
        if now - said >= PROGRESS_S:
            said = now
            progress(_progress(tapped, now - began))
        if all(one.over for one in tapped) or now >= until + LATE_S:
            break
        time.sleep(POLL_S)
    progress(_progress(tapped, time.monotonic() - began))


def _progress(tapped: Sequence[Tapped], elapsed_s: float) -> Progress:
    return Progress(
        elapsed_s,
        events=sum(one.events for one in tapped),
        dropped=sum(sum(one.dropped.values()) for one in tapped),
        boundaries=sum(one.boundaries for one in tapped),
    )


def _derive(writer: CaptureWriter) -> None:
    """Write the small tables that are computed from the events: steps and collectives."""
    from gputap.profiler.analysis.report import derived_tables

    capture = Capture.open(writer.path)
    for rank in capture.ranks:
        for table, rows in derived_tables(capture, rank).items():
            writer.write(table, rows, rank=rank.rank)
