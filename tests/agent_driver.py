"""Targets with an agent in them, and what it recorded, for the tests of the native agent."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from gputap.injectors.library.client import AgentClient, WindowConfig
from gputap.injectors.library.layouts import cpython, torch
from gputap.profiler import schema
from gputap.profiler.agent_memory import AgentMemory, Records
from gputap.profiler.schema import AgentState, CaptureMode, EventKind

ROOT = Path(__file__).resolve().parents[1]
AGENT = Path(os.environ.get("GPUTAP_AGENT", ROOT / "injectors" / "bin" / "libgputap_agent.so"))
TORCH = torch.TorchLayout(
    version=2013,
    cxx11_abi=1,
    thread_id=88,
    scope=96,
    fn_index=192,
    seq=200,
    forward_thread_id=304,
    inputs=208,
)


def _own_runtime(size: int) -> bytes:
    runtime = ctypes.c_char.in_dll(ctypes.pythonapi, "_PyRuntime")
    return ctypes.string_at(ctypes.addressof(runtime), size)


PYTHON = cpython.choose(sys.version_info[:2], _own_runtime)[0]


LOOP = """
stop = threading.Event()
def loop():
    while not stop.is_set(): step()
def background():
    global runner
    stop.clear()
    runner = threading.Thread(target=loop)
    runner.start()
def finish():
    stop.set()
    runner.join()
"""
"""For a `Target` with a function `step`: runs it on a thread, from `background()` to `finish()`."""


@dataclass
class Event:
    """One record with its ids looked up."""

    name: str
    kind: EventKind
    start: int
    end: int
    tid: int
    seq: int
    fwd_tid: int
    depth: int
    flags: int
    stack: list[tuple[str, int]] = field(default_factory=list)
    """Function name and module pointer of each frame, innermost first."""
    stack_id: int = 0
    shapes: str = ""

    def holds(self, other: Event) -> bool:
        return self.start <= other.start and other.end <= self.end


class Target:
    """A process that runs what it is told, with torch imported."""

    def __init__(self, setup: str = "", *, torch: bool = True) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(ROOT / "tests" / "agent_target.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        self._output = b""
        self._taps: list[Tap] = []
        if torch:
            self.do("import os, sys, time, threading, gc, ctypes, torch; torch.set_num_threads(1)")
        self.do(setup)

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, source: str) -> None:
        """Say what to do, without waiting for it."""
        assert self._process.stdin is not None
        self._process.stdin.write((json.dumps(source) + "\n").encode())
        self._process.stdin.flush()

    def answer(self, timeout_s: float = 30) -> Any:
        """Wait for the next answer; raises what the target raised."""
        assert self._process.stdout is not None
        fd, deadline = self._process.stdout.fileno(), time.monotonic() + timeout_s
        while b"\n" not in self._output:
            if not select.select([fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise TimeoutError("the target does not answer")
            data = os.read(fd, 65536)
            if not data:
                raise RuntimeError(f"the target ended with {self._process.wait(5)}")
            self._output += data
        line, _, self._output = self._output.partition(b"\n")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["value"]

    def do(self, source: str, timeout_s: float = 30) -> Any:
        """Run `source` in the target; what it leaves in `value` comes back."""
        self.send(source)
        return self.answer(timeout_s)

    def enter(self, ring_count: int = 0, ring_capacity: int = 0) -> int:
        """Let the agent in; the control descriptor in the target."""
        return int(self.do(f"value = enter({str(AGENT)!r}, {ring_count}, {ring_capacity})"))

    def attach(self, ring_count: int = 0, ring_capacity: int = 0) -> Tap:
        """Let the agent in, take it over, configure it."""
        tap = Tap(self, self.enter(ring_count, ring_capacity))
        self._taps.append(tap)
        return tap

    def let_go(self) -> bool:
        """Close every tap; true if the agent has gone from the process."""
        for tap in self._taps:
            tap.client.close()
        self._taps.clear()
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline:
            if not any(name.startswith("gputap") for name in threads_of(self.pid)):
                return True
            time.sleep(0.005)
        return False

    def end(self, timeout_s: float = 20) -> int:
        """Close its input and wait; the exit code."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        return self._process.wait(timeout_s)

    def __enter__(self) -> Target:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(10)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if not self._process.stdin.closed:
            self._process.stdin.close()
        self._process.stdout.close()


