"""Proves in the target which of the chosen offsets are true, before anything relies on them.

Known operators run in known functions on the agent's own thread while a short window is open; what
the agent recorded of them is compared with what they were. The busy threads of the target record in
that window too: theirs is thrown away. What is not proven is left out of the layouts.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from gputap.injectors.library.ask import ask
from gputap.injectors.library.client import AgentClient, SnippetFailed, WindowConfig
from gputap.injectors.library.layouts.cpython import PythonLayout
from gputap.injectors.library.layouts.torch import TorchLayout
from gputap.profiler import schema
from gputap.profiler.agent_memory import AgentMemory, Records
from gputap.profiler.frames import Interned, read_interned
from gputap.profiler.schema import CaptureMode, EventKind, OpField

WINDOW_NS: Final = 500_000_000
"""The window is closed as soon as the answer is there; this is for a gputap that dies meanwhile."""

FUNCTIONS: Final = ("gputap_selftest_inner", "gputap_selftest_outer")
"""Innermost first; the module's own frames lie inside these."""

FORWARD: Final = ("aten::mm", "aten::sum")
BACKWARD: Final = ("MmBackward0", "SumBackward0")
SHAPES: Final = ("[3,5]", "[5,2]")

_MAX_SEQ: Final = 1 << 48

_NEEDS: Final = {
    OpField.SCOPE: "operators cannot be told from autograd nodes by scope",
    OpField.SEQ: "forward and backward cannot be joined by sequence number",
    OpField.FORWARD_TID: "the forward thread of an autograd node is not known",
    OpField.STACK: "no Python stacks",
    OpField.MODULE: "no module names",
    OpField.SHAPES: "no input shapes",
}


@dataclass(frozen=True, slots=True)
class SelfTest:
    """What was proven, the layouts that hold nothing else, and what is missing for which reason.

    Modules have no offsets of their own: without `OpField.MODULE` their addresses mean nothing.
    """

    fields: frozenset[OpField]
    torch: TorchLayout
    python: PythonLayout
    reasons: tuple[str, ...]


def run(
    client: AgentClient,
    torch: TorchLayout,
    python: PythonLayout,
    *,
    trains: bool = False,
    want_shapes: bool = False,
    timeout_s: float = 2.0,
) -> SelfTest:
    """Configure, test, and configure again if not everything is proven.

    `trains` says that the target has run backward passes, so that another one starts nothing new.
    """
    client.configure(torch, python)
    try:
        said, records = _window(client, trains, want_shapes, timeout_s)
    except SnippetFailed as exc:
        why = f"the self-test did not run: {exc.message}"
        tested = _degraded(torch, python, frozenset(), why, want_shapes)
    else:
        tested = judge(said, records, read_interned(client.memory), torch, python, want_shapes)
    if (tested.torch, tested.python) != (torch, python):
        client.configure(tested.torch, tested.python)
    return tested


def _window(
    client: AgentClient, trains: bool, want_shapes: bool, timeout_s: float
) -> tuple[dict[str, Any], Records]:
    _drain(client.memory)
    client.start(
        WindowConfig(
            mode=CaptureMode.FULL, window_ns=WINDOW_NS, want_gc=False, want_shapes=want_shapes
        )
    )
    try:
        said = ask(client, "selftest", trains=trains, timeout_s=timeout_s)
    finally:
        client.stop()
        records = _drain(client.memory)
    tid = said.get("tid")
    return said, records[records["tid"] == (tid if isinstance(tid, int) else 0)]


def _drain(memory: AgentMemory) -> Records:
    chunks = [memory.drain(ring) for ring in memory.pending()]
    return np.concatenate([np.empty(0, schema.dtype(schema.EVENT_RECORD)), *chunks])


# ------------------------------------------------------------------------------------ judging


def judge(
    said: dict[str, Any],
    records: Records,
    interned: Interned,
    torch: TorchLayout,
    python: PythonLayout,
    want_shapes: bool = False,
) -> SelfTest:
    """Compare the records of the test's own thread with what the test said that it did."""
    if said.get("skipped"):
        why = f"the self-test did not run: {said['skipped']}"
        return _degraded(torch, python, frozenset(), why, want_shapes)
    seen = _Seen(said, records, interned)
    if not seen.names_and_times():
        why = "the self-test's own operators were not among the records"
        return _degraded(torch, python, frozenset(), why, want_shapes)
    checks = {
        OpField.SCOPE: torch.scope >= 0 and seen.scopes(),
        OpField.SEQ: torch.seq >= 0 and seen.sequences(),
        OpField.FORWARD_TID: torch.forward_thread_id >= 0 and seen.forward_threads(),
        OpField.STACK: bool(python.enabled) and seen.stacks(),
        OpField.MODULE: bool(python.enabled) and python.frame_locals >= 0 and seen.modules(),
        OpField.SHAPES: want_shapes and torch.inputs >= 0 and seen.shapes(),
    }
    proven = {field for field, held in checks.items() if held}
    return _degraded(torch, python, frozenset(proven | {OpField.NAME_AND_TIME}), "", want_shapes)


