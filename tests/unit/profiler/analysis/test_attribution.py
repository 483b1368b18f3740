"""Operators, modules and the backward join, with exact figures."""

from __future__ import annotations

import numpy as np
import pytest

from gputap.profiler.analysis.attribution import attribute
from gputap.profiler.analysis.load import Frame, RankData
from gputap.profiler.analysis.modules import merge_modules, module_totals
from gputap.profiler.analysis.operators import merge_operators, operator_totals, source
from tests.analysis_cases import FrameRow, Tape


def stack(module: str, line: int) -> tuple[FrameRow, ...]:
    return (
        ("linear", "/usr/lib/torch/nn/functional.py", 5, None, None),
        ("_call", "/usr/lib/torch/nn/modules/module.py", 7, module, "Linear"),
        ("forward", "/app/net.py", line, None, None),
        ("_call", "/usr/lib/torch/nn/modules/module.py", 7, "", "Net"),
    )


def two_layers() -> RankData:
    """Two layers forward, then backward; the second node's number was also seen by `aten::t`."""
    tape = Tape()
    tape.add("aten::linear", 0, 100, stack=stack("a", 10), seq=1)
    tape.add("aten::addmm", 10, 70, stack=stack("a", 10), seq=1)
    tape.add("aten::linear", 200, 260, stack=stack("b.inner", 11), seq=2)
    tape.add("aten::t", 300, 310, seq=2)
    tape.add("aten::mm", 320, 350, stack=stack("b.inner", 12), seq=2)
    for at, seq in ((400, 2), (600, 1)):
        tape.add("autograd::engine::evaluate_function: AddmmBackward0", at, at + 100, seq=seq)
        tape.add("AddmmBackward0", at + 5, at + 95, kind="autograd", seq=seq, fwd_tid=1)
        tape.add("aten::mm", at + 10, at + 60)
        tape.add("aten::copy_", at + 20, at + 30)
    tape.add("aten::detach", 800, 830)
    tape.add("aten::detach", 805, 825)
    return tape.data()


def test_operators_count_total_and_self() -> None:
    data = two_layers()
    everything = np.ones(len(data.events), np.bool_)
    totals = operator_totals(data, attribute(data, 1), everything)
    found = {o.name: o for o in merge_operators([totals], 1000)}
    assert (found["aten::linear"].count, found["aten::linear"].total_ns) == (2, 160)
    assert found["aten::linear"].self_ns == 100
    assert (found["aten::mm"].count, found["aten::mm"].total_ns) == (3, 130)
    assert found["aten::mm"].self_ns == 30 + 40 + 40
    assert found["AddmmBackward0"].kind == "autograd"
    assert found["AddmmBackward0"].self_ns == 80
    assert found["aten::mm"].mean_ns == 43
    assert found["aten::mm"].share == pytest.approx(0.11)


def test_a_name_inside_itself_counts_once_in_the_total() -> None:
    data = two_layers()
    everything = np.ones(len(data.events), np.bool_)
    totals = {o.name: o for o in operator_totals(data, attribute(data, 1), everything)}
    assert (totals["aten::detach"].count, totals["aten::detach"].total_ns) == (2, 30)
    assert totals["aten::detach"].self_ns == 30


def test_backward_belongs_to_the_module_of_its_forward_operator() -> None:
    data = two_layers()
    everything = np.ones(len(data.events), np.bool_)
    place = attribute(data, 1)
    tree = {m.name: m for m in merge_modules([module_totals(data, place, everything)], 1000)}
    assert tree["a"].self_forward_ns == 100
    assert tree["a"].self_backward_ns == 100
    assert tree["b.inner"].self_forward_ns == 60 + 30
    assert tree["b.inner"].self_backward_ns == 100
    assert tree["b"].total_ns == tree["b.inner"].total_ns == 190
    assert tree["b"].self_forward_ns == 0
    assert tree[""].total_ns == 390
    assert list(tree) == ["", "a", "b", "b.inner"]
    assert [m.module_class for m in tree.values()] == ["Net", "Linear", "", "Linear"]


def test_top_source_is_the_users_line() -> None:
    data = two_layers()
    everything = np.ones(len(data.events), np.bool_)
    totals = {o.name: o for o in operator_totals(data, attribute(data, 1), everything)}
    assert totals["aten::linear"].top_source == "/app/net.py:11 forward"
    assert (totals["aten::copy_"].top_module, totals["aten::detach"].top_module) in (
        ("a", None),
        ("b.inner", None),
    )


def test_source_skips_torch_and_generated_code() -> None:
    inner = Frame("f", "<eval_with_key>.1", 1, None, None)
    user = Frame("g", "/home/me/torchlike/x.py", 3, None, None)
    assert source((inner, Frame("t", "/x/torch/y.py", 2, None, None), user)) == (
        "/home/me/torchlike/x.py:3 g"
    )
    assert source((inner,)) is None


def test_only_chosen_events_count() -> None:
    data = two_layers()
    chosen = data.events.start < 200
    totals = operator_totals(data, attribute(data, 1), chosen)
    assert {o.name: o.count for o in totals} == {"aten::linear": 1, "aten::addmm": 1}
    assert operator_totals(data, attribute(data, 1), ~(chosen | ~chosen)) == []
