"""One capture of one or several targets: open the windows together, drain, close, write.

A session is given taps (whatever way they came in) and hands back the capture it wrote. Whatever
happens in between (target ends, disk full, Ctrl-C), every tap is let go and what was captured is
kept and readable.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from gputap.profiler.clock import SessionClock, unix_offset_ns
from gputap.profiler.errors import CaptureNotWritable, ProfilerError, TargetGone
from gputap.profiler.frames import StackNames
from gputap.profiler.ingest import Ingest
from gputap.profiler.manifest import (
    ClockManifest,
    DeviceManifest,
    Manifest,
    MemoryManifest,
    RankManifest,
)
from gputap.profiler.schema import CaptureMode, ClockKind, DropCause, StopReason
from gputap.profiler.store import Capture, CaptureWriter

if TYPE_CHECKING:
    from gputap.profiler.agent_memory import AgentMemory
    from gputap.profiler.device_ingest import DeviceIngest
    from gputap.profiler.memory_samples import MemoryIngest

POLL_S: Final = 0.02
"""A ring of 131,072 records fills in 40 ms at three million events a second."""

PROGRESS_S: Final = 0.2

_CUT: Final = (DropCause.OPEN_AT_CLOSE, DropCause.LATE_END)
"""Events that the window's end cut; a late end is the same event again."""

LATE_S: Final = 2.0
"""How long after its end a window may take to report itself closed."""


class Tap(Protocol):
    """One attached target."""

    pid: int
    pause_ns: int
    level: str
    reasons: tuple[str, ...]
    """Why the level is not higher, and what of it is missing."""
    description: dict[str, Any]
    """What the target told of itself, and what was read from outside."""
    memory: AgentMemory

    def prepare(self) -> None:
        """Everything before the window: describe, choose layouts, self-test."""

    def start(self, window_ns: int) -> None:
        """Open the window; it closes by itself after `window_ns`."""

    def stop(self) -> None:
        """Close the window."""

    def modules(self, addresses: Sequence[int]) -> Mapping[int, tuple[str, str]]:
        """Qualified name and class of the nn.Modules at these addresses; unknown ones absent."""

    wants_device: bool
    """GPU times are asked for."""

    wants_memory: bool
    """There is a device whose memory torch may have: its allocator's statistics are asked for."""

    def device_settled(self) -> str:
        """Wait for the GPU's last records; why there are none, or not all. Empty: all is well."""

    def after(self) -> dict[str, Any]:
        """What the target can tell once the window is closed: counters, flight recorder."""

    def host_tids(self) -> Mapping[int, int]:
        """Thread ids of the target to ours."""

    def detach(self) -> None:
        """Let go. Idempotent, and fine with a target that has ended."""


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


@dataclass(slots=True)
class _Tapped:
    """One tap within a session."""

    tap: Tap
    ingest: Ingest
    names: StackNames
    manifest: RankManifest
    device: DeviceIngest | None = None
    allocator: MemoryIngest | None = None
    before: dict[str, int] = field(default_factory=dict)
    """Counters when the window opened: the self-test's events are not the capture's."""
    started: bool = False
    gone: str = ""
    after: dict[str, Any] = field(default_factory=dict)


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
                _open(tapped, plan)
                _drain(tapped, plan, progress, stop_asked, writer)
            finally:
                _close(tapped)
            _finish(tapped, writer)
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


def _tapped(taps: Sequence[Tap], plan: Plan, writer: CaptureWriter) -> list[_Tapped]:
    # One offset for all ranks of this host, so that their order in time is exact.
    offset = unix_offset_ns()
    ranks = ranks_of([tap.description for tap in taps])
    return [_one(tap, rank, plan, writer, offset) for tap, rank in zip(taps, ranks, strict=True)]


def _one(tap: Tap, rank: int, plan: Plan, writer: CaptureWriter, offset: int) -> _Tapped:
    description = tap.description
    manifest = RankManifest(
        rank=rank,
        host=str(description.get("host") or socket.gethostname()),
        pid=tap.pid,
        world_size=description.get("world_size"),
        local_rank=description.get("local_rank"),
        level=tap.level,
        level_reasons=tap.reasons,
        target=description,
        mode=plan.mode.name.lower(),
        pause_ns=tap.pause_ns,
    )
    writer.set_rank(manifest)
    names = StackNames(tap.memory, tap.modules)
    ingest = Ingest(
        tap.memory,
        lambda table, rows: writer.write(table, rows, rank=rank),
        clock=SessionClock(offset_ns=_offset(tap.memory, offset)),
        modules_of=names.modules_of,
        host_tids=tap.host_tids(),
    )
    return _Tapped(
        tap,
        ingest,
        names,
        manifest,
        device=_device(tap, ingest, writer, rank),
        allocator=_allocator(tap, ingest, writer, rank),
    )


