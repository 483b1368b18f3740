"""Lines, stacks and module names are what the interpreter and the user call them."""

from __future__ import annotations

import dis
import json
import os
import subprocess
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from gputap.profiler import frames, schema
from gputap.profiler.agent_memory import AgentMemory
from gputap.profiler.errors import ProfilerError
from gputap.profiler.frames import Module, StackNames
from tests.fake_agent import FakeAgent

PYENV = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
INTERPRETERS = [Path(sys.executable), *sorted(PYENV.glob("versions/3.*/bin/python"))]

# Dumps every code object of some modules with the line of each of its instructions.
DUMP = """
import argparse, asyncio.base_events, dataclasses, dis, json, sys, typing
def codes(code):
    yield code
    for c in code.co_consts:
        if hasattr(c, "co_code"):
            for d in codes(c): yield d
out = []
for m in (argparse, asyncio.base_events, dataclasses, typing):
    source = open(m.__file__, encoding="utf-8").read()
    for code in codes(compile(source, m.__file__, "exec")):
        lines, here = [], None
        if hasattr(code, "co_lines"):
            for start, end, line in code.co_lines():
                lines.append([start, end, line or 0])
        else:
            starts = list(dis.findlinestarts(code)) + [(len(code.co_code), 0)]
            for (start, line), (end, _) in zip(starts, starts[1:]):
                lines.append([start, end, line])
        table = code.co_linetable if hasattr(code, "co_linetable") else code.co_lnotab
        out.append([code.co_name, code.co_firstlineno, table.hex(), lines])
print(json.dumps([list(sys.version_info[:2]), out]))
"""


@pytest.mark.parametrize("python", INTERPRETERS, ids=lambda p: p.parts[-3])
def test_lines_are_those_of_the_interpreter(python: Path) -> None:
    run = subprocess.run([python, "-c", DUMP], capture_output=True, text=True, check=False)
    if run.returncode:
        pytest.skip(f"{python} is too old")
    version, codes = json.loads(run.stdout)
    if version < [3, 8]:
        pytest.skip("older than anything that runs torch 2")
    assert len(codes) > 500
    for name, first, table, lines in codes:
        ends, found = frames.line_ranges(tuple(version), bytes.fromhex(table), first)
        for start, end, line in lines:
            for at in range(start, end, 2):
                run_ = int(np.searchsorted(ends, at, side="right"))
                assert run_ < len(found) and found[run_] == line, (name, at)


def test_a_line_by_instruction() -> None:
    code = test_a_line_by_instruction.__code__
    for start, end, line in code.co_lines():
        if line is not None:
            for lasti in (start, end - 2):
                found = frames.line_of(
                    sys.version_info[:2], code.co_linetable, code.co_firstlineno, lasti
                )
                assert found == line
    assert frames.line_of((3, 11), code.co_linetable, code.co_firstlineno, -1) == 0
    assert frames.line_of((3, 11), code.co_linetable, code.co_firstlineno, 1 << 20) == 0


@pytest.mark.parametrize("version", [(3, 8), (3, 10), (3, 11)])
def test_damaged_line_tables_never_raise(version: tuple[int, int]) -> None:
    rng = np.random.default_rng(3)
    for length in range(60):
        table = rng.integers(0, 256, length, np.uint8).tobytes()
        ends, lines = frames.line_ranges(version, table, 10)
        assert len(ends) == len(lines)
        frames.line_of(version, table, 10, 40)


# ---------------------------------------------------------------------------------- modules


def test_one_model_keeps_its_names_and_its_loss_is_prefixed() -> None:
    modules = {
        1: Module("", "Net", "Net", 1),
        2: Module("enc.0", "Linear", "Net", 1),
        3: Module("", "CrossEntropyLoss", "CrossEntropyLoss", 3),
    }
    assert frames.module_names(modules) == {
        1: ("", "Net"),
        2: ("enc.0", "Linear"),
        3: ("CrossEntropyLoss", "CrossEntropyLoss"),
    }


def test_several_models_are_told_apart() -> None:
    modules = {
        1: Module("", "Net", "Net", 1),
        2: Module("a", "Linear", "Net", 1),
        3: Module("", "Net", "Net", 3),
        4: Module("a", "Linear", "Net", 3),
        5: Module("", "Critic", "Critic", 5),
        6: Module("b", "Linear", "Critic", 5),
    }
    names = frames.module_names(modules)
    assert [names[i][0] for i in range(1, 7)] == [
        "Net",
        "Net.a",
        "Net#1",
        "Net#1.a",
        "Critic",
        "Critic.b",
    ]


def test_a_lone_module_is_the_root() -> None:
    assert frames.module_names({7: Module("", "Linear", "Linear", 7)}) == {7: ("", "Linear")}
    assert frames.module_names({}) == {}


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "[]",
        "null",
        '{"modules": []}',
        '{"modules": {"x": ["a", "b", "c", 1]}}',
        '{"modules": {"1": ["a", 2, "c", 1]}}',
        '{"modules": {"1": ["a"]}}',
        '{"modules": {"1": null}}',
    ],
)
def test_nonsense_for_modules_is_left_out(answer: str) -> None:
    assert frames.parse_modules(answer) == {}


