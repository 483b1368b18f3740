"""Writes a capture as a native Perfetto trace: TrackEvent protobuf for ui.perfetto.dev.

A process per rank with its threads, tracks for steps and collectives, and one per GPU stream. On
each track events nest; those that overlap without nesting go on lanes of their own. Field numbers
are those of perfetto_trace.proto; tests parse the file with the `perfetto` package's classes.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, cast

import numpy as np

import gputap
from gputap.exporters import protobuf as pb
from gputap.exporters.flows import forward_backward
from gputap.exporters.nesting import Ints, lanes, nest
from gputap.exporters.perfetto_counters import draw_memory
from gputap.exporters.perfetto_encode import Annotation, Slices, Track
from gputap.exporters.perfetto_gpu import Gpus, with_calls
from gputap.exporters.perfetto_writer import Writer
from gputap.exporters.source import NULL, CaptureSource, Columns, Text, WithSteps, read
from gputap.exporters.span_tree import RECORDED_ONLY, STEP_COLUMNS
from gputap.profiler.errors import ExportError
from gputap.profiler.files import whole_file
from gputap.profiler.schema import EventFlag

if TYPE_CHECKING:
    from gputap.profiler.manifest import RankManifest

_EVENTS: Final = (
    "start_ns", "duration_ns", "tid", "depth", "kind", "name", "seq", "fwd_tid", "module",
    "module_class", "shapes", "flags",
)  # fmt: skip
_COLLECTIVES: Final = (
    "start_ns", "duration_ns", "tid", "op", "backend", "group_name", "seq", "bytes",
    "timing_source",
)  # fmt: skip
_STEP_FIGURES: Final = tuple(n for n in STEP_COLUMNS if n.endswith("_ns") and n != "start_ns")

_REALTIME: Final = 1
_BOOTTIME: Final = 6


@dataclass(frozen=True, slots=True)
class PerfettoResult:
    """What was written."""

    path: str
    slices: int
    """On all tracks: events, CUDA calls, steps, collectives, the GPUs' work."""
    events: int
    """Recorded events among them."""
    lanes: int
    """Extra tracks for events that overlap without nesting."""
    flows: int
    """Arrows from a forward operator to its autograd node, and from a CUDA call to its work."""
    counters: int
    """Values on counter tracks."""
    bytes: int


def export_perfetto(
    capture: CaptureSource, path: str | os.PathLike[str], *, rank: int | None = None
) -> PerfettoResult:
    """Write the capture, or one of its ranks, to `path`; compressed if it ends in `.gz`.

    The file appears whole or not at all. Raises ExportError if it cannot be written.
    """
    target = Path(path)
    ranks = [r for r in capture.ranks if rank in (None, r.rank)]
    if not ranks:
        raise ExportError(
            f"The capture has no rank {rank}.", hint="`gputap report` lists the ranks."
        )
    try:
        with whole_file(target) as raw:
            writer = _write(capture, ranks, raw, compressed=target.suffix == ".gz")
            size = raw.tell()
    except OSError as exc:
        raise ExportError(
            f"The trace cannot be written to {target}: {exc.strerror or exc}.",
            hint="Give another path; the capture itself is unharmed.",
        ) from exc
    return PerfettoResult(
        str(target),
        writer.slices,
        writer.events,
        writer.lanes,
        writer.flows,
        writer.counters,
        size,
    )


def _write(
    capture: CaptureSource, ranks: list[RankManifest], raw: IO[bytes], *, compressed: bool
) -> Writer:
    if not compressed:
        return _write_plain(capture, ranks, raw)
    with gzip.GzipFile("", "wb", 1, raw, mtime=0) as packed:
        return _write_plain(capture, ranks, cast("IO[bytes]", packed))


def _write_plain(capture: CaptureSource, ranks: list[RankManifest], file: IO[bytes]) -> Writer:
    writer = Writer(file)
    capture = WithSteps(capture)
    file.write(_clock_snapshot(capture.manifest.created_ns))
    for one in ranks:
        _write_rank(writer, capture, one)
    return writer


def _clock_snapshot(now_ns: int) -> bytes:
    """Says that the trace's time is unix time.

    Perfetto's own clock is BOOTTIME, which differs from host to host; ranks of several hosts share
    only unix time. So the trace's BOOTTIME is unix time, for every version of the UI.
    """
    clocks = [
        pb.data(1, pb.uint(1, clock) + pb.uint(2, now_ns)) for clock in (_BOOTTIME, _REALTIME)
    ]
    return pb.data(1, pb.uint(8, now_ns) + pb.uint(10, 1) + pb.data(6, b"".join(clocks)))


def _write_rank(writer: Writer, capture: CaptureSource, rank: RankManifest) -> None:
    process = writer.track()
    pid = writer.own_id(rank.pid)
    name = f"rank {rank.rank} {rank.host} {rank.pid or ''}".strip()
    labels = [f"level: {rank.level}", f"gputap {gputap.__version__}"]
    if capture.manifest.simulated:
        labels.append("simulated device")
    descriptor = pb.uint(1, pid) + pb.text(6, name) + b"".join(pb.text(8, x) for x in labels)
    order = pb.uint(11, 3)  # children in the order of sibling_order_rank
    writer.describe(pb.uint(1, process.uuid) + pb.text(2, name) + pb.data(3, descriptor) + order)
    _draw_steps(writer, capture, rank, process)
    gpus = Gpus(capture, rank)
    _draw_threads(writer, capture, rank, process, pid, gpus)
    gpus.draw(writer, process)
    draw_memory(writer, capture, rank, process)
    writer.flows += gpus.flows
    _draw_collectives(writer, capture, rank, process)


