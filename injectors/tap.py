"""One target tapped: the way in, the agent in it, what it can tell."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from gputap.injectors.built import AGENT, INJECT, built
from gputap.injectors.entry import Entry, enter
from gputap.injectors.library import ask, selftest
from gputap.injectors.library.client import AgentClient, SnippetFailed, WindowConfig
from gputap.injectors.library.detect import detect
from gputap.injectors.library.device import (
    DeviceConfig,
    reason,
    settled,
    switch_on,
    take_over_from_torch,
)
from gputap.profiler.agent_memory import AgentMemory
from gputap.profiler.binaries import SIMULATED
from gputap.profiler.errors import AttachFailed, ProfilerError, TargetGone
from gputap.profiler.schema import CaptureMode, DeviceState
from gputap.profiler.target import Target, inspect, thread_map

MOST_EVENTS: Final = 4_000_000
"""For a window of bursts: more tells nothing new, and analysing them would take gigabytes."""

PASSING_S: Final = 2.0
"""An injector is through within milliseconds, on a busy machine within some hundreds."""

AUTO: Final = Entry()


class HostTids(dict[int, int]):
    """Thread ids of a process's own pid namespace to ours. A thread that has ended keeps its id."""

    def __init__(self, pid: int) -> None:
        super().__init__()
        self._pid = pid

    def __missing__(self, tid: int) -> int:
        """Look at the threads of now; what is not there is taken as it is."""
        with suppress(ProfilerError):
            self.update(thread_map(self._pid))
        return self.setdefault(tid, tid)


class AgentTap:
    """Attach to one process. Implements `profiler.tapped.Tap`."""

    def __init__(
        self,
        pid: int,
        window: WindowConfig,
        entry: Entry = AUTO,
        device: DeviceConfig | None = None,
    ) -> None:
        """Get in. Raises an error of the target's tree, and then has left nothing behind.

        `device`: what of the GPU is to be recorded; None is level `framework`, nothing of it.
        """
        self.target: Final[Target] = look(pid)
        self.pid = pid
        self.level = "framework"
        injection = enter(self.target, agent=built(AGENT), entry=entry)
        self.pause_ns = injection.pause_ns
        self.reused: Final = injection.reused
        self._window = window
        without = _no_device(self.target) if device else ""
        self._device = None if without else device
        self._client = AgentClient(pid, injection.control_fd)
        self._modules = ask.ModuleResolver(self._client)
        self._tids: Final = HostTids(pid)
        self._before: dict[str, Any] = {}
        self.memory: AgentMemory = self._client.memory
        self.reasons: tuple[str, ...] = (without,) if without else ()
        self.description: dict[str, Any] = _outside(self.target) | {"entered_by": injection.way}
        self.wants_device = self._device is not None
        self.wants_memory = bool(self.target.cuda)

    def prepare(self) -> None:
        """Ask the target who it is, choose the layouts, check them there."""
        told = self._answer(lambda: ask.describe(self._client), "who it is (rank, settings)")
        self.description = _settled(self.description, told, self.target)
        found = detect(self.pid)
        tested = selftest.run(
            self._client,
            found.torch_layout,
            found.python_layout,
            trains=_trains(self.description),
            want_shapes=self._window.want_shapes,
        )
        self.reasons += (*found.reasons, *tested.reasons)
        self.description["proven"] = sorted(field.name.lower() for field in tested.fields)
        if self._window.want_stacks:
            with suppress(SnippetFailed):
                self._modules.look()
        self._before = self._answer(lambda: ask.counters(self._client))
        if self._device:
            self._take_device(self._device)

    def _take_device(self, config: DeviceConfig) -> None:
        state = switch_on(self._client, config)
        # Whoever profiled with torch before still has CUPTI's slot; Nsight would be seen.
        if state is DeviceState.HELD and not self.target.other_profilers:
            with suppress(SnippetFailed):
                if ask.profiler_is_idle(self._client):
                    take_over_from_torch(self._client)

    def start(self, window_ns: int) -> None:
        """Open the window."""
        if self.wants_memory:
            self._watch_memory()
        self._client.start(bounded(replace(self._window, window_ns=window_ns)))

    def _watch_memory(self) -> None:
        """Have the allocator's figures told; a target without Python, say, goes without."""
        try:
            ask.sample_memory(self._client)
        except (AttachFailed, SnippetFailed) as exc:
            self.reasons += (f"torch's allocator cannot be asked: {exc.message}",)

    def stop(self) -> None:
        """Close it; a window that has closed itself is fine."""
        self._client.stop()

    def raise_if_gone(self) -> None:
        """Raise TargetGone if the target has ended, or runs another program now."""
        self._client.raise_if_gone()

    def modules(self, addresses: Sequence[int]) -> Mapping[int, tuple[str, str]]:
        """Names and classes of nn.Modules; those that the target cannot name now are absent."""
        return self._modules(addresses)

    def device_settled(self) -> str:
        """Wait for the GPU's last records; why there are none, or not all. Empty: all is well."""
        return reason(self.memory, settled(self._client)) if self._device else ""

    def after(self) -> dict[str, Any]:
        """What changed over the window, and the flight recorder's collectives."""
        told = {
            "counters_before": self._before,
            "counters_after": self._answer(lambda: ask.counters(self._client)),
        }
        if self.description.get("backend"):
            told["flight_recorder"] = self._answer(lambda: ask.flight_recorder(self._client))
        return told

    def host_tids(self) -> Mapping[int, int]:
        """Thread ids of the target's pid namespace to ours; looks new threads up."""
        return self._tids

    def detach(self) -> None:
        """Let go."""
        self._client.detach()

    def _answer(self, question: Callable[[], dict[str, Any]], what: str = "") -> dict[str, Any]:
        """The answer; {} where Python does not give one, which is said once if `what` is given."""
        try:
            return question()
        except SnippetFailed as exc:
            if what:
                self.reasons += (f"the target did not tell {what}: {exc.message}",)
            return {}


