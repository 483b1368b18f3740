"""Chooses which nodes of a rank become spans, and writes them as columns.

Of every step the root, the phases, the longest collectives and then the longest module calls and
operators are kept, up to the rank's share of the budget. What is left out is counted on the
nearest span that is kept, and the root says it in words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from gputap.exporters import otlp_encode as encode
from gputap.exporters.nesting import Bools, Ints
from gputap.exporters.source import NULL, CaptureSource, Columns
from gputap.exporters.span_tree import RECORDED_ONLY, NodeKind, Phase, Tree
from gputap.profiler.schema import COLLECTIVES, EVENTS, STEPS, EventKind, Table

if TYPE_CHECKING:
    from gputap.profiler.manifest import RankManifest

COLLECTIVE_SHARE: Final = 4
"""One part in so many of a rank's budget is kept for collectives."""

TIMING_SOURCE: Final = "gputap.timing_source"
HOST_CALL: Final = "host_call"
"""Times of operators, scopes, phases and modules: taken on the CPU, around the call."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which nodes are spans, and what the others add up to. Arrays are by node."""

    kept: Bools
    parent: Ints
    """The nearest kept node around, -1 for roots."""
    stands_for: Ints
    """For an event that a kept phase stands for, that phase; -1 for others."""
    rolled_events: Ints
    """Events left out right below a kept node."""
    rolled_ns: Ints
    """Their time, those inside one another counted once."""
    rolled_modules: Ints
    """By step."""
    rolled_collectives: Ints
    """By step."""


@dataclass(frozen=True, slots=True)
class RankSpans:
    """The spans of one rank, step by step, and what was left out."""

    columns: encode.SpanColumns
    traces: int
    events_sent: int
    """Events that a span stands for."""
    events_rolled_up: int


def select(tree: Tree, share: Ints) -> Selection:
    """Keep at most `share` nodes (by step, at least 1 each) of `tree`."""
    nodes = tree.nodes
    merged = _merged(tree)
    kept = _keep(tree, share, merged >= 0)
    stands_for = np.where((merged >= 0) & kept[np.maximum(merged, 0)], merged, -1)
    left_out = ~kept & (stands_for < 0)
    events_out = left_out & (nodes.kind == NodeKind.EVENT)
    parent, covered = _nearest_kept(tree, kept, events_out)
    events = np.flatnonzero(events_out)
    outer = events[~covered[events]]
    length = nodes.end_ns - nodes.start_ns
    rolled_ns = np.zeros(len(kept), np.int64)
    np.add.at(rolled_ns, parent[outer], length[outer])
    return Selection(
        kept, parent, stands_for,
        np.bincount(parent[events], minlength=len(kept)), rolled_ns,
        _count_by_step(tree, left_out, NodeKind.MODULE),
        _count_by_step(tree, left_out, NodeKind.COLLECTIVE),
    )  # fmt: skip


def _merged(tree: Tree) -> Ints:
    """The phase node that stands for an event all by itself, or -1."""
    nodes = tree.nodes
    out = np.full(len(nodes.kind), -1, np.int64)
    phases = np.flatnonzero(nodes.kind == NodeKind.PHASE)
    first_event = len(nodes.kind) - len(tree.events)
    has = tree.phase_scope >= 0
    out[first_event + tree.phase_scope[has]] = phases[has]
    return out