def _draw_steps(writer: Writer, capture: CaptureSource, rank: RankManifest, process: Track) -> None:
    steps = read(capture, "steps", STEP_COLUMNS, rank.rank)
    if not len(steps):
        return
    recorded = steps.ints["recorded"] == 1
    figures = []
    for name in _STEP_FIGURES:
        known = recorded | (name not in RECORDED_ONLY)
        figures.append(Annotation(name, ints=np.where(known, steps.ints[name], NULL)))
    names = tuple(f"step {number}" for number in steps.ints["step"].tolist())
    slices = Slices(
        steps.start_ns, steps.end_ns, np.zeros(len(steps), np.int64),
        Text(np.arange(len(steps)), names), "step",
        (*figures, Annotation("recorded", text=Text(recorded.astype(np.int64), ("no", "yes")))),
    )  # fmt: skip
    writer.draw_on_lanes(process, "steps", 0, slices)


def _draw_collectives(
    writer: Writer, capture: CaptureSource, rank: RankManifest, process: Track
) -> None:
    table = read(capture, "collectives", _COLLECTIVES, rank.rank)
    if not len(table):
        return
    annotations = [Annotation(name, ints=table.ints[name]) for name in ("seq", "bytes")]
    annotations += [
        Annotation(name, text=table.texts[name])
        for name in ("group_name", "backend", "timing_source")
    ]
    slices = Slices(
        table.start_ns, table.end_ns, np.zeros(len(table), np.int64), table.texts["op"],
        "collective", tuple(annotations),
    )  # fmt: skip
    writer.draw_on_lanes(process, "collectives", 1, slices)


def _draw_threads(
    writer: Writer,
    capture: CaptureSource,
    rank: RankManifest,
    process: Track,
    pid: int,
    gpus: Gpus,
) -> None:
    events = read(capture, "events", _EVENTS, rank.rank)
    writer.events += len(events)
    outgoing, incoming = forward_backward(events, rank.rank)
    writer.flows += int((outgoing != 0).sum())
    events = with_calls(events, gpus.calls)
    outgoing = np.concatenate([outgoing, gpus.calls_out])
    incoming = np.concatenate([incoming, np.zeros(len(gpus.calls), np.int64)])
    names = _thread_names(capture, rank)
    tids = events.ints["tid"]
    order = np.argsort(tids, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(tids[order])) + 1) if len(events) else []
    for place, rows in enumerate(sorted(members, key=lambda r: (tids[r[0]] != rank.pid, r[0]))):
        tid = int(tids[rows[0]])
        name = names.get(tid) or ("main" if tid == rank.pid else "thread")
        thread = _thread(writer, process, pid, tid, name, place, is_main=tid == rank.pid)
        for number, slices in enumerate(_nested(events, rows, outgoing, incoming)):
            track = thread
            if number:
                track = writer.child(process, f"{name} {tid} (overlap {number})", place + 2)
                writer.lanes += 1
            writer.draw(track, slices)


def _thread(
    writer: Writer, process: Track, pid: int, tid: int, name: str, place: int, *, is_main: bool
) -> Track:
    track = writer.track()
    # The main thread's id is the process's; it is taken already, by that process.
    own = pid if is_main else writer.own_id(tid)
    title = name if own == tid else f"{name} (tid {tid})"
    thread = pb.uint(1, pid) + pb.uint(2, own) + pb.text(5, title)
    writer.describe(
        pb.uint(1, track.uuid) + pb.uint(5, process.uuid) + pb.data(4, thread)
        + pb.uint(12, place + 2)
    )  # fmt: skip
    return track


def _thread_names(capture: CaptureSource, rank: RankManifest) -> dict[int, str]:
    table = capture.table("threads", columns=["tid", "name"], rank=rank.rank)
    return {row["tid"]: row["name"] for row in table.to_pylist() if row["name"]}


def _nested(events: Columns, rows: Ints, outgoing: Ints, incoming: Ints) -> Iterator[Slices]:
    """The slices of one thread: first those that nest, then lanes of those that do not."""
    asynchronous = events.ints["flags"][rows] & EventFlag.ASYNC_END != 0
    on_thread = rows[~asynchronous]
    start, end = events.start_ns, events.end_ns
    found = nest(start[on_thread], end[on_thread], events.ints["depth"][on_thread])
    everything = Slices(
        start, end, np.zeros(len(events), np.int64), events.texts["name"],
        events.texts["kind"],
        tuple(Annotation(n, text=events.texts[n]) for n in ("module", "module_class", "shapes")),
        outgoing, incoming,
    )  # fmt: skip
    yield everything.take(on_thread[found.order], found.depth, found.size)
    apart = np.concatenate([on_thread[found.strays], rows[asynchronous]])
    apart = apart[np.argsort(start[apart], kind="stable")]
    lane = lanes(start[apart], end[apart])
    for number in range(int(lane.max()) + 1 if len(lane) else 0):
        members = apart[lane == number]
        yield everything.take(members, np.zeros(len(members), np.int64))
