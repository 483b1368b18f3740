"""Steps from hand-made scopes: sites, cycles, edges of the window."""

from __future__ import annotations

import numpy as np
import pytest

from gputap.profiler.analysis.steps import Cuts, cut_steps
from tests.analysis_cases import FrameRow, Tape

LOADER = "enumerate(DataLoader)#_MultiProcessingDataLoaderIter.__next__"


def at(line: int, function: str = "train") -> tuple[FrameRow, ...]:
    return (
        ("wrapper", "torch/optim.py", 530, None, None),
        (function, "/app/t.py", line, None, None),
    )


def optimizers(pattern: str, *, stacks: bool = True, pause: int = 100) -> Tape:
    """One scope per letter; A stands at line 10, B at 20, and so on; a space pauses longer."""
    tape, now = Tape(), 0
    for letter in pattern:
        if letter == " ":
            now += 10 * pause
            continue
        line = 10 * (1 + ord(letter) - ord("A"))
        name = "Optimizer.step#Adam.step" if stacks else f"Optimizer.step#{letter}.step"
        stack = at(line) if stacks else ()
        tape.add(name, now, now + 50, kind="user_scope", stack=stack)
        now += 50 + pause
    return tape


def ends(tape: Tape, **more: object) -> list[int]:
    cuts, _ = cut_steps(tape.data(mode="always_on", **more))
    return cuts.end.tolist()


@pytest.mark.parametrize(
    ("pattern", "steps"),
    [
        ("AAAAAA", 6),
        ("ABABABAB", 4),
        ("BABABAB", 4),
        ("ABCABCABC", 3),
        ("AAAABAAAABAAAAB", 12),
        ("AAAAABBBBB", 10),
        ("AB", 1),
        ("A", 1),
    ],
)
def test_optimizers_further_down_end_the_same_step(pattern: str, steps: int) -> None:
    assert len(ends(optimizers(pattern))) == steps


@pytest.mark.parametrize(("pattern", "steps"), [("AB AB AB AB", 4), ("B AB AB A", 3), ("AAAAA", 5)])
def test_without_stacks_a_cycle_turns_at_the_longest_pause(pattern: str, steps: int) -> None:
    found = ends(optimizers(pattern, stacks=False))
    assert len(found) == steps
    assert steps == 5 or set(np.diff(found).tolist()) == {50 + 100 + 50 + 100 + 1000}


def test_steps_meet_and_the_first_is_cut() -> None:
    tape = optimizers("AAAA")
    cuts, _ = cut_steps(tape.data(mode="always_on", window=(-500, 700)))
    assert cuts.start[1:].tolist() == cuts.end[:-1].tolist()
    assert cuts.start[0] == -500
    assert cuts.whole.tolist() == [False, True, True, True]


def test_a_wait_in_the_window_shows_the_first_step_whole() -> None:
    tape = Tape()
    for k in range(4):
        tape.add(LOADER, 1000 * k, 1000 * k + 100, kind="user_scope")
        tape.add("Optimizer.step#SGD.step", 1000 * k + 800, 1000 * k + 900, kind="user_scope")
    cuts, _ = cut_steps(tape.data(mode="always_on", window=(-50, 4000)))
    assert cuts.whole.tolist() == [True] * 4
    assert cuts.start.tolist() == [0, 900, 1900, 2900]


def test_wrapped_optimizers_count_once() -> None:
    tape = Tape()
    for k in range(3):
        tape.add("Optimizer.step#Sharded.step", 100 * k, 100 * k + 50, kind="user_scope")
        tape.add("Optimizer.step#Adam.step", 100 * k + 5, 100 * k + 45, kind="user_scope")
    assert ends(tape) == [50, 150, 250]


def test_the_thread_with_most_boundaries_runs_the_steps() -> None:
    tape = optimizers("AAAA")
    tape.add("Optimizer.step#Adam.step", 10, 20, kind="user_scope", tid=7)
    cuts, _ = cut_steps(tape.data(mode="always_on"))
    assert (cuts.tid, len(cuts)) == (1, 4)


def test_nothing_that_marks_a_step_gives_none() -> None:
    tape = Tape()
    tape.add("aten::mm", 0, 10)
    cuts, _ = cut_steps(tape.data())
    assert (len(cuts), cuts.boundary) == (0, "none")
    empty, _ = cut_steps(Tape().data())
    assert len(empty) == 0


def bursty(gated: bool) -> Tape:
    """Steps of 1000 ns, operators in every third group of four, scopes too if gated."""
    tape = Tape()
    for k in range(36):
        recorded = k // 4 % 3 == 1
        if gated and not recorded and k % 12 != 3:  # the boundary that begins a burst is seen
            continue
        tape.add("Optimizer.step#SGD.step", 1000 * k + 800, 1000 * k + 1000, kind="user_scope")
        if recorded:
            for j in range(5):
                tape.add("aten::mm", 1000 * k + 100 * j, 1000 * k + 100 * j + 50)
            tape.add("aten::add_", 1000 * k + 810, 1000 * k + 990)
    return tape


def test_steps_between_bursts_count_when_scopes_are_always_seen() -> None:
    cuts, _ = cut_steps(bursty(gated=False).data(mode="bursts", scopes_seen_ns=36_000))
    assert int(cuts.whole.sum()) == 35
    assert int(cuts.recorded.sum()) == 12


@pytest.mark.parametrize("seen_ns", [None, 12_000])
def test_what_lies_between_bursts_is_no_step_when_scopes_are_not_seen(seen_ns: int | None) -> None:
    cuts, _ = cut_steps(bursty(gated=True).data(mode="bursts", scopes_seen_ns=seen_ns))
    whole = cuts.whole
    assert int((cuts.recorded & whole).sum()) == 12
    assert (cuts.end - cuts.start)[whole].tolist() == [1000] * 12


def test_a_burst_that_ends_inside_a_step_did_not_record_it() -> None:
    tape = bursty(gated=False)
    late = [
        r for r in tape.rows if not (r["kind"] == "operator" and 19_200 < r["start_ns"] < 20_000)
    ]
    cuts = cut_steps(Tape(late).data(mode="bursts", scopes_seen_ns=36_000))[0]
    assert recorded_numbers(cuts) == [4, 5, 6, 7, 16, 17, 18, 28, 29, 30, 31]


def recorded_numbers(cuts: Cuts) -> list[int]:
    return np.flatnonzero(cuts.recorded).tolist()