def _no_device(target: Target) -> str:
    """Why there is nothing to ask CUPTI for; empty where there may be."""
    names = {library.name for library in target.cuda}
    if "libcuda" in names or "libcupti" in names:
        return ""
    return "the process uses no CUDA device"


def look(pid: int) -> Target:
    """The target; an injector that a killed gputap has left in it is waited for."""
    deadline = time.monotonic() + PASSING_S
    while (target := inspect(pid)).tracer_name == INJECT and time.monotonic() < deadline:
        time.sleep(0.001)
    return target


def bounded(window: WindowConfig) -> WindowConfig:
    """The same with so small a budget that a long window of bursts stays below `MOST_EVENTS`."""
    if window.mode is not CaptureMode.BURSTS or not window.window_ns:
        return window
    most_ppm = MOST_EVENTS * window.event_cost_ns * 10**6 // window.window_ns
    return replace(window, budget_ppm=max(1, min(window.budget_ppm, most_ppm)))


def _outside(target: Target) -> dict[str, Any]:
    """What /proc tells, for when Python in the target does not answer."""
    return {
        "host": socket.gethostname(),
        "command": list(target.argv),
        "python": target.python.version if target.python else None,
        "torch": {"version": target.torch.version} if target.torch else None,
        "simulated": any(library.name == SIMULATED for library in target.cuda) or None,
    }


def _settled(outside: Mapping[str, Any], told: Mapping[str, Any], target: Target) -> dict[str, Any]:
    """One description: the target's own words first, then what was read from outside."""
    placement = target.placement
    out = {**outside, **{k: v for k, v in told.items() if v is not None}}
    for key in ("rank", "world_size", "local_rank"):
        if out.get(key) is None:
            out[key] = getattr(placement, key)
    out["job"] = placement.job_id
    for key in ("argv", "pid"):
        out.pop(key, None)
    return {k: v for k, v in out.items() if v not in (None, [], {})}


def _trains(description: Mapping[str, Any]) -> bool:
    """An optimizer has state: the target has run backward passes."""
    optimizers = description.get("optimizers") or ()
    return any(isinstance(o, Mapping) and o.get("has_state") for o in optimizers)


def let_go(pid: int) -> str:
    """Clean up what a killed gputap left in a process; says what was found. Idempotent.

    Raises TargetBusy if a living gputap is attached: that one lets go when it is stopped.
    """
    target = inspect(pid)
    if target.control_fd is None:
        return "nothing to let go of"
    try:
        AgentClient(pid, target.control_fd).detach()
    except TargetGone:
        return "nothing to let go of: the agent had let go by itself"
    return "let go"
