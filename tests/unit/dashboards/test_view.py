"""The headline and the figures on top say what the report says, and no more."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gputap.dashboards import view
from gputap.profiler.analysis.model import Finding, Overhead
from tests.sample_report import FINDINGS, MS, rank, sample_report


def test_the_most_important_loss_is_the_headline() -> None:
    claim = "The job waits for data: 113 ms of each 194 ms step (58%)."
    assert view.headline(sample_report()) == claim


def test_no_finding_is_never_called_healthy() -> None:
    said = view.headline(sample_report(findings=()))
    assert said == (
        "No loss stands out in 12 steps; data wait takes 58% of the step, "
        "and 2 questions could not be answered."
    )


def test_an_info_alone_is_no_loss() -> None:
    said = view.headline(sample_report(findings=FINDINGS[2:], abstained=()))
    assert said == "No loss stands out in 12 steps; data wait takes 58% of the step."


def test_no_step_is_said() -> None:
    bare = replace(rank(0), steps=(), steps_found=0, steps_recorded=0, median_step_ns=None)
    said = view.headline(sample_report(ranks=(bare,), findings=()))
    assert said == "No step was found in 30,856 events; the operators are listed below."


def test_nothing_captured_is_said() -> None:
    none = replace(rank(0).overhead, events=0)
    bare = replace(rank(0), steps=(), steps_found=0, overhead=none)
    for ranks in ((), (bare,)):
        said = view.headline(sample_report(ranks=ranks, findings=()))
        assert said == "Nothing was captured: the target ran no PyTorch operator in the window."


def test_a_hostile_claim_stays_one_line() -> None:
    claim = Finding("x", "critical", "Slow\x1b[2J\nstep", (), None, "none")
    assert view.headline(sample_report(findings=(claim,))) == "Slow�[2J�step."


def test_phases_are_the_mean_of_the_whole_recorded_steps() -> None:
    spent = view.step_time([rank(0)])
    assert spent is not None
    recorded = [s for s in rank(0).steps if s.recorded and s.whole]
    assert spent.recorded
    assert spent.steps == len(recorded) == 6
    assert spent.step_ns == sum(s.dur_ns for s in recorded) / 6
    assert sum(part.ns for part in spent.slices) == pytest.approx(spent.step_ns)
    assert spent.gap_ns == sum(s.gap_ns or 0 for s in recorded) / 6


def test_without_recorded_steps_forward_and_backward_are_not_zero_but_unknown() -> None:
    steps = tuple(s for s in rank(0).steps if not s.recorded)
    spent = view.step_time([replace(rank(0), steps=steps)])
    assert spent is not None
    assert not spent.recorded
    assert [part.key for part in spent.slices] == ["data_wait", "optimizer", view.UNRECORDED]
    assert sum(part.share for part in spent.slices) == pytest.approx(1)
    assert spent.gap_ns is None


def test_the_price_is_the_worst_rank_and_the_sum_of_losses() -> None:
    dear = Overhead(0.2, 0.09, None, 5 * MS, 100, {"ring_full": 7})
    cheap = Overhead(0.1, 0.01, None, MS, 50, {"ring_full": 1, "stray_end": 2})
    ranks = (replace(rank(0), overhead=cheap), replace(rank(1), overhead=dear))
    cost = view.price(sample_report(ranks=ranks))
    assert (cost.slowdown_recorded, cost.slowdown_window, cost.pause_ns) == (0.09, None, 5 * MS)
    assert (cost.events, cost.lost, cost.dropped) == (150, 10, {"ring_full": 8, "stray_end": 2})
    assert cost.recorded_share == 12 / 80
    assert view.price_sentence(cost) == (
        "one thread paused for 5.00 ms at attach; recorded steps 9.0% slower; the whole window "
        "not comparable (needs recorded and unrecorded steps); 150 events, "
        "10 (ring full 8, stray end 2) dropped."
    )


def test_steps_of_several_ranks_are_not_added_up() -> None:
    assert view.captured_words(sample_report()).startswith("40 steps on each of 2 ranks found")
    one = sample_report(ranks=(rank(0),))
    assert (
        view.captured_words(one) == "40 steps found, 15% recorded (bursts of whole steps) in 10.0 s"
    )


def test_nested_settings_become_rows() -> None:
    target = {"torch": "2.13", "loader": {"num_workers": 2, "extra": None}, "opts": [{"lr": 0.1}]}
    assert view.facts(target) == [
        ("torch", "2.13"),
        ("loader: num workers", "2"),
        ("opts 0: lr", "0.1"),
    ]


def test_the_command_is_written_as_typed() -> None:
    assert view.command_words({"command": ["python", "a b.py"]}) == "python 'a b.py'"
    assert view.command_words({}) is None
