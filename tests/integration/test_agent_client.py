"""The real agent in a training process: commanded, read, proven, let go.

The agent is loaded by the target itself here (ctypes); the way in by ptrace has its own tests.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from gputap.injectors.library import ask, selftest
from gputap.injectors.library.client import AgentClient, SnippetFailed, WindowConfig
from gputap.injectors.library.detect import detect
from gputap.profiler import schema
from gputap.profiler.errors import TargetBusy, TargetGone
from gputap.profiler.frames import StackNames
from gputap.profiler.schema import AgentState, CaptureMode, EventKind, OpField

AGENT = Path(__file__).resolve().parents[2] / "injectors/bin/libgputap_agent.so"

pytestmark = [
    pytest.mark.skipif(not AGENT.exists(), reason="the agent is not built (make build)"),
    pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed"),
]

TARGET = """
import ctypes, json, sys, threading
import torch, torch.nn as nn

class Enter(ctypes.Structure):
    _fields_ = [("size", ctypes.c_uint64), ("dlsym", ctypes.c_void_p), ("dlopen", ctypes.c_void_p),
                ("pthread_create", ctypes.c_void_p), ("ring_count", ctypes.c_uint32),
                ("ring_capacity", ctypes.c_uint32), ("control_fd", ctypes.c_int32),
                ("reserved", ctypes.c_int32)]

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, 8), nn.ReLU())
        self.head = nn.Linear(8, 2)
    def forward(self, x):
        return self.head(self.body(x))

def enter():
    libc = ctypes.CDLL(None)
    agent = ctypes.CDLL(sys.argv[1])
    at = lambda name: ctypes.cast(getattr(libc, name), ctypes.c_void_p).value
    told = Enter(ctypes.sizeof(Enter), at("dlsym"), at("dlopen"), at("pthread_create"))
    status = agent.gputap_agent_enter(ctypes.byref(told))
    return {"status": status, "control_fd": told.control_fd}

def train(model, optimizer, batch):
    while not over.is_set():
        optimizer.zero_grad()
        model(batch).sum().backward()
        optimizer.step()

over = threading.Event()
torch.set_num_threads(1)
model = Net()
optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
def listen():
    for line in sys.stdin:
        if line.strip() == "enter":
            print(json.dumps(enter()), flush=True)
    over.set()