class Tap:
    """gputap's side of one attach."""

    def __init__(self, target: Target, fd: int) -> None:
        assert fd >= 0, os.strerror(-fd)
        self.target = target
        self.fd = fd
        self.client = AgentClient(target.pid, fd)
        self.client.configure(TORCH, PYTHON)
        self._raw: list[Records] = []

    @property
    def memory(self) -> AgentMemory:
        return self.client.memory

    def start(self, mode: CaptureMode = CaptureMode.FULL, **settings: Any) -> None:
        settings = {"want_gc": False, **settings}
        self.client.start(WindowConfig(mode=mode, **settings))

    def stop(self) -> None:
        self.client.stop()

    def record(self, source: str, mode: CaptureMode = CaptureMode.FULL, **settings: Any) -> Any:
        """Run `source` in the target with the window open."""
        self.start(mode, **settings)
        try:
            return self.target.do(source)
        finally:
            self.stop()

    def drain(self) -> None:
        """Take what is in the rings now."""
        for ring in self.memory.rings():
            self._raw.append(self.memory.drain(ring.index))

    def events(self) -> list[Event]:
        """Everything recorded so far, in order of start."""
        self.drain()
        strings = ["", *self.memory.strings(final=True)]
        stacks = self._stacks(strings)
        empty: Records = np.empty(0, schema.dtype(schema.EVENT_RECORD))
        found = [
            Event(
                name=strings[int(r["name_id"])],
                kind=EventKind(int(r["kind"])),
                start=int(r["start_ticks"]),
                end=int(r["end_ticks"]),
                tid=int(r["tid"]),
                seq=int(r["seq"]),
                fwd_tid=int(r["fwd_tid"]),
                depth=int(r["depth"]),
                flags=int(r["flags"]),
                stack=stacks[int(r["stack_id"])],
                stack_id=int(r["stack_id"]),
                shapes=strings[int(r["shape_id"])],
            )
            for r in np.concatenate([empty, *self._raw])
        ]
        return sorted(found, key=lambda e: (e.start, -e.end))

    def _stacks(self, strings: list[str]) -> list[list[tuple[str, int]]]:
        codes = self.memory.codes(final=True)
        entries = self.memory.stacks(final=True)
        frames, counts = self.memory.frames(entries)
        out: list[list[tuple[str, int]]] = [[]]
        at = 0
        for count in counts.tolist():
            part = frames[at : at + count]
            at += count
            out.append(
                [
                    (strings[int(codes[int(f["code_id"]) - 1]["name_id"])], int(f["module_ptr"]))
                    for f in part
                ]
            )
        return out

    def names(self) -> Counter[str]:
        return Counter(event.name for event in self.events())

    def wait_for_state(self, state: AgentState, timeout_s: float = 10) -> None:
        wait_until(lambda: self.memory.get("state") == state, timeout_s)

    def detach(self) -> None:
        self.client.detach()


def wait_until(condition: Callable[[], bool], timeout_s: float = 10) -> None:
    """Wait for something that another process does."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.005)


def maps_of_agent(pid: int) -> list[str]:
    """Mappings of the control memory."""
    return [
        line for line in Path(f"/proc/{pid}/maps").read_text().splitlines() if "gputap-ctl" in line
    ]


def threads_of(pid: int) -> list[str]:
    names = []
    for path in Path(f"/proc/{pid}/task").glob("*/comm"):
        with contextlib.suppress(OSError):  # it has just ended
            names.append(path.read_text().strip())
    return names
