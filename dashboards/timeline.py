"""What the report page draws on its timeline: the chosen steps, at most a few thousand bars each.

Selection and merging are numpy over the step's events; only the bars that are shown become
objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from gputap.dashboards import text
from gputap.profiler.analysis.model import Report, Step
from gputap.profiler.capture import MOST_EVENTS
from gputap.profiler.schema import EventFlag

if TYPE_CHECKING:
    import pyarrow as pa

BARS: Final = 3_000
"""Bars per step. A browser draws so many at once and still zooms smoothly."""
THREADS: Final = 12
DEPTHS: Final = 24
IN_FLIGHT: Final = 1_000
"""Longest events that end on another thread, per thread."""
SLICE_NS: Final = 100_000_000
"""Drawn from the first event on where no whole step was recorded."""
MERGED: Final = "merged"
ASYNC: Final = "in flight"

_COLUMNS: Final = (
    "start_ns",
    "duration_ns",
    "tid",
    "depth",
    "kind",
    "name",
    "module",
    "module_class",
    "stack_id",
    "flags",
)
_LIBRARY_MARKS: Final = ("/site-packages/", "/dist-packages/", "<frozen", "/lib/python")

_Ints = npt.NDArray[np.int64]
_Mask = npt.NDArray[np.bool_]


class Tables(Protocol):
    """What is needed of a capture; `gputap.profiler.store.Capture` is one."""

    def table(
        self,
        name: str,
        columns: Sequence[str] | None = None,
        rank: int | None = None,
        *,
        last_rows: int | None = None,
    ) -> pa.Table:
        """A table of the capture, of one rank, or only its newest rows."""


@dataclass(frozen=True, slots=True)
class Track:
    """One thread: `lanes` rows from `first_lane` down, one per nesting depth."""

    tid: int
    name: str
    first_lane: int
    lanes: int


@dataclass(frozen=True, slots=True)
class Bar:
    """One event, or `events` short neighbours merged into one bar of kind `merged`."""

    start_ns: int
    """From the start of the step."""
    duration_ns: int
    lane: int
    kind: str
    name: str
    module: str | None
    module_class: str | None
    source: str | None
    """`file:line function`: the innermost frame outside of installed libraries."""
    events: int


@dataclass(frozen=True, slots=True)
class TimelineStep:
    """One drawn step of one rank. `step` None: no step but a slice of the window."""

    rank: int
    step: int | None
    why: str
    start_ns: int
    duration_ns: int
    tracks: tuple[Track, ...]
    bars: tuple[Bar, ...]
    events: int
    """Events that overlap the step."""
    merged_events: int
    """Of these, how many are in merged bars."""
    hidden_events: int
    """Of these, how many are not drawn: on further threads, or nested too deep."""


@dataclass(frozen=True, slots=True)
class _Window:
    rank: int
    step: int | None
    why: str
    start_ns: int
    duration_ns: int


@dataclass(frozen=True, slots=True)
class _Events:
    """Columns of the events that overlap a window, dictionaries as codes; `rows` for the rest."""

    start: _Ints
    end: _Ints
    tid: _Ints
    depth: _Ints
    in_flight: _Mask
    rows: pa.Table


@dataclass(frozen=True, slots=True)
class _Threads:
    names: dict[int, str]
    main: frozenset[int]


def select(capture: Tables, report: Report, *, limit: int = BARS) -> tuple[TimelineStep, ...]:
    """The median and the slowest recorded step of `report`, with bars from `capture`.

    Reads the events of one rank at a time. Without recorded steps: a slice of the first rank
    that has events.
    """
    windows = choose(report)
    if not windows:
        return _first_slice(capture, report, limit)
    drawn = []
    for rank in sorted({window.rank for window in windows}):
        events = capture.table("events", columns=_COLUMNS, rank=rank, last_rows=MOST_EVENTS)
        threads = _threads(capture, rank)
        drawn += [
            (windows.index(window), _draw(capture, events, threads, window, limit))
            for window in windows
            if window.rank == rank
        ]
    return tuple(step for _, step in sorted(drawn, key=lambda pair: pair[0]) if step.bars)


def choose(report: Report) -> list[_Window]:
    """Median and slowest of the whole recorded steps of all ranks; one if there is only one."""
    steps = [
        (step, rank.rank)
        for rank in report.ranks
        for step in rank.steps
        if step.recorded and step.whole
    ]
    if not steps:
        return []
    steps.sort(key=lambda pair: (pair[0].dur_ns, pair[1], pair[0].step))
    median, slowest = steps[(len(steps) - 1) // 2], steps[-1]
    if median == slowest:
        return [_window(*median, "The only recorded step")]
    return [_window(*median, "Median recorded step"), _window(*slowest, "Slowest recorded step")]


def _window(step: Step, rank: int, why: str) -> _Window:
    return _Window(rank, step.step, why, step.start_ns, step.dur_ns)


def _first_slice(capture: Tables, report: Report, limit: int) -> tuple[TimelineStep, ...]:
    for rank in report.ranks:
        events = capture.table("events", columns=_COLUMNS, rank=rank.rank, last_rows=MOST_EVENTS)
        if not events.num_rows:
            continue
        start = _ints(events, "start_ns")
        first = int(start.min())
        last = int((start + _ints(events, "duration_ns")).max())
        length = max(1, min(SLICE_NS, last - first))
        why = f"No whole step was recorded: the first {text.duration(length)} of events"
        window = _Window(rank.rank, None, why, first, length)
        return (_draw(capture, events, _threads(capture, rank.rank), window, limit),)
    return ()


def _draw(
    capture: Tables, table: pa.Table, threads: _Threads, window: _Window, limit: int
) -> TimelineStep:
    events = _overlapping(table, window)
    tracks, lane = _lay_out(events, threads)
    shown = np.flatnonzero(lane >= 0)
    order = shown[np.lexsort((events.start[shown], lane[shown]))]
    heads, tails = merge(lane[order], events.start[order], events.end[order], limit=limit)
    bars = _bars(capture, events, window, lane, order, heads, tails)
    return TimelineStep(
        rank=window.rank,
        step=window.step,
        why=window.why,
        start_ns=window.start_ns,
        duration_ns=window.duration_ns,
        tracks=tracks,
        bars=bars,
        events=len(events.start),
        merged_events=sum(bar.events for bar in bars if bar.kind == MERGED),
        hidden_events=len(events.start) - len(shown),
    )


def _overlapping(table: pa.Table, window: _Window) -> _Events:
    import pyarrow as pa

    start = _ints(table, "start_ns")
    end = start + _ints(table, "duration_ns")
    inside = (start < window.start_ns + window.duration_ns) & (end > window.start_ns)
    rows = table.filter(pa.array(inside)).combine_chunks()
    flags = _ints(rows, "flags")
    return _Events(
        start=start[inside],
        end=end[inside],
        tid=_ints(rows, "tid"),
        depth=_ints(rows, "depth"),
        in_flight=(flags & EventFlag.ASYNC_END) != 0,
        rows=rows,
    )


def _ints(table: pa.Table, name: str) -> _Ints:
    """A column of integers; null is 0."""
    column = table.column(name)
    if column.null_count:
        column = column.fill_null(0)
    return np.asarray(column.to_numpy(), dtype=np.int64)


def _threads(capture: Tables, rank: int) -> _Threads:
    rows = capture.table("threads", columns=("tid", "name", "is_main"), rank=rank).to_pylist()
    return _Threads(
        names={row["tid"]: row["name"] for row in rows if row["name"]},
        main=frozenset(row["tid"] for row in rows if row["is_main"]),
    )


# --------------------------------------------------------------------------------- lanes


def _lay_out(events: _Events, threads: _Threads) -> tuple[tuple[Track, ...], _Ints]:
    """Tracks, main thread first, then the busiest; and each event's lane, -1 if not drawn."""
    lane = np.full(len(events.start), -1, dtype=np.int64)
    tids, which = np.unique(events.tid, return_inverse=True)
    outer = events.depth == 0
    busy = np.bincount(
        which[outer], weights=(events.end - events.start)[outer], minlength=len(tids)
    )
    by_weight = sorted(range(len(tids)), key=lambda i: (int(tids[i]) not in threads.main, -busy[i]))
    tracks: list[Track] = []
    at = 0
    for i in by_weight[:THREADS]:
        tid = int(tids[i])
        name = text.clean(threads.names.get(tid, f"thread {tid}"))
        nested = (which == i) & ~events.in_flight & (events.depth < DEPTHS)
        # What ends on another thread overlaps what this one does next: rows of its own.
        flying = np.flatnonzero((which == i) & events.in_flight)
        if len(flying) > IN_FLIGHT:
            by_length = np.argsort((events.start - events.end)[flying], kind="stable")
            flying = flying[by_length[:IN_FLIGHT]]
        for title, chosen, depth in (
            (name, np.flatnonzero(nested), events.depth[nested]),
            (f"{name} ({ASYNC})", flying, _stacked(events.start[flying], events.end[flying])),
        ):
            drawn = depth < DEPTHS
            if drawn.any():
                lane[chosen[drawn]] = at + depth[drawn]
                tracks.append(Track(tid, title, at, int(depth[drawn].max()) + 1))
                at += tracks[-1].lanes
    return tuple(tracks), lane


