"""The spans that a rank could have: steps, phases, module calls, operators, collectives.

Everything is one forest of nodes, as arrays. A step is a root. Phases and module calls are not in
the capture as intervals: a phase is the hull of a run of events with the same role, a module call
the hull of a run of its operators. Parents hold their children in time, by construction.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from gputap.exporters.nesting import Bools, Ints, by_depth, nest
from gputap.exporters.source import NO_CODE, NULL, CaptureSource, Columns, read
from gputap.profiler.schema import EventFlag, EventKind


class NodeKind(IntEnum):
    """What a node of the tree is."""

    STEP = 0
    PHASE = 1
    MODULE = 2
    COLLECTIVE = 3
    EVENT = 4


class Phase(IntEnum):
    """Role of a run of events in a step."""

    DATA_WAIT = 0
    FORWARD = 1
    BACKWARD = 2
    OPTIMIZER = 3


_NEUTRAL: Final = -1
_ENGINE: Final = "autograd::engine::evaluate_function"
_EVENT_COLUMNS: Final = (
    "start_ns", "duration_ns", "tid", "depth", "kind", "name", "seq",
    "module", "module_class", "stack_id", "shapes", "flags",
)  # fmt: skip
_COLLECTIVE_COLUMNS: Final = (
    "start_ns", "duration_ns", "tid", "op", "backend", "group_name", "seq", "bytes", "dtype",
    "world_size", "timing_source",
)  # fmt: skip
STEP_COLUMNS: Final = (
    "step", "start_ns", "duration_ns", "tid", "boundary", "recorded", "whole", "micro_steps",
    "data_wait_ns", "forward_ns", "backward_ns", "optimizer_ns", "other_ns", "gap_ns", "gc_ns",
    "collective_ns", "events",
)  # fmt: skip

RECORDED_ONLY: Final = frozenset({"forward_ns", "backward_ns", "other_ns", "gap_ns"})
"""Zero or meaningless where no operator was recorded: left out rather than shown as measured."""


@dataclass(frozen=True, slots=True)
class Nodes:
    """Nodes as columns. Steps come first, in the order of the steps table."""

    kind: npt.NDArray[np.int8]
    source: Ints
    """Row in the table that the kind comes from; for phases and modules, in their own arrays."""
    step: Ints
    """Row in the steps table, which is also the number of the root node."""
    parent: Ints
    """Number of a node; -1 for a root."""
    start_ns: Ints
    end_ns: Ints
    clipped: Bools
    """True if the step ended before the interval did."""


@dataclass(frozen=True, slots=True)
class Tree:
    """Nodes of one rank and the tables that they point into."""

    nodes: Nodes
    steps: Columns
    events: Columns
    collectives: Columns
    phase: Ints
    """`Phase` of each phase node."""
    phase_scope: Ints
    """Event that a phase node stands for by itself; -1 if the phase is a run of several."""
    module: Ints
    """Code into the module words for each module node."""
    module_tid: Ints
    modules: tuple[str, ...]
    module_classes: dict[str, str]
    outside: int
    """Events in no step; they are in no trace."""


@dataclass(frozen=True, slots=True)
class _Runs:
    """Hulls of runs of events."""

    what: Ints
    step: Ints
    parent: Ints
    start_ns: Ints
    end_ns: Ints
    tid: Ints


def build(capture: CaptureSource, rank: int, steps: Columns) -> Tree:
    """The tree of one rank. `steps` is its steps table, or a part of it, by start."""
    events = read(capture, "events", _EVENT_COLUMNS, rank)
    collectives = read(capture, "collectives", _COLLECTIVE_COLUMNS, rank)
    events = events.take(np.flatnonzero(~_told_as_collective(events, collectives)))
    step, _, _ = _in_steps(events, steps)
    outside = int((step < 0).sum())
    events = events.take(np.flatnonzero(step >= 0))
    in_step, _, _ = _in_steps(collectives, steps)
    collectives = collectives.take(np.flatnonzero(in_step >= 0))
    classes = _module_classes(capture, rank, events)
    return _Builder(steps, events, collectives, classes).tree(outside)


def _is(words: tuple[str, ...], codes: Ints, *kinds: EventKind) -> Bools:
    names = {kind.name.lower() for kind in kinds}
    table = np.array([word in names for word in words] + [False])
    out: Bools = table[codes]
    return out


def _told_as_collective(events: Columns, collectives: Columns) -> Bools:
    """Events that the collectives table has too, with the same times: they become one span."""
    kinds = events.texts["kind"]
    out = _is(kinds.words, kinds.codes, EventKind.COLLECTIVE)
    rows = np.flatnonzero(out)
    times = [np.stack([t.start_ns, t.end_ns], axis=1) for t in (events.take(rows), collectives)]
    _, number = np.unique(np.concatenate(times), axis=0, return_inverse=True)
    number = number.reshape(-1)
    out[rows] = np.isin(number[: len(rows)], number[len(rows) :])
    return out


def _in_steps(rows: Columns, steps: Columns) -> tuple[Ints, Ints, Bools]:
    """Step that each row began in (-1: none), its end within the step, and whether that cut it."""
    if len(steps) == 0:
        none = np.full(len(rows), -1, np.int64)
        return none, rows.end_ns, np.zeros(len(rows), bool)
    step = np.searchsorted(steps.start_ns, rows.start_ns, side="right") - 1
    limit = steps.end_ns[step]
    step = np.where((step >= 0) & (rows.start_ns < limit), step, -1)
    return step, np.minimum(rows.end_ns, limit), rows.end_ns > limit


def _module_classes(capture: CaptureSource, rank: int, events: Columns) -> dict[str, str]:
    """Class of every module called, by qualified name. Stacks know callers without operators."""
    stacks = capture.table("stacks", columns=["module", "module_class"], rank=rank)
    pairs = stacks.group_by(["module", "module_class"]).aggregate([]).to_pylist()
    found = {p["module"]: p["module_class"] or "" for p in pairs if p["module"] is not None}
    names, classes = events.texts["module"], events.texts["module_class"]
    both = np.unique(np.stack([names.codes, classes.codes]), axis=1)
    for name, cls in both.T.tolist():
        if name != NO_CODE:
            found[names.words[name]] = classes.word(cls) or found.get(names.words[name], "")
    return found


class _Builder:
    """Joins the tables of one rank into a tree. Every array here is by event unless said."""

    def __init__(
        self, steps: Columns, events: Columns, collectives: Columns, classes: dict[str, str]
    ) -> None:
        self.steps = steps
        self.events = events
        self.collectives = collectives
        self.classes = classes
        self.step, self.end_ns, self.clipped = _in_steps(events, steps)
        kinds = events.texts["kind"]
        self.is_scope = _is(kinds.words, kinds.codes, EventKind.USER_SCOPE)
        self.is_backward = _is(kinds.words, kinds.codes, EventKind.AUTOGRAD) | engine_calls(events)
        self.is_gc = _is(kinds.words, kinds.codes, EventKind.GC)
        self.scope_phase = _scope_phase(events)
        # A scope of the user's says nothing of phases or modules: we look through it.
        self.opaque = ~self.is_scope | (self.scope_phase >= 0)
        self.around, self.top = self._event_parents()

    def tree(self, outside: int) -> Tree:
        phase_of, phases = self._phases()
        module_of, modules, words = self._modules(phase_of)
        n_steps, n_phases, n_modules = len(self.steps), len(phases.what), len(modules.what)
        first_module = n_steps + n_phases
        first_collective = first_module + n_modules
        first_event = first_collective + len(self.collectives)
        phase_node = np.where(phase_of >= 0, n_steps + phase_of, self.step)
        parent = self._event_node_parents(phase_node, module_of, first_module, first_event)
        scope = self._lone_scopes(phase_of, n_phases)
        parent[scope[scope >= 0]] = n_steps + np.flatnonzero(scope >= 0)
        module_parent = _module_parents(modules, first_module, n_steps)
        c_step, c_end, c_clipped = _in_steps(self.collectives, self.steps)
        c_phase = _enclosing(phases, c_step, self.collectives.start_ns, c_end)
        nodes = _concatenate(
            (NodeKind.STEP, np.arange(n_steps), np.full(n_steps, -1),
             self.steps.start_ns, self.steps.end_ns, None),
            (NodeKind.PHASE, phases.step, phases.step, phases.start_ns, phases.end_ns, None),
            (NodeKind.MODULE, modules.step, module_parent, modules.start_ns, modules.end_ns, None),
            (NodeKind.COLLECTIVE, c_step, np.where(c_phase >= 0, n_steps + c_phase, c_step),
             self.collectives.start_ns, c_end, c_clipped),
            (NodeKind.EVENT, self.step, parent, self.events.start_ns, self.end_ns, self.clipped),
        )  # fmt: skip
        return Tree(
            nodes, self.steps, self.events, self.collectives, phases.what, scope,
            modules.what, modules.tid, words, self.classes, outside,
        )  # fmt: skip

    def _event_parents(self) -> tuple[Ints, Ints]:
        """Event around each event (any; the nearest opaque one), -1 for none."""
        around = np.full(len(self.events), -1, np.int64)
        opaque_around = around.copy()
        asynchronous = self.events.ints["flags"] & EventFlag.ASYNC_END != 0
        tids = self.events.ints["tid"]
        order = np.argsort(tids, kind="stable")
        for members in np.split(order, np.flatnonzero(np.diff(tids[order])) + 1):
            rows = members[~asynchronous[members]]
            found = nest(
                self.events.start_ns[rows], self.end_ns[rows], self.events.ints["depth"][rows]
            )
            event = rows[found.order]
            for level in by_depth(found.depth)[1:]:
                child, parent = event[level], event[found.parent[level]]
                same = self.step[child] == self.step[parent]
                around[child] = np.where(same, parent, -1)
                nearest = np.where(self.opaque[parent], parent, opaque_around[parent])
                opaque_around[child] = np.where(same, nearest, -1)
        return around, opaque_around

    def _phases(self) -> tuple[Ints, _Runs]:
        """Phase run of each event (-1: none) and the runs."""
        outermost = (self.top < 0) & self.opaque
        on_step = self.events.ints["tid"] == self.steps.ints["tid"][self.step]
        role = np.where(self.is_backward, int(Phase.BACKWARD), self.scope_phase)
        other = outermost & on_step & ~self.is_backward & (role < 0) & ~self.is_gc
        role = np.where(other & self._is_forward(), int(Phase.FORWARD), role)
        marked = np.flatnonzero(outermost & (role >= 0) & (on_step | self.is_backward))
        # Scopes stay apart: what ran between two of them may not have been recorded.
        alone = np.where(self.scope_phase[marked] >= 0, marked, -1)
        starts = _run_starts(self.step[marked], role[marked], alone)
        first = marked[starts]
        runs = _Runs(
            role[first], self.step[first], self.step[first], self.events.start_ns[first],
            _reduce_max(self.end_ns[marked], starts), self.events.ints["tid"][first],
        )  # fmt: skip
        phase_of = np.full(len(self.events), -1, np.int64)
        phase_of[marked] = np.cumsum(_flags(starts, len(marked))) - 1
        rest = np.flatnonzero(outermost & on_step & (phase_of < 0))
        phase_of[rest] = _enclosing(
            runs, self.step[rest], self.events.start_ns[rest], self.end_ns[rest]
        )
        inner = np.flatnonzero(self.top >= 0)
        phase_of[inner] = phase_of[self._outermost()[inner]]
        return phase_of, runs

    def _is_forward(self) -> Bools:
        """Operators that a forward pass runs: under a module, with autograd on, or in inference."""
        has_backward = np.zeros(len(self.steps), bool)
        has_backward[self.step[self.is_backward]] = True
        evidence = (self.events.texts["module"].codes >= 0) | (self.events.ints["seq"] != NULL)
        out: Bools = evidence | ~has_backward[self.step]
        return out

    def _outermost(self) -> Ints:
        """The outermost opaque event around each event, itself if there is none."""
        at = np.where(self.top >= 0, self.top, np.arange(len(self.events)))
        while True:
            up = np.where(self.top[at] >= 0, self.top[at], at)
            if (up == at).all():
                return at
            at = up

    def _modules(self, phase_of: Ints) -> tuple[Ints, _Runs, tuple[str, ...]]:
        """Innermost module run of each event (-1: none), the runs by level, the module names."""
        codes, words, chains = _module_chains(self.events, self.classes)
        own = np.where(self.opaque, codes, NO_CODE)
        inside = (self.top >= 0) & (own == own[np.maximum(self.top, 0)])
        rows = np.flatnonzero((own >= 0) & ~inside)
        tids = self.events.ints["tid"]
        rows = rows[np.argsort(tids[rows], kind="stable")]
        chain = chains[own[rows]]
        breaks = _flags(_run_starts(tids[rows], self.step[rows], phase_of[rows]), len(rows))
        module_of = np.full(len(self.events), -1, np.int64)
        runs: list[_Runs] = []
        total = 0
        above: Ints = np.full(len(rows), -1, np.int64)
        for column in chain.T:
            breaks = breaks | _flags(_run_starts(column), len(rows))
            starts = np.flatnonzero(breaks)
            kept = column[starts] >= 0
            first = rows[starts]
            number = total + np.cumsum(kept) - 1
            runs.append(_Runs(
                column[starts][kept], self.step[first][kept],
                np.where(above[starts] >= 0, above[starts], -2 - phase_of[first])[kept],
                self.events.start_ns[first][kept],
                _reduce_max(self.end_ns[rows], starts)[kept], tids[first][kept],
            ))  # fmt: skip
            run = np.cumsum(breaks) - 1
            above = np.where(column >= 0, number[run], above)
            total += int(kept.sum())
        module_of[rows] = above
        return module_of, _join(runs), words

    def _event_node_parents(
        self, phase_node: Ints, module_of: Ints, first_module: int, first_event: int
    ) -> Ints:
        parent = np.where(self.top >= 0, first_event + self.top, phase_node)
        parent = np.where(module_of >= 0, first_module + module_of, parent)
        scope = np.where(self.around >= 0, first_event + self.around, self.step)
        return np.where(self.opaque, parent, scope)

    def _lone_scopes(self, phase_of: Ints, phases: int) -> Ints:
        """For each phase the one scope that it consists of, or -1."""
        outermost = np.flatnonzero((self.top < 0) & self.opaque & (phase_of >= 0))
        count = np.bincount(phase_of[outermost], minlength=phases)
        last = np.full(phases, -1, np.int64)
        last[phase_of[outermost]] = outermost
        lone = (count == 1) & (last >= 0) & self.is_scope[np.maximum(last, 0)] if phases else count
        return np.where(lone, last, -1)


def engine_calls(events: Columns) -> Bools:
    """True for the operators around the autograd nodes, which the autograd engine records."""
    names = events.texts["name"]
    table = np.array([word.startswith(_ENGINE) for word in names.words], bool)
    out: Bools = names.lookup(table, False)
    return out


def _scope_phase(events: Columns) -> Ints:
    """Phase that a scope of torch's own marks, by its name; -1 for others."""
    prefixes = {
        "enumerate(DataLoader)": Phase.DATA_WAIT,
        "Optimizer.step#": Phase.OPTIMIZER,
        "Optimizer.zero_grad#": Phase.OPTIMIZER,
    }

    def phase(word: str) -> int:
        return next((int(p) for prefix, p in prefixes.items() if word.startswith(prefix)), _NEUTRAL)

    names, kinds = events.texts["name"], events.texts["kind"]
    by_name = names.lookup(np.array([phase(word) for word in names.words], np.int64), _NEUTRAL)
    scope = _is(kinds.words, kinds.codes, EventKind.USER_SCOPE)
    return np.where(scope, by_name, _NEUTRAL)