def _degraded(
    torch: TorchLayout,
    python: PythonLayout,
    proven: frozenset[OpField],
    reason: str,
    want_shapes: bool,
) -> SelfTest:
    """The layouts with what is not proven left out, and why."""
    torch = replace(
        torch,
        scope=torch.scope if OpField.SCOPE in proven else -1,
        seq=torch.seq if OpField.SEQ in proven else -1,
        # Where the sequence number is not, the name's kind is not either: same string ABI.
        fn_index=torch.fn_index if OpField.SEQ in proven else -1,
        forward_thread_id=torch.forward_thread_id if OpField.FORWARD_TID in proven else -1,
        # Not read at all unless shapes are wanted.
        inputs=torch.inputs if OpField.SHAPES in proven or not want_shapes else -1,
    )
    if OpField.STACK not in proven:
        python = replace(python, enabled=0)
    missing = tuple(
        f"not proven in the target: {what}"
        for field, what in _NEEDS.items()
        if field not in proven and (field != OpField.SHAPES or want_shapes)
    )
    return SelfTest(proven, torch, python, (reason,) if reason else missing)


class _Seen:
    """The records of the self-test's thread, by name."""

    def __init__(self, said: dict[str, Any], records: Records, interned: Interned) -> None:
        self._said = said
        self._interned = interned
        self._by_name: dict[str, list[Any]] = {}
        for record in records:
            self._by_name.setdefault(interned.string(int(record["name_id"])), []).append(record)

    def _all(self, name: str) -> list[Any]:
        return self._by_name.get(name, [])

    def _forward(self, name: str) -> list[Any]:
        """The records within the scope: the backward pass runs a matrix product too."""
        return [
            inner
            for outer in self._all(str(self._said.get("scope")))
            for inner in self._all(name)
            if outer["start_ticks"] <= inner["start_ticks"]
            and inner["start_ticks"] <= inner["end_ticks"] <= outer["end_ticks"]
        ]

    def names_and_times(self) -> bool:
        """The scope was seen, and the operators within it."""
        return all(self._forward(name) for name in FORWARD)

    def scopes(self) -> bool:
        """Each has the kind that it is."""
        expected = {
            str(self._said.get("scope")): EventKind.USER_SCOPE,
            FORWARD[0]: EventKind.OPERATOR,
        }
        if self._said.get("backward"):
            expected[BACKWARD[0]] = EventKind.AUTOGRAD
        return all(
            self._all(name) and all(record["kind"] == kind for record in self._all(name))
            for name, kind in expected.items()
        )

    def _sequence(self, name: str) -> int:
        here = self._forward(name) if name in FORWARD else self._all(name)
        return max((int(record["seq"]) for record in here), default=-1)

    def sequences(self) -> bool:
        """Numbers rise in forward order, and each backward node has its operator's."""
        first, second = (self._sequence(name) for name in FORWARD)
        if not 0 <= first < second < _MAX_SEQ:
            return False
        if not self._said.get("backward"):
            return True
        return [self._sequence(name) for name in BACKWARD] == [first, second]

    def forward_threads(self) -> bool:
        """Backward nodes name one thread of torch's small numbers, operators none."""
        named = {int(r["fwd_tid"]) for name in BACKWARD for r in self._all(name)}
        own = {int(r["fwd_tid"]) for name in FORWARD for r in self._forward(name)}
        return len(named) == 1 and own == {0} and 0 < min(named) < 1 << 24

    def _frames(self) -> Records:
        """The frames of the matrix product."""
        counts = self._interned.frame_counts
        stack = max((int(record["stack_id"]) for record in self._forward(FORWARD[0])), default=0)
        if not 0 < stack <= len(counts):
            return self._interned.frames[:0]
        start = int(counts[: stack - 1].sum())
        return self._interned.frames[start : start + int(counts[stack - 1])]

    def stacks(self) -> bool:
        """The known functions are there, the inner one inside the outer one."""
        codes = self._interned.codes
        functions = [
            self._interned.string(int(codes["name_id"][code_id - 1])).rpartition(".")[2]
            for code_id in self._frames()["code_id"].tolist()
            if 0 < code_id <= len(codes)
        ]
        inner, outer = FUNCTIONS
        if inner not in functions:
            return False
        at = functions.index(inner)
        return functions[at + 1 : at + 2] == [outer]

    def modules(self) -> bool:
        """The innermost module is the one that was called."""
        pointers = [int(p) for p in self._frames()["module_ptr"].tolist() if p]
        module = self._said.get("module")
        return bool(module) and pointers[:1] == [module]

    def shapes(self) -> bool:
        """The matrix product's inputs have their sizes."""
        texts = [self._interned.string(int(r["shape_id"])) for r in self._forward(FORWARD[0])]
        return any(all(shape in _compact(text) for shape in SHAPES) for text in texts)


def _compact(text: str) -> str:
    try:
        return json.dumps(json.loads(text), separators=(",", ":"))
    except ValueError:
        return ""
