"""One target tapped at level `framework`: the way in, the agent in it, what it can tell."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from gputap.injectors.attach import agent_library, inject
from gputap.injectors.library import detect, selftest, snippets
from gputap.injectors.library.client import AgentClient, SnippetFailed, WindowConfig
from gputap.profiler.agent_memory import AgentMemory
from gputap.profiler.errors import ProfilerError
from gputap.profiler.schema import OpField
from gputap.profiler.target import Target, inspect, require, thread_map

DESCRIBE_S: Final = 2.0
"""How long to wait for the target's Python before going on without what it would tell."""

NO_DEVICE: Final = "device level: this version reads no GPU times (CUPTI) yet"


class FrameworkTap:
    """Attach to one process. Implements `profiler.session.Tap`."""

    level = "framework"

    def __init__(self, pid: int, window: WindowConfig, *, timeout_s: float = 10.0) -> None:
        """Get in. Raises an error of the target's tree, and then has left nothing behind."""
        self.target: Final[Target] = inspect(pid)
        require(self.target)
        self.pid: Final = pid
        self._window = window
        injection = inject(pid, agent=agent_library(), timeout_s=timeout_s)
        self.pause_ns: Final = injection.pause_ns
        self._client = AgentClient(pid, injection.control_fd)
        self.memory: Final[AgentMemory] = self._client.memory
        self.reasons: tuple[str, ...] = (NO_DEVICE,)
        self.description: dict[str, Any] = _outside(self.target)
        self._before: dict[str, Any] = {}

    def prepare(self) -> None:
        """Ask the target who it is, choose the layouts, check them there."""
        self.description |= self._ask("describe", "who it is (rank, loaders, optimizers)")
        _settle(self.description, self.target)
        found = detect.detect(self.pid)
        optimizers = self.description.get("optimizers") or ()
        trains = any(isinstance(o, Mapping) and o.get("has_state") for o in optimizers)
        checked = selftest.check(self._client, found, trains=trains)
        self.reasons += (*found.reasons, *checked.reasons)
        self.description["trusted_fields"] = [
            field.name.lower() for field in OpField if checked.op_fields & field
        ]
        self._before = self._ask("counters", "")

    def start(self, window_ns: int) -> None:
        """Open the window."""
        self._client.start(replace(self._window, window_ns=window_ns))

    def stop(self) -> None:
        """Close it; a window that has closed itself is fine."""
        self._client.stop()

    def modules(self, addresses: Sequence[int]) -> Mapping[int, tuple[str, str]]:
        """Names and classes of nn.Modules; those that the target cannot name now are absent."""
        said = self._ask("modules", "", wanted=list(addresses))
        found = said.get("modules") or {}
        return {int(address): (str(row[0]), str(row[1])) for address, row in found.items()}

    def after(self) -> dict[str, Any]:
        """What changed over the window, and the flight recorder's collectives."""
        counters = self._ask("counters", "")
        recorder: dict[str, Any] = {}
        if self.description.get("backend"):
            recorder = self._ask("flight_recorder", "")
        return {
            "counters_before": self._before,
            "counters_after": counters,
            "flight_recorder": recorder,
        }

    def host_tids(self) -> Mapping[int, int]:
        """Thread ids of the target's pid namespace to ours."""
        with suppress(ProfilerError):
            self._tids = getattr(self, "_tids", {}) | thread_map(self.pid)
        return getattr(self, "_tids", {})

    def detach(self) -> None:
        """Let go."""
        self._client.detach()

    def _ask(self, snippet: str, what: str, **arguments: Any) -> dict[str, Any]:
        """Run a snippet; {} where Python does not answer, said once if `what` is given."""
        try:
            answer = json.loads(self._client.run_python(snippets.source(snippet, **arguments), DESCRIBE_S))
        except (SnippetFailed, ValueError) as exc:
            if what:
                self.reasons += (f"the target did not tell {what}: {_words(exc)}",)
            return {}
        return answer if isinstance(answer, dict) else {}


def _words(exc: Exception) -> str:
    return exc.message if isinstance(exc, ProfilerError) else f"its answer made no sense ({exc})"


def _outside(target: Target) -> dict[str, Any]:
    """What /proc tells, for when Python in the target does not answer."""
    return {
        "host": socket.gethostname(),
        "pid": target.pid,
        "command": list(target.argv),
        "python": str(target.python.version) if target.python else None,
        "torch": {"version": target.torch.version} if target.torch else None,
    }


def _settle(description: dict[str, Any], target: Target) -> None:
    """One rank, world size and job, from torch.distributed if it said, else the environment."""
    placement = target.placement
    for key in ("rank", "world_size", "local_rank"):
        if description.get(key) is None:
            description[key] = getattr(placement, key)
    description["job"] = placement.job_id
    description.pop("argv", None)
    problems = description.pop("problems", None)
    if problems:
        description["problems"] = problems