def _module_chains(events: Columns, classes: dict[str, str]) -> tuple[Ints, tuple[str, ...], Ints]:
    """Module code of each event, the module names, and the modules around each, outermost first.

    A container that is never called (ModuleList) is not among them.
    """
    column = events.texts["module"]
    words = tuple(dict.fromkeys([*column.words, *classes]))
    number = {word: i for i, word in enumerate(words)}
    chains = [[number[name] for name in _prefixes(word) if name in classes] for word in words]
    width = max((len(chain) for chain in chains), default=0)
    out = np.full((len(words), width), NO_CODE, np.int64)
    for row, chain in enumerate(chains):
        out[row, : len(chain)] = chain
    return column.codes, words, out


def _prefixes(name: str) -> Iterable[str]:
    """`a.b` gives the root, `a` and `a.b`."""
    yield ""
    parts = name.split(".") if name else []
    for length in range(1, len(parts) + 1):
        yield ".".join(parts[:length])


def _module_parents(modules: _Runs, first_module: int, n_steps: int) -> Ints:
    """Node numbers from `_Runs.parent`: a run above (>= 0), a phase (-2 - phase) or none (-1)."""
    phase = -2 - modules.parent
    in_phase = np.where(phase >= 0, n_steps + phase, modules.step)
    return np.where(modules.parent >= 0, first_module + modules.parent, in_phase)


