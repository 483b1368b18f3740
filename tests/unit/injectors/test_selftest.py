"""The self-test believes what the records prove, and nothing else."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator

import pytest

from gputap.injectors.library import selftest
from gputap.injectors.library.client import AgentClient
from gputap.injectors.library.layouts import torch as torch_layouts
from gputap.injectors.library.layouts.cpython import TABLE
from gputap.profiler.schema import Command, EventKind, OpField
from tests.fake_agent import FakeAgent

TID = 4711
MODULE = 0x7F0000001000
TORCH, _ = torch_layouts.choose("2.13.0", True)
PYTHON = TABLE[3, 11]
ALL = frozenset(OpField)


class Target:
    """A fake agent whose mailbox does what the snippet would make a real one record."""

    def __init__(self) -> None:
        self.agent = FakeAgent()
        self.scope_kind = EventKind.USER_SCOPE
        self.backward_seq = (41, 42)
        self.fwd_tid = 3
        self.functions = ("Linear.forward", "gputap_selftest_inner", "gputap_selftest_outer")
        self.pointer = MODULE
        self.shapes = "[[3, 5], [5, 2]]"
        self.answer = {"tid": TID, "scope": "scope", "module": MODULE, "backward": True}
        self.status = 0
        self.agent.serve(self.handle)

    def handle(self, command: Command) -> None:
        if command == Command.RUN_PYTHON:
            if self.answer.get("tid") and not self.status:
                self.record()
            self.agent.answer(json.dumps(self.answer), self.status)
        self.agent.acknowledge()

    def record(self) -> None:
        agent = self.agent
        codes = [agent.code(name, "snippet.py") for name in self.functions]
        call = agent.code("Module._wrapped_call_impl", "module.py", is_module_call=True)
        stack = agent.stack([codes[0], (call, 0, self.pointer), *codes[1:]])
        later = agent.stack([codes[2]])
        agent.emit(0, 15, 16, "aten::mm", tid=TID + 1, seq=7)  # somebody else's
        agent.emit(1, 20, 30, "aten::mm", tid=TID, seq=41, stack_id=stack, shapes=self.shapes)
        agent.emit(1, 30, 40, "aten::sum", tid=TID, seq=42, stack_id=stack)
        agent.emit(1, 10, 50, "scope", self.scope_kind, tid=TID)
        for name, seq in zip(("MmBackward0", "SumBackward0"), self.backward_seq, strict=True):
            agent.emit(1, 60, 70, name, EventKind.AUTOGRAD, 0, TID, seq, fwd_tid=self.fwd_tid)
        agent.emit(1, 62, 65, "aten::mm", tid=TID, stack_id=later)


@pytest.fixture
def target() -> Iterator[Target]:
    made = Target()
    with made.agent:
        yield made


def _run(target: Target, *, want_shapes: bool = True) -> selftest.SelfTest:
    with AgentClient(os.getpid(), target.agent.fd) as client:
        return selftest.run(client, TORCH, PYTHON, want_shapes=want_shapes)


def test_a_true_layout_is_proven_whole(target: Target) -> None:
    tested = _run(target)
    assert tested == selftest.SelfTest(ALL, TORCH, PYTHON, ())


def test_shapes_that_nobody_wants_are_not_missed(target: Target) -> None:
    tested = _run(target, want_shapes=False)
    assert tested.fields == ALL - {OpField.SHAPES}
    assert tested.reasons == ()
    assert tested.torch == TORCH


def test_wrong_sequence_numbers_are_not_believed(target: Target) -> None:
    target.backward_seq = (0, 1 << 60)
    tested = _run(target)
    assert tested.fields == ALL - {OpField.SEQ}
    assert (tested.torch.seq, tested.torch.fn_index, tested.torch.scope) == (-1, -1, TORCH.scope)
    assert "sequence" in tested.reasons[0]
    header = target.agent.header["torch_layout"]
    assert bytes(header) == bytes(tested.torch.packed())


def test_wrong_scope_forward_thread_and_shapes_are_not_believed(target: Target) -> None:
    target.scope_kind = EventKind.OPERATOR
    target.fwd_tid = 0
    target.shapes = "[[5, 3]]"
    tested = _run(target)
    assert tested.fields == {
        OpField.NAME_AND_TIME,
        OpField.SEQ,
        OpField.STACK,
        OpField.MODULE,
    }
    assert len(tested.reasons) == 3


def test_wrong_stacks_switch_stacks_off(target: Target) -> None:
    target.functions = ("a", "gputap_selftest_outer", "gputap_selftest_inner")
    tested = _run(target)
    assert not {OpField.STACK} & tested.fields
    assert tested.python.enabled == 0


def test_a_wrong_module_is_not_believed(target: Target) -> None:
    target.pointer = MODULE + 8
    tested = _run(target)
    assert tested.fields == ALL - {OpField.MODULE}
    assert tested.python == PYTHON


def test_without_a_backward_pass_the_forward_thread_stays_unproven(target: Target) -> None:
    target.answer["backward"] = False
    target.backward_seq = (-1, -1)
    target.fwd_tid = 0
    tested = _run(target)
    assert tested.fields == ALL - {OpField.FORWARD_TID}


def test_a_test_that_did_not_run_proves_nothing(target: Target) -> None:
    target.status = -errno.ETIMEDOUT
    tested = _run(target)
    assert tested.fields == frozenset()
    assert (tested.torch.seq, tested.torch.scope, tested.python.enabled) == (-1, -1, 0)
    assert len(tested.reasons) == 1
    target.status = 0
    target.answer = {"skipped": "torch is not imported"}
    assert "torch is not imported" in _run(target).reasons[0]
    target.answer = {"tid": 999, "scope": "scope"}
    assert "not among the records" in _run(target).reasons[0]