print(json.dumps(enter()), flush=True)
threading.Thread(target=listen, daemon=True).start()
train(model, optimizer, torch.ones(4, 8))
print(json.dumps({"finite": bool(all(p.isfinite().all() for p in model.parameters()))}))
"""


class Target:
    """The training process."""

    def __init__(self, folder: Path) -> None:
        script = folder / "target.py"
        script.write_text(TARGET)
        self.process = subprocess.Popen(
            [sys.executable, script, AGENT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.entered = self.line()

    def line(self) -> dict[str, int]:
        assert self.process.stdout is not None
        found: dict[str, int] = json.loads(self.process.stdout.readline())
        return found

    def enter(self) -> dict[str, int]:
        assert self.process.stdin is not None
        self.process.stdin.write("enter\n")
        self.process.stdin.flush()
        return self.line()

    def end(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            self.process.stdout.close()


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Target]:
    made = Target(tmp_path)
    assert made.entered["status"] == 0
    yield made
    if made.process.poll() is None:
        made.end()
        assert made.process.returncode == 0


def _client(target: Target) -> AgentClient:
    return AgentClient(target.process.pid, target.entered["control_fd"])


def _capture(client: AgentClient, window: WindowConfig, seconds: float) -> np.ndarray:
    client.start(window)
    chunks = [np.empty(0, schema.dtype(schema.EVENT_RECORD))]
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        chunks += [client.memory.drain(ring) for ring in client.memory.pending()]
        time.sleep(0.005)
    client.stop()
    chunks += [client.memory.drain(ring) for ring in client.memory.pending()]
    return np.concatenate(chunks)


def test_everything_is_proven_and_captured(target: Target) -> None:
    found = detect(target.process.pid)
    assert found.reasons == ()
    with _client(target) as client:
        tested = selftest.run(
            client, found.torch_layout, found.python_layout, trains=True, want_shapes=True
        )
        assert tested.fields == frozenset(OpField), tested.reasons
        window = WindowConfig(CaptureMode.FULL, want_shapes=True, want_gc=False)
        records = _capture(client, window, 0.3)
        strings = ["", *client.memory.strings(final=True)]
        names = StackNames(client.memory, ask.ModuleResolver(client))
        main = records[records["tid"] == target.process.pid]
        by_name = {strings[i]: main[main["name_id"] == i] for i in np.unique(main["name_id"])}
        assert len(by_name["aten::addmm"]) > 10
        assert set(by_name["AddmmBackward0"]["kind"]) == {EventKind.AUTOGRAD}
        assert (main["end_ticks"] >= main["start_ticks"]).all()
        linears = set(names.modules_of(by_name["aten::addmm"]["stack_id"].tolist()))
        assert linears == {("body.0", "Linear"), ("head", "Linear")}
        functions = set(names.table().column("function").to_pylist())
        # Before 3.11 code objects do not know their class.
        assert {"train", "Net.forward" if sys.version_info >= (3, 11) else "forward"} <= functions
        assert sum(client.memory.dropped().values()) <= 2 * len(client.memory.rings())


def test_modules_are_named_without_disturbing_the_window(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = detect(target.process.pid)
    with _client(target) as client:
        selftest.run(client, found.torch_layout, found.python_layout, trains=True)
        resolver = ask.ModuleResolver(client)
        resolver.look()
        asked: list[str] = []
        run = client.run_python

        def noted(source: str, timeout_s: float = 2.0) -> str:
            asked.append(source)
            return run(source, timeout_s)

        monkeypatch.setattr(client, "run_python", noted)
        records = _capture(client, WindowConfig(CaptureMode.FULL, want_gc=False), 0.2)
        names = StackNames(client.memory, resolver)
        main = records[records["tid"] == target.process.pid]
        found_names = set(names.modules_of(main["stack_id"].tolist()))
        assert {("body.0", "Linear"), ("head", "Linear")} <= found_names
        # The self-test's own module is in the table of frames, too, and has gone since.
        assert asked == []
        # What nobody had seen then is asked for.
        assert resolver([12345]) == {}
        assert len(asked) == 1


def test_describe_and_python_errors(target: Target) -> None:
    with _client(target) as client:
        client.configure(None, None)
        said = ask.describe(client)
        assert said["pid"] == target.process.pid
        assert said["optimizers"][0]["class"] == "SGD"
        with pytest.raises(SnippetFailed, match="ZeroDivisionError"):
            client.run_python("1 / 0")
        assert ask.counters(client)["problems"] == []


def test_only_one_gputap_at_a_time_and_another_one_later(target: Target) -> None:
    with _client(target) as client:
        client.configure(None, None)
        with pytest.raises(TargetBusy):
            _client(target)
    again = target.enter()
    assert again["status"] == 0
    target.entered = again
    with _client(target) as client:
        client.configure(None, None)
        assert client.state == AgentState.CONFIGURED


def test_a_vanished_gputap_closes_the_window(target: Target) -> None:
    with ExitStack() as stack:
        client = stack.enter_context(_client(target))
        found = detect(target.process.pid)
        client.configure(found.torch_layout, None)
        client.start(WindowConfig(CaptureMode.FULL))
        stack.pop_all()
    client.close()
    path = f"/proc/{target.process.pid}/fd/{target.entered['control_fd']}"
    until = time.monotonic() + 5
    from gputap.profiler.agent_memory import AgentMemory

    with AgentMemory(path) as memory:
        while memory.get("window_end_ticks") == 0 and time.monotonic() < until:
            time.sleep(0.02)
        assert memory.get("stop_reason") == schema.StopReason.GPUTAP_GONE


def test_a_killed_target_leaves_its_last_records(target: Target) -> None:
    client = _client(target)
    found = detect(target.process.pid)
    client.configure(found.torch_layout, None)
    client.start(WindowConfig(CaptureMode.FULL))
    time.sleep(0.1)
    target.process.kill()
    target.process.wait()
    with pytest.raises(TargetGone):
        client.stop()
    assert sum(len(client.memory.drain(ring)) for ring in client.memory.pending()) > 0
    client.detach()
    assert target.process.stdin is not None and target.process.stdout is not None
    target.process.stdin.close()
    target.process.stdout.close()
