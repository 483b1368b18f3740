"""Phases against a reference that walks the items one by one."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from gputap.profiler.analysis.phases import StepPhases, step_phases
from gputap.profiler.analysis.steps import Cuts, cut_steps
from tests.analysis_cases import Tape

LOADER = "enumerate(DataLoader)#_SingleProcessDataLoaderIter.__next__"
STEP = "Optimizer.step#SGD.step"
ZERO = "Optimizer.zero_grad#SGD.zero_grad"
NODE = "autograd::engine::evaluate_function: AddmmBackward0"
MODEL = (("forward", "/app/m.py", 5, None, None), ("call", "torch/m.py", 9, "", "Net"))


@dataclass
class Script:
    """Items laid one after another with pauses between them."""

    tape: Tape = field(default_factory=Tape)
    now: int = 1000

    def item(self, what: str, length: int, pause: int = 0) -> Script:
        self.now += pause
        names = {"wait": LOADER, "zero": ZERO, "node": NODE, "step": STEP}
        kind = "user_scope" if what in ("wait", "zero", "step") else "operator"
        stack = MODEL if what == "module" else ()
        name = names.get(what, "aten::" + what)
        self.tape.add(name, self.now, self.now + length, kind=kind, stack=stack)
        if what == "step" and length > 2:
            self.tape.add("aten::add_", self.now + 1, self.now + length - 1)
        self.now += length
        return self

    def phases(self) -> tuple[Cuts, StepPhases]:
        cuts, thread = cut_steps(self.tape.data())
        return cuts, step_phases(thread, cuts)


def rows(phases: StepPhases) -> list[tuple[int, ...]]:
    columns = (
        phases.data_wait_ns,
        phases.forward_ns,
        phases.backward_ns,
        phases.optimizer_ns,
        phases.other_ns,
    )
    return list(zip(*(c.tolist() for c in columns), strict=True))


def test_a_step_to_the_nanosecond() -> None:
    script = Script().item("step", 10)
    script.item("wait", 7, 3).item("to", 5, 2).item("module", 20, 1).item("module", 30, 4)
    script.item("loss", 6, 1).item("node", 50, 9).item("node", 40, 2).item("clip", 8, 3)
    script.item("zero", 4, 1).item("step", 25, 5)
    cuts, phases = script.phases()
    assert rows(phases)[1] == (
        7,
        20 + 4 + 30 + 1 + 6,
        50 + 2 + 40,
        4 + 25,
        3 + 2 + 5 + 1 + 9 + 3 + 8 + 1 + 5,
    )
    # the closing scope's operator is 23 long; pauses and the scope's own edges are gaps
    assert phases.gap_ns[1] == 3 + 2 + 1 + 4 + 1 + 9 + 2 + 3 + 1 + 4 + 5 + 2
    assert int(cuts.end[1] - cuts.start[1]) == sum(rows(phases)[1])


def test_backward_on_another_thread_is_backward_not_gap() -> None:
    script = Script().item("step", 10).item("module", 10)
    start = script.now + 5
    script.tape.add(NODE, start, start + 30, tid=9)
    script.tape.add("AddmmBackward0", start + 1, start + 29, tid=9, kind="autograd", fwd_tid=1)
    script.now = start + 30
    script.item("step", 10, 5)
    _, phases = script.phases()
    assert rows(phases)[1] == (0, 10, 30, 10, 10)
    assert phases.gap_ns[1] == 5 + 5 + 2


def test_backward_of_somebody_else_is_left_out() -> None:
    script = Script().item("step", 10).item("module", 10)
    start = script.now + 5
    script.tape.add("AddmmBackward0", start, start + 30, tid=9, kind="autograd", fwd_tid=8)
    script.now = start + 30
    script.item("step", 10, 5)
    _, phases = script.phases()
    assert rows(phases)[1] == (0, 10, 0, 10, 40)


def test_closure_is_forward_and_backward_inside_the_optimizer() -> None:
    tape = Tape()
    for at in (0, 100):
        tape.add(STEP, at, at + 90, kind="user_scope")
        tape.add("aten::linear", at + 10, at + 30, stack=MODEL)
        tape.add(NODE, at + 35, at + 60)
        tape.add("aten::add_", at + 70, at + 80)
    cuts, thread = cut_steps(tape.data())
    phases = step_phases(thread, cuts)
    assert rows(phases)[1] == (0, 20, 25, 45, 10)


def test_garbage_collection_is_counted_once_and_is_no_gap() -> None:
    script = Script().item("step", 10).item("module", 10, 5)
    script.tape.add("gc", script.now + 2, script.now + 22, kind="gc")
    script.item("step", 10, 30)
    _, phases = script.phases()
    assert phases.gc_ns.tolist()[1] == 20
    assert phases.gap_ns[1] == 5 + 10 + 2


WORDS = st.sampled_from(["wait", "zero", "module", "loss", "node"])
PARTS = st.lists(st.tuples(WORDS, st.integers(1, 9), st.integers(0, 5)), max_size=14)


@settings(max_examples=120, deadline=None)
@given(st.lists(PARTS, min_size=2, max_size=3))
def test_phases_are_those_of_the_reference(steps: list[list[tuple[str, int, int]]]) -> None:
    script = Script().item("step", 10)
    expected = []
    for parts in ([("node", 3, 1), *parts] for parts in steps):
        begin = script.now
        spans = []
        for what, length, pause in parts:
            script.item(what, length, pause)
            spans.append((what, script.now - length, script.now))
        script.item("step", 10, 2)
        spans.append(("step", script.now - 10, script.now))
        expected.append(reference(spans, begin, script.now))
    cuts, phases = script.phases()
    assert rows(phases)[1:] == expected
    assert [sum(r) for r in rows(phases)] == (cuts.end - cuts.start).tolist()
    assert np.all(phases.gap_ns >= 0)


def reference(spans: list[tuple[str, int, int]], begin: int, end: int) -> tuple[int, ...]:
    """The rules of phases.py, in plain loops."""
    label = {"wait": "wait", "zero": "opt", "step": "opt", "node": "node"}
    runs: list[list[tuple[str, int, int]]] = []
    for span in spans:
        if runs and label.get(runs[-1][-1][0], "op") == label.get(span[0], "op"):
            runs[-1].append(span)
        else:
            runs.append([span])
    total = {"wait": 0, "fwd": 0, "node": 0, "opt": 0}
    for i, run in enumerate(runs):
        kind = label.get(run[0][0], "op")
        next_is_node = i + 1 < len(runs) and runs[i + 1][0][0] == "node"
        modules = [s for s in run if s[0] == "module"]
        if kind in ("wait", "opt"):
            total[kind] += sum(e - s for _, s, e in run)
        elif kind == "node":
            total["node"] += run[-1][2] - run[0][1]
        elif modules:
            total["fwd"] += (run[-1][2] if next_is_node else modules[-1][2]) - modules[0][1]
        elif next_is_node:
            total["fwd"] += run[-1][2] - run[0][1]
    return (*total.values(), end - begin - sum(total.values()))