def _allocator(tap: Tap, ingest: Ingest, writer: CaptureWriter, rank: int) -> MemoryIngest | None:
    if not tap.wants_memory:
        return None
    from gputap.profiler.memory_samples import MemoryIngest

    return MemoryIngest(
        tap.memory,
        lambda table, rows: writer.write(table, rows, rank=rank),
        clock=ingest.clock_now,
    )


def _device(tap: Tap, ingest: Ingest, writer: CaptureWriter, rank: int) -> DeviceIngest | None:
    if not tap.wants_device:
        return None
    # The decoder is loaded only where there is something to decode.
    from gputap.profiler.device_ingest import DeviceIngest
    from gputap.profiler.device_memory import DeviceMemory

    return DeviceIngest(
        DeviceMemory(tap.memory),
        lambda table, rows: writer.write(table, rows, rank=rank),
        strings=ingest.strings,
        clock=ingest.clock_now,
        host_tids=tap.host_tids(),
    )


def _offset(memory: AgentMemory, ours: int) -> int | None:
    """Our offset, unless the target's CLOCK_MONOTONIC is another one (a time namespace)."""
    samples, _ = memory.clock_samples(0)
    if not len(samples):
        return ours
    theirs = int(samples["unix_ns"][-1]) - int(samples["mono_ns"][-1])
    return ours if abs(theirs - ours) < 1_000_000_000 else None


# --------------------------------------------------------------------------------- the window


def _open(tapped: Sequence[_Tapped], plan: Plan) -> None:
    for one in tapped:
        try:
            one.before = _counters(one.tap.memory)
            one.tap.start(plan.duration_ns)
            one.started = True
            if one.device:
                one.device.window_start_ticks = one.tap.memory.get("window_start_ticks")
        except TargetGone as exc:
            one.gone = exc.message


def _counters(memory: AgentMemory) -> dict[str, int]:
    """The agent's counters, which run on from window to window."""
    names = ("armed_events", "boundaries", "bursts", "recorded_ticks", "user_ticks")
    counters = {name: memory.get(name) for name in names}
    return counters | {cause.name: count for cause, count in memory.dropped().items()}


def _since(one: _Tapped, name: str) -> int:
    """How far a counter has come since the window opened."""
    now = _counters(one.tap.memory)[name]
    return now - one.before.get(name, 0)


def _dropped(one: _Tapped) -> dict[str, int]:
    causes = [cause for cause in DropCause if cause not in _CUT]
    lost = {cause.name.lower(): _since(one, cause.name) for cause in causes}
    return {cause: count for cause, count in lost.items() if count > 0}