def _enclosing(runs: _Runs, step: Ints, start: Ints, end: Ints) -> Ints:
    """The last run that began before the interval, if it holds it; else -1."""
    if len(runs.what) == 0:
        return np.full(len(step), -1, np.int64)
    at = np.searchsorted(runs.start_ns, start, side="right") - 1
    fits = (at >= 0) & (runs.step[at] == step) & (end <= runs.end_ns[at])
    return np.where(fits, at, -1)


def _run_starts(*keys: Ints) -> Ints:
    """Where a run of equal keys begins."""
    if len(keys[0]) == 0:
        return np.empty(0, np.int64)
    changed = np.zeros(len(keys[0]), bool)
    changed[0] = True
    for key in keys:
        changed[1:] |= key[1:] != key[:-1]
    return np.flatnonzero(changed)


def _flags(starts: Ints, length: int) -> Bools:
    out = np.zeros(length, bool)
    out[starts] = True
    return out


def _reduce_max(values: Ints, starts: Ints) -> Ints:
    return np.maximum.reduceat(values, starts) if len(starts) else np.empty(0, np.int64)


def _join(runs: list[_Runs]) -> _Runs:
    empty = np.empty(0, np.int64)
    names = ("what", "step", "parent", "start_ns", "end_ns", "tid")
    return _Runs(*(np.concatenate([empty, *(getattr(r, name) for r in runs)]) for name in names))


def _concatenate(*groups: tuple[NodeKind, Ints, Ints, Ints, Ints, Bools | None]) -> Nodes:
    sizes = [len(group[1]) for group in groups]
    clipped = [
        np.zeros(size, bool) if g[5] is None else g[5]
        for g, size in zip(groups, sizes, strict=True)
    ]
    return Nodes(
        np.repeat(np.array([g[0] for g in groups], np.int8), sizes),
        np.concatenate([np.arange(size) for size in sizes]),
        np.concatenate([g[1] for g in groups]).astype(np.int64),
        np.concatenate([g[2] for g in groups]).astype(np.int64),
        np.concatenate([g[3] for g in groups]),
        np.concatenate([g[4] for g in groups]),
        np.concatenate(clipped),
    )