def _stacked(start: _Ints, end: _Ints) -> _Ints:
    """The lowest free row for each interval; DEPTHS where all rows are taken."""
    rows = np.full(len(start), DEPTHS, dtype=np.int64)
    left = np.argsort(start, kind="stable")
    for row in range(DEPTHS):
        if not len(left):
            break
        taken = _chain(start[left], end[left])
        rows[left[taken]] = row
        left = left[~taken]
    return rows


def _chain(start: _Ints, end: _Ints) -> _Mask:
    """Greedily, which of the intervals (by start) follow each other without overlap."""
    taken = np.zeros(len(start), dtype=bool)
    at = 0
    while at < len(start):
        taken[at] = True
        at = max(at + 1, int(np.searchsorted(start, end[at], side="left")))
    return taken


# ------------------------------------------------------------------------------- merging


def merge(lane: _Ints, start: _Ints, end: _Ints, *, limit: int) -> tuple[_Ints, _Ints]:
    """First and last index of each bar, so that there are at most `limit`.

    Events come by lane and start and do not overlap within a lane. The longest stay alone; runs
    of short neighbours become one bar, over the smallest gaps that suffice.
    """
    total = len(lane)
    if total <= limit:
        alone = np.arange(total, dtype=np.int64)
        return alone, alone
    length = end - start
    by_length = np.argsort(-length, kind="stable")
    lanes = int(lane[-1]) + 1
    gap = max(1, int(end.max() - start.min()) // 2_000)
    for bridge in (gap, gap * 4, gap * 16, gap * 64, None):
        for part in (0.9, 0.7, 0.5, 0.3):
            keep = np.zeros(total, dtype=bool)
            keep[by_length[: int(limit * part)]] = True
            head = _heads(lane, start, end, keep, bridge)
            if np.count_nonzero(head) <= limit:
                return _spans(head)
    # Every kept bar splits at most one run in two, so this many always fit.
    keep = np.zeros(total, dtype=bool)
    keep[by_length[: max(0, (limit - lanes) // 2)]] = True
    return _spans(_heads(lane, start, end, keep, None))


def _heads(lane: _Ints, start: _Ints, end: _Ints, keep: _Mask, bridge: int | None) -> _Mask:
    """True where a bar begins."""
    head = np.ones(len(lane), dtype=bool)
    head[1:] = keep[1:] | keep[:-1] | (lane[1:] != lane[:-1])
    if bridge is not None:
        head[1:] |= (start[1:] - end[:-1]) > bridge
    return head


def _spans(head: _Mask) -> tuple[_Ints, _Ints]:
    heads = np.flatnonzero(head)
    return heads, np.append(heads[1:], len(head)) - 1


# ---------------------------------------------------------------------------------- bars


def _bars(
    capture: Tables,
    events: _Events,
    window: _Window,
    lane: _Ints,
    order: _Ints,
    heads: _Ints,
    tails: _Ints,
) -> tuple[Bar, ...]:
    first = order[heads]
    counts = tails - heads + 1
    starts = events.start[first] - window.start_ns
    lengths = events.end[order[tails]] - events.start[first]
    shown = events.rows.take(first).to_pydict()
    alone = [stack for stack, n in zip(shown["stack_id"], counts, strict=True) if n == 1 and stack]
    sources = _sources(capture, window.rank, alone)
    bars = []
    for i, n in enumerate(counts.tolist()):
        merged = n > 1
        bars.append(
            Bar(
                start_ns=int(starts[i]),
                duration_ns=int(lengths[i]),
                lane=int(lane[first[i]]),
                kind=MERGED if merged else _known(shown["kind"][i]),
                name=text.plural(n, "short event") if merged else _known(shown["name"][i]),
                module=None if merged else _cleaned(shown["module"][i]),
                module_class=None if merged else _cleaned(shown["module_class"][i]),
                source=None if merged else sources.get(shown["stack_id"][i]),
                events=n,
            )
        )
    return tuple(bars)


def _known(words: str | None) -> str:
    return text.clean(words) if words else "unknown"


def _cleaned(words: str | None) -> str | None:
    return None if words is None else text.clean(words)


def _sources(capture: Tables, rank: int, stack_ids: Sequence[int]) -> dict[Any, str]:
    """`file:line function` of each stack: the innermost frame outside of libraries, if any."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not stack_ids:
        return {}
    stacks = capture.table(
        "stacks", columns=("stack_id", "frame", "function", "file", "line"), rank=rank
    )
    wanted = pa.array(np.unique(np.asarray(stack_ids, dtype=np.int64)))
    stacks = stacks.filter(pc.is_in(stacks.column("stack_id").cast(pa.int64()), value_set=wanted))
    if not stacks.num_rows:
        return {}
    ids, frames = _ints(stacks, "stack_id"), _ints(stacks, "frame")
    files = stacks.column("file").cast(pa.string()).fill_null("")
    library = np.zeros(len(ids), dtype=bool)
    for mark in _LIBRARY_MARKS:
        library |= pc.match_substring(files, mark).to_numpy()
    order = np.lexsort((frames, library, ids))
    best = order[np.unique(ids[order], return_index=True)[1]]
    rows = stacks.take(best).to_pylist()
    return {row["stack_id"]: _place(row) for row in rows}


def _place(row: dict[str, Any]) -> str:
    file = "/".join(str(row["file"] or "unknown").split("/")[-3:])
    line = f":{row['line']}" if row["line"] else ""
    return text.clean(f"{file}{line} {row['function'] or ''}".strip())