def _keep(tree: Tree, share: Ints, merged: Bools) -> Bools:
    """Roots, phases, some collectives, then the longest. Holders sort before what they hold."""
    nodes = tree.nodes
    length = nodes.end_ns - nodes.start_ns
    is_collective = nodes.kind == NodeKind.COLLECTIVE
    longest = np.lexsort((-length, ~is_collective, nodes.step))
    place = _place_in_step(nodes.step, longest)
    reserved = is_collective & (place < share[nodes.step] // COLLECTIVE_SHARE)
    urgency = np.select(
        [nodes.kind == NodeKind.STEP, nodes.kind == NodeKind.PHASE, reserved], [0, 1, 2], 3
    )
    order = np.lexsort((nodes.start_ns, nodes.kind, -length, urgency, merged, nodes.step))
    kept: Bools = (_place_in_step(nodes.step, order) < share[nodes.step]) & ~merged
    return kept


def _place_in_step(step: Ints, order: Ints) -> Ints:
    """Place of each node in its step, given an order that goes step by step."""
    sorted_steps = step[order]
    place = np.empty(len(step), np.int64)
    place[order] = np.arange(len(step)) - np.searchsorted(sorted_steps, sorted_steps)
    return place


def _nearest_kept(tree: Tree, kept: Bools, events_out: Bools) -> tuple[Ints, Bools]:
    """The nearest kept node around each node, and whether an event left out lies between."""
    nodes = tree.nodes
    at = nodes.parent.copy()
    covered = np.zeros(len(at), bool)
    moving = np.flatnonzero((at >= 0) & ~kept[np.maximum(at, 0)])
    while len(moving):
        covered[moving] |= events_out[at[moving]]
        at[moving] = nodes.parent[at[moving]]
        moving = moving[~kept[at[moving]]]
    return at, covered


def _count_by_step(tree: Tree, left_out: Bools, kind: NodeKind) -> Ints:
    nodes = tree.nodes
    return np.bincount(nodes.step[left_out & (nodes.kind == kind)], minlength=len(tree.steps))


def rank_spans(capture: CaptureSource, tree: Tree, share: Ints, rank: RankManifest) -> RankSpans:
    """Spans of one rank. `share` is by step."""
    chosen = select(tree, share)
    nodes = tree.nodes
    rows = np.flatnonzero(chosen.kept)
    rows = rows[np.lexsort((nodes.kind[rows], nodes.start_ns[rows], nodes.step[rows]))]
    step_numbers = tree.steps.ints["step"]
    job = capture.manifest.job
    traces = [encode.trace_id(job, number) for number in step_numbers.tolist()]
    seeds = np.array([encode.span_seed(trace, rank.rank) for trace in traces], np.uint64)
    step = nodes.step[rows]
    index = np.arange(len(rows)) - np.searchsorted(step, step)
    ids = np.zeros(len(nodes.kind) + 1, np.uint64)  # the last: parent -1 has id 0
    ids[rows] = encode.span_ids(seeds[step], index)
    raw = np.frombuffer(b"".join(traces), np.uint8).reshape(-1, 16)
    label, labels = _Labels(capture, tree, chosen, rank).of(rows)
    columns = encode.SpanColumns(
        raw[step], ids[rows], ids[chosen.parent[rows]],
        nodes.start_ns[rows], nodes.end_ns[rows], label, labels,
        _int_attributes(tree, chosen, rows),
    )  # fmt: skip
    rolled = int(chosen.rolled_events.sum())
    return RankSpans(columns, len(traces), len(tree.events) - rolled, rolled)


def _int_attributes(tree: Tree, chosen: Selection, rows: Ints) -> dict[str, Ints]:
    rolled = chosen.rolled_events[rows]
    return {
        _otlp(STEPS, "step"): tree.steps.ints["step"][tree.nodes.step[rows]],
        _otlp(EVENTS, "tid"): _thread_ids(tree)[rows],
        "gputap.rolled_up.events": np.where(rolled > 0, rolled, encode.ABSENT),
        "gputap.rolled_up_ns": np.where(rolled > 0, chosen.rolled_ns[rows], encode.ABSENT),
    }


def _thread_ids(tree: Tree) -> Ints:
    """Thread of each node; phases run on several."""
    phases = np.full(len(tree.phase), encode.ABSENT)
    return np.concatenate([
        tree.steps.ints["tid"], phases, tree.module_tid,
        tree.collectives.ints["tid"], tree.events.ints["tid"],
    ])  # fmt: skip


def _otlp(table: Table, column: str) -> str:
    """Name of the attribute that a column is sent as."""
    return next(c.otlp for c in table.columns if c.name == column)


class _Labels:
    """Names and constant attributes of spans, encoded once per distinct one."""

    def __init__(
        self, capture: CaptureSource, tree: Tree, chosen: Selection, rank: RankManifest
    ) -> None:
        self.capture = capture
        self.tree = tree
        self.chosen = chosen
        self.rank = rank
        self.labels: list[bytes] = []
        steps, count = tree.nodes.step, len(tree.steps)
        self.step_events = np.bincount(steps, chosen.rolled_events, count).astype(np.int64)
        self.step_ns = np.bincount(steps, chosen.rolled_ns, count).astype(np.int64)
        self.sources = _python_sources(capture, rank.rank)
        self.common: dict[str, encode.Value] = {"gputap.level": rank.level}
        if capture.manifest.simulated:
            self.common["gputap.simulated"] = True

    def of(self, rows: Ints) -> tuple[Ints, list[bytes]]:
        """Label of each of these nodes, and the labels."""
        nodes = self.tree.nodes
        kind, source, clipped = nodes.kind[rows], nodes.source[rows], nodes.clipped[rows]
        out = np.empty(len(rows), np.int64)
        makers = {
            NodeKind.STEP: (self._step, self._by_row),
            NodeKind.PHASE: (self._phase, self._by_phase),
            NodeKind.MODULE: (self._module, self._by_module),
            NodeKind.COLLECTIVE: (self._collective, self._by_row),
            NodeKind.EVENT: (self._event, self._by_event),
        }
        for node_kind, (make, keys) in makers.items():
            members = np.flatnonzero(kind == node_kind)
            first, which = _distinct(*keys(source[members]), clipped[members])
            out[members] = len(self.labels) + which
            for at in members[first].tolist():
                name, attributes = make(int(source[at]))
                self._add(name, node_kind, attributes, clipped=bool(clipped[at]))
        return out, self.labels

    def _add(
        self, name: str, kind: NodeKind, attributes: encode.Attributes, *, clipped: bool
    ) -> None:
        everything: dict[str, encode.Value | None] = {
            "gputap.kind": kind.name.lower(),
            TIMING_SOURCE: HOST_CALL,
            "gputap.clipped": True if clipped else None,
        }
        self.labels.append(encode.encode_label(name, everything | self.common | dict(attributes)))

    def _by_row(self, source: Ints) -> list[Ints]:
        return [source]

    def _by_phase(self, source: Ints) -> list[Ints]:
        scope = self.tree.phase_scope[source]
        names = self.tree.events.texts["name"].codes
        name = names[scope] if len(names) else scope
        return [self.tree.phase[source], np.where(scope >= 0, name, -1)]

    def _by_module(self, source: Ints) -> list[Ints]:
        return [self.tree.module[source]]

    def _by_event(self, source: Ints) -> list[Ints]:
        events = self.tree.events
        texts = [events.texts[n].codes[source] for n in _EVENT_TEXTS]
        return [*texts, events.ints["stack_id"][source]]

    def _step(self, row: int) -> tuple[str, encode.Attributes]:
        steps, chosen = self.tree.steps, self.chosen
        recorded = bool(steps.ints["recorded"][row] == 1)
        attributes: dict[str, encode.Value | None] = {
            "gputap.rank": self.rank.rank,
            "gputap.world_size": self.rank.world_size,
            "gputap.step.boundary": _word(steps, "boundary", row),
            "gputap.step.recorded": recorded,
            "gputap.step.whole": bool(steps.ints["whole"][row] == 1),
            "gputap.level.reasons": self.rank.level_reasons or None,
            "gputap.capture": str(self.capture.path),
            "gputap.dropped": sum(self.rank.dropped.values()) or None,
            "gputap.rolled_up.modules": int(chosen.rolled_modules[row]) or None,
            "gputap.rolled_up.collectives": int(chosen.rolled_collectives[row]) or None,
            "gputap.rolled_up": self._rolled_up(row),
        }
        for name in _STEP_FIGURES:
            if recorded or name not in RECORDED_ONLY:
                attributes[f"gputap.step.{name}"] = _int(steps, name, row)
        return "step", attributes

    def _rolled_up(self, row: int) -> str | None:
        """What the step's spans leave out, in words; None if nothing."""
        events, ns = int(self.step_events[row]), int(self.step_ns[row])
        modules = int(self.chosen.rolled_modules[row])
        collectives = int(self.chosen.rolled_collectives[row])
        said = [
            f"{events:,} more operators and scopes, {ns / 1e6:,.3f} ms" if events else "",
            f"{modules:,} more module calls" if modules else "",
            f"{collectives:,} more collectives" if collectives else "",
        ]
        return "; ".join(part for part in said if part) or None

    def _phase(self, row: int) -> tuple[str, encode.Attributes]:
        name = Phase(int(self.tree.phase[row])).name.lower()
        scope = int(self.tree.phase_scope[row])
        of = self.tree.events.texts["name"]
        return name, {
            "gputap.phase": name,
            "gputap.scope": of.word(int(of.codes[scope])) if scope >= 0 else None,
        }

    def _module(self, row: int) -> tuple[str, encode.Attributes]:
        name = self.tree.modules[int(self.tree.module[row])]
        cls = self.tree.module_classes.get(name, "")
        return name or cls or "model", {
            _otlp(EVENTS, "module"): name,
            _otlp(EVENTS, "module_class"): cls or None,
        }

    def _collective(self, row: int) -> tuple[str, encode.Attributes]:
        table = self.tree.collectives
        attributes: dict[str, encode.Value | None] = {
            c.otlp: _word(table, c.name, row) if c.name in table.texts else _int(table, c.name, row)
            for c in COLLECTIVES.columns
            if c.otlp
        }
        attributes["gputap.collective.world_size"] = _int(table, "world_size", row)
        source = attributes[_otlp(COLLECTIVES, "timing_source")]
        attributes[TIMING_SOURCE] = source or HOST_CALL
        return _word(table, "op", row) or "collective", attributes

    def _event(self, row: int) -> tuple[str, encode.Attributes]:
        events = self.tree.events
        attributes: dict[str, encode.Value | None] = {
            c.otlp: _word(events, c.name, row) for c in EVENTS.columns if c.name in _SENT_TEXTS
        }
        attributes["gputap.kind"] = attributes["gputap.kind"] or EventKind.OPERATOR.name.lower()
        attributes |= self.sources.get(int(events.ints["stack_id"][row]), {})
        return _word(events, "name", row) or "unknown", attributes


_EVENT_TEXTS: Final = ("name", "kind", "module", "module_class", "shapes")
_SENT_TEXTS: Final = frozenset(_EVENT_TEXTS) - {"name"}
_STEP_FIGURES: Final = (
    "micro_steps", "data_wait_ns", "forward_ns", "backward_ns", "optimizer_ns", "other_ns",
    "gap_ns", "gc_ns", "collective_ns", "events",
)  # fmt: skip


def _distinct(*keys: npt.NDArray[Any]) -> tuple[Ints, Ints]:
    """The first row of each distinct combination of keys, and which one each row has."""
    order = np.lexsort(keys)
    new = np.zeros(len(order), bool)
    new[:1] = True
    for key in keys:
        new[1:] |= key[order][1:] != key[order][:-1]
    which = np.empty(len(order), np.int64)
    which[order] = np.cumsum(new) - 1
    return order[new], which


def _word(columns: Columns, name: str, row: int) -> str | None:
    text = columns.texts[name]
    return text.word(int(text.codes[row]))


def _int(columns: Columns, name: str, row: int) -> int | None:
    value = int(columns.ints[name][row])
    return None if value == NULL else value


def _python_sources(capture: CaptureSource, rank: int) -> Mapping[int, encode.Attributes]:
    """Where each Python stack is in the user's code, else its innermost frame."""
    import pyarrow as pa
    import pyarrow.compute as pc

    stacks = capture.table(
        "stacks", columns=["stack_id", "frame", "function", "file", "line"], rank=rank
    )
    files = stacks["file"].cast(pa.string()).fill_null("")
    library = pc.match_substring_regex(files, _LIBRARY)
    sort = [("stack_id", "ascending"), ("library", "ascending"), ("frame", "ascending")]
    ordered = stacks.append_column("library", library).sort_by(sort)
    ids = ordered["stack_id"].to_numpy()
    firsts = ordered.take(np.unique(ids, return_index=True)[1])
    return {
        row["stack_id"]: {
            "code.function.name": row["function"],
            "code.file.path": row["file"],
            "code.line.number": row["line"] or None,
        }
        for row in firsts.to_pylist()
    }


_LIBRARY: Final = r"/(site|dist)-packages/|^<frozen|/lib/python3"