# ----------------------------------------------------------------------------------- stacks


def _inner() -> types.CodeType:
    return _inner.__code__


@pytest.fixture
def agent() -> Iterator[FakeAgent]:
    with FakeAgent() as fake:
        layout = np.zeros(1, schema.dtype(schema.PYTHON_LAYOUT))
        layout["version"] = sys.version_info[0] * 256 + sys.version_info[1]
        fake.header["python_layout"][:] = layout.view(np.uint8)
        yield fake


def test_rows_of_stacks(agent: FakeAgent) -> None:
    code = _inner()
    lasti = list(dis.get_instructions(code))[-1].offset
    line = next(x for s, e, x in code.co_lines() if s <= lasti < e)
    f = agent.code("f", "a.py", code.co_firstlineno, code.co_linetable)
    call = agent.code("Module._wrapped_call_impl", "module.py", 1700, is_module_call=True)
    agent.stack([(f, lasti), (call, -1, 0xA0), (f, -1), (call, -1, 0xB0)])
    agent.stack([(99, 4)])
    asked: list[Sequence[int]] = []

    def modules(addresses: Sequence[int]) -> Mapping[int, tuple[str, str]]:
        asked.append(addresses)
        return {0xB0: ("", "Net")}

    names = StackNames(AgentMemory(agent.path), modules)
    assert names.modules_of([1, 2, 0, 77]) == [
        ("", "Net"),
        (None, None),
        (None, None),
        (None, None),
    ]
    assert asked == [[0xA0, 0xB0]]
    table = names.table()
    assert table.schema == schema.arrow_schema(schema.STACKS)
    rows = table.to_pylist()
    assert [r["stack_id"] for r in rows] == [1, 1, 1, 1, 2]
    assert [r["frame"] for r in rows] == [0, 1, 2, 3, 0]
    assert [r["function"] for r in rows] == ["f", "Module._wrapped_call_impl"] * 2 + [None]
    assert [r["line"] for r in rows] == [line, 1700, code.co_firstlineno, 1700, 0]
    assert [r["module"] for r in rows] == [None, None, None, "", None]
    assert [r["module_class"] for r in rows] == [None, None, None, "Net", None]
    assert rows[0]["file"] == "a.py"


def test_stacks_that_come_later_are_learnt(agent: FakeAgent) -> None:
    call = agent.code("Module._call_impl", "module.py", is_module_call=True)
    names = StackNames(AgentMemory(agent.path), lambda new: {p: (f"m{p}", "M") for p in new})
    agent.stack([(call, 0, 1)])
    assert names.modules_of([1]) == [("m1", "M")]
    agent.stack([(call, 0, 2), (call, 0, 1)])
    agent.stack([(call, 0, 1)])
    agent._stacks[2]["ready"] = 0
    assert names.modules_of([3, 2]) == [("m1", "M"), (None, None)]
    agent._stacks[2]["ready"] = 1
    assert names.modules_of([2, 3]) == [("m2", "M"), ("m1", "M")]


def test_a_target_that_does_not_answer_leaves_modules_unnamed_and_is_asked_again(
    agent: FakeAgent,
) -> None:
    call = agent.code("Module._call_impl", "module.py", is_module_call=True)
    agent.stack([(call, 0, 5)])
    answers = iter([None, {5: ("late", "M")}])

    def modules(addresses: Sequence[int]) -> Mapping[int, tuple[str, str]]:
        answer = next(answers)
        if answer is None:
            raise ProfilerError("busy")
        return answer

    names = StackNames(AgentMemory(agent.path), modules)
    assert names.modules_of([1]) == [(None, None)]
    assert names.modules_of([1]) == [(None, None)]
    assert names.table().to_pylist()[0]["module"] == "late"


def test_no_stacks_at_all(agent: FakeAgent) -> None:
    names = StackNames(AgentMemory(agent.path), lambda _: {})
    assert names.modules_of([]) == []
    assert names.table().num_rows == 0


def test_the_frame_that_cpython_hides_below_an_init_is_left_out(agent: FakeAgent) -> None:
    init = agent.code("Thing.__init__", "a.py", 7)
    hidden = agent.code("__init__", "__init__")
    again = agent.code("__init__", "__init__")
    own = agent.code("__init__", "b.py", 9)
    agent.stack([(init, -1), (hidden, 0), (own, -1)])
    agent.stack([(again, 0)])
    agent.stack([(own, -1)])
    rows = StackNames(AgentMemory(agent.path), lambda _: {}).table().to_pylist()
    assert [(r["stack_id"], r["frame"], r["function"]) for r in rows] == [
        (1, 0, "Thing.__init__"),
        (1, 1, "__init__"),
        (3, 0, "__init__"),
    ]


def test_module_pointers_are_those_of_all_stacks(agent: FakeAgent) -> None:
    call = agent.code("Module._call_impl", "module.py", is_module_call=True)
    agent.stack([(call, 0, 9), (call, 0, 3), (call, 0, 0)])
    agent.stack([(call, 0, 9)])
    interned = frames.read_interned(AgentMemory(agent.path))
    assert frames.module_pointers(interned) == [3, 9]