def _drain(
    tapped: Sequence[_Tapped],
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
            one.ingest.poll()
            if one.device:
                one.device.poll()
            if one.allocator:
                one.allocator.poll()
            one.gone = one.gone or _gone(one.tap)
        if now - said >= PROGRESS_S:
            said = now
            progress(_progress(tapped, now - began))
        if all(one.gone or _closed(one.tap) for one in tapped) or now >= until + LATE_S:
            break
        time.sleep(POLL_S)
    progress(_progress(tapped, time.monotonic() - began))


def _gone(tap: Tap) -> str:
    try:
        tap.memory.get("state")
        return "" if Path(f"/proc/{tap.pid}/task").exists() and not _zombie(tap.pid) else "ended"
    except ProfilerError as exc:
        return exc.message


def _zombie(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] in "ZX"


def _closed(tap: Tap) -> bool:
    return tap.memory.get("window_end_ticks") != 0


def _progress(tapped: Sequence[_Tapped], elapsed_s: float) -> Progress:
    return Progress(
        elapsed_s,
        events=sum(one.ingest.events for one in tapped),
        dropped=sum(sum(_dropped(one).values()) for one in tapped),
        boundaries=sum(_since(one, "boundaries") for one in tapped),
    )


def _close(tapped: Sequence[_Tapped]) -> None:
    for one in tapped:
        if one.started and not one.gone:
            try:
                one.tap.stop()
            except ProfilerError as exc:
                one.gone = exc.message


# --------------------------------------------------------------------------------- afterwards


def _finish(tapped: Sequence[_Tapped], writer: CaptureWriter) -> None:
    """Write what is left of every rank, learn the last from the targets, let them go."""
    for one in tapped:
        reason = _finish_device(one)
        if one.allocator:
            one.allocator.finish()
        if not one.gone:
            one.after = one.tap.after()
        tids = one.tap.host_tids()
        threads = one.tap.description.get("threads") or ()
        one.ingest.finish(
            main_tid=one.tap.pid,
            thread_names={tids.get(t["tid"], t["tid"]): t["name"] for t in threads},
        )
        writer.write("stacks", one.names.table(), rank=one.manifest.rank)
        writer.set_rank(_manifest(one, reason))
        with suppress(ProfilerError, OSError):
            one.tap.detach()


def _finish_device(one: _Tapped) -> str:
    """Take the GPU's last records. Why there are none, or not all; empty: all is well."""
    if not one.device:
        return ""
    reason = ""
    try:
        reason = one.tap.device_settled()
    except ProfilerError as exc:
        one.gone = one.gone or exc.message
    one.device.finish()
    return reason


def _manifest(one: _Tapped, device_reason: str) -> RankManifest:
    memory, clock = one.tap.memory, one.ingest.clock.clock()
    start, end = memory.get("window_start_ticks"), memory.get("window_end_ticks")
    edges = [_unix(one, ticks) for ticks in (start, end)]
    reasons = (*one.tap.reasons, *([device_reason] if device_reason else []))
    if one.allocator and one.allocator.failure:
        reasons = (*reasons, f"torch's allocator did not tell: {one.allocator.failure}")
    if one.gone:
        reasons = (*reasons, f"the target went before the window's end: {one.gone}")
    recorded = _span(one, _since(one, "recorded_ticks"))
    return replace(
        one.manifest,
        level="device" if one.device and one.device.rows else one.manifest.level,
        level_reasons=reasons,
        target={**one.tap.description, **one.after},
        clock=ClockManifest(
            offset_ns=clock.offset_ns,
            error_ns=clock.error_ns,
            samples=clock.samples,
            kind=ClockKind(memory.get("clock_kind")).name.lower(),
            drift_ns=clock.drift_ns,
        ),
        window_start_ns=edges[0],
        window_end_ns=edges[1],
        recorded_ns=recorded,
        scopes_seen_ns=_span(one, _since(one, "user_ticks")),
        events=one.ingest.events,
        armed_events=_since(one, "armed_events"),
        boundaries=_since(one, "boundaries"),
        bursts=_since(one, "bursts"),
        dropped=_dropped(one),
        cut=_since(one, DropCause.OPEN_AT_CLOSE.name),
        device=_device_manifest(one),
        memory=_memory_manifest(one),
        stop_reason=_stop_reason(memory.get("stop_reason")),
    )


def _device_manifest(one: _Tapped) -> DeviceManifest | None:
    device, memory = one.device, one.tap.memory
    if not device or not memory.get("device_version"):
        return None
    version = memory.get("device_version")
    return DeviceManifest(
        cuda=f"{version // 100}.{version % 100}",
        cupti=memory.get("device_api_version"),
        devices={str(number): name for number, name in sorted(device.devices.items())},
        rows=device.rows,
        calls=device.calls,
        clock_error_ns=device.error_ns,
        clock_steps=device.clock_steps,
        yields=memory.get("device_yields"),
        left_out={cause: count for cause, count in device.lost.items() if count},
    )


def _memory_manifest(one: _Tapped) -> MemoryManifest | None:
    allocator = one.allocator
    if not allocator:
        return None
    return MemoryManifest(
        readings=allocator.readings,
        cost_ns=_span(one, allocator.cost_ticks),
        missed=allocator.missed,
        nonsense=allocator.nonsense,
        failure=allocator.failure,
    )


def _unix(one: _Tapped, ticks: int) -> int | None:
    import numpy as np

    if not ticks:
        return None
    return int(one.ingest.clock.clock().to_unix_ns(np.array([ticks], np.int64))[0])


def _span(one: _Tapped, ticks: int) -> int:
    """Length in ns of so many ticks."""
    start = one.tap.memory.get("window_start_ticks")
    first, last = _unix(one, start), _unix(one, start + ticks)
    return last - first if first is not None and last is not None else 0


def _stop_reason(number: int) -> str:
    try:
        return StopReason(number).name.lower()
    except ValueError:
        return StopReason.INTERNAL.name.lower()


def _derive(writer: CaptureWriter) -> None:
    """Write the small tables that are computed from the events: steps and collectives."""
    from gputap.profiler.analysis.report import derived_tables

    capture = Capture.open(writer.path)
    for rank in capture.ranks:
        for table, rows in derived_tables(capture, rank).items():
            writer.write(table, rows, rank=rank.rank)


__all__ = ["Manifest", "Plan", "Progress", "Tap", "ranks_of", "run"]
