"""Questions to the Python of a target: each runs one snippet and checks the answer's form.

An answer comes from somebody else's process: it may be missing, late or anything. Everything here
returns plain JSON data, or raises SnippetFailed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from gputap.injectors.library.client import AgentClient, SnippetFailed
from gputap.injectors.library.snippets import Argument, source
from gputap.profiler.frames import Module, ModuleNames, module_names, parse_modules
from gputap.profiler.redact import redact

MEMORY_PERIOD_S: Final = 0.25
"""Least time between two looks at the allocator, each of which takes the GIL for a moment."""


def ask(
    client: AgentClient, snippet: str, *, timeout_s: float = 2.0, **arguments: Argument
) -> dict[str, Any]:
    """Run a snippet and return its JSON object."""
    answer = client.run_python(source(snippet, **arguments), timeout_s)
    try:
        found = json.loads(answer)
    except ValueError as exc:
        raise SnippetFailed(f"`{snippet}` in the target answered no JSON.", status=1) from exc
    if not isinstance(found, dict):
        raise SnippetFailed(f"`{snippet}` in the target answered no JSON object.", status=1)
    return found


def describe(client: AgentClient, *, scan: bool = True, timeout_s: float = 2.0) -> dict[str, Any]:
    """Who the target is. `scan` looks for loaders and optimizers, some 50 ms in slices."""
    found = ask(client, "describe", scan=scan, timeout_s=timeout_s)
    argv = found.get("argv")
    if isinstance(argv, list):
        found["argv"] = list(redact([str(argument) for argument in argv]))
    return found


def counters(client: AgentClient, *, timeout_s: float = 2.0) -> dict[str, Any]:
    """Counters of torch.compile and of the garbage collector, up to now."""
    return ask(client, "counters", timeout_s=timeout_s)


def sample_memory(client: AgentClient, *, period_s: float = MEMORY_PERIOD_S) -> None:
    """Have the allocator's statistics told after steps, in the windows to come."""
    client.sample_python(source("memory"), period_s)


def snapshot(client: AgentClient, *, record_s: float, timeout_s: float) -> dict[str, Any]:
    """The allocator's memory snapshot, pickled and packed, after `record_s` of its history."""
    limit = len(client.memory.section("result")) - 4096
    return ask(
        client, "snapshot", record_s=record_s, limit_bytes=max(limit, 0), timeout_s=timeout_s
    )


def profiler_is_idle(client: AgentClient, *, timeout_s: float = 2.0) -> bool:
    """Whether torch's profiler is surely not at work, nor about to be."""
    return ask(client, "profiler", timeout_s=timeout_s).get("idle") is True


def flight_recorder(
    client: AgentClient, *, since_unix_ns: int = 0, timeout_s: float = 2.0
) -> dict[str, Any]:
    """Collectives that torch's flight recorder holds, newest that fit the mailbox."""
    limit = len(client.memory.section("result")) - 4096
    return ask(
        client,
        "flight_recorder",
        since_unix_ns=since_unix_ns,
        limit_bytes=max(limit, 0),
        timeout_s=timeout_s,
    )


class ModuleResolver:
    """Names of modules by address, remembered: the same module always has the same name."""

    def __init__(self, client: AgentClient, *, timeout_s: float = 2.0) -> None:
        """Ask `client` when needed."""
        self._client = client
        self._timeout_s = timeout_s
        self._there: dict[int, Module] = {}
        self._gone: set[int] = set()
        self._known: dict[int, Module] = {}

    def look(self) -> None:
        """Ask for every module that is there now, so that a window is not disturbed by asking.

        Those that nobody calls take no part in the naming. What was seen before and is not there
        (the self-test's own module) is not asked for again.
        """
        text = self._client.run_python(source("modules", every=True), self._timeout_s)
        self._there = parse_modules(text)
        memory = self._client.memory
        frames, _ = memory.frames(memory.stacks(1, final=True))
        self._gone = set(frames["module_ptr"].tolist()) - set(self._there)

    def __call__(self, addresses: Sequence[int]) -> Mapping[int, tuple[str, str]]:
        """Qualified name and class of the modules at `addresses`; unknown ones are absent."""
        new = [address for address in addresses if address not in self._known]
        self._known.update({a: self._there[a] for a in new if a in self._there})
        new = [a for a in new if a not in self._known and a not in self._gone]
        if new:
            text = self._client.run_python(source("modules", wanted=new), self._timeout_s)
            self._known.update(parse_modules(text))
        names: ModuleNames = module_names(self._known)
        return {address: names[address] for address in addresses if address in names}
