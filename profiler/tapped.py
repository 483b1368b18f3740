"""One target within a session: what is read of it, and what the capture says of it in the end."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from gputap.profiler.clock import SessionClock
from gputap.profiler.errors import ProfilerError, TargetGone
from gputap.profiler.frames import StackNames
from gputap.profiler.ingest import Ingest
from gputap.profiler.manifest import (
    ClockManifest,
    DeviceManifest,
    MemoryManifest,
    RankManifest,
)
from gputap.profiler.schema import ClockKind, DropCause, StopReason

if TYPE_CHECKING:
    import pyarrow as pa

    from gputap.profiler.agent_memory import AgentMemory
    from gputap.profiler.device_ingest import DeviceIngest
    from gputap.profiler.memory_samples import MemoryIngest

_CUT: Final = (DropCause.OPEN_AT_CLOSE, DropCause.LATE_END)
"""Events that the window's end cut; a late end is the same event again."""


class Tap(Protocol):
    """One attached target."""

    pid: int
    pause_ns: int
    level: str
    reasons: tuple[str, ...]
    """Why the level is not higher, and what of it is missing."""
    description: dict[str, Any]
    """What the target told of itself, and what was read from outside."""
    memory: AgentMemory

    def prepare(self) -> None:
        """Everything before the window: describe, choose layouts, self-test."""

    def start(self, window_ns: int) -> None:
        """Open the window; it closes by itself after `window_ns`."""

    def stop(self) -> None:
        """Close the window."""

    def raise_if_gone(self) -> None:
        """Raise TargetGone if the target has ended, or runs another program now."""

    def modules(self, addresses: Sequence[int]) -> Mapping[int, tuple[str, str]]:
        """Qualified name and class of the nn.Modules at these addresses; unknown ones absent."""

    wants_device: bool
    """GPU times are asked for."""

    wants_memory: bool
    """There is a device whose memory torch may have: its allocator's statistics are asked for."""

    def device_settled(self) -> str:
        """Wait for the GPU's last records; why there are none, or not all. Empty: all is well."""

    def after(self) -> dict[str, Any]:
        """What the target can tell once the window is closed: counters, flight recorder."""

    def host_tids(self) -> Mapping[int, int]:
        """Thread ids of the target to ours."""

    def detach(self) -> None:
        """Let go. Idempotent, and fine with a target that has ended."""


class Tapped:
    """One tap within a session. `poll` never waits for the target, nor fails with it."""

    def __init__(
        self,
        tap: Tap,
        rank: int,
        write: Callable[[str, pa.Table], object],
        *,
        mode: str,
        offset_ns: int,
    ) -> None:
        """`write` takes rows of a table of this rank; `offset_ns`: unix time minus monotonic."""
        description = tap.description
        self._tap = tap
        self._write = write
        self.manifest = RankManifest(
            rank=rank,
            host=str(description.get("host") or socket.gethostname()),
            pid=tap.pid,
            world_size=description.get("world_size"),
            local_rank=description.get("local_rank"),
            level=tap.level,
            level_reasons=tap.reasons,
            target=description,
            mode=mode,
            pause_ns=tap.pause_ns,
        )
        self._names = StackNames(tap.memory, tap.modules)
        self._ingest = Ingest(
            tap.memory,
            write,
            clock=SessionClock(offset_ns=_offset(tap.memory, offset_ns)),
            modules_of=self._names.modules_of,
            host_tids=tap.host_tids(),
        )
        self._device = self._device_ingest() if tap.wants_device else None
        self._allocator = self._memory_ingest() if tap.wants_memory else None
        self._before: dict[str, int] = {}
        """Counters when the window opened: the self-test's events are not the capture's."""
        self._started = False
        self._after: dict[str, Any] = {}
        self.gone = ""
        """Why the target is no longer there."""

    def _device_ingest(self) -> DeviceIngest:
        # The decoder is loaded only where there is something to decode.
        from gputap.profiler.device_ingest import DeviceIngest
        from gputap.profiler.device_memory import DeviceMemory

        return DeviceIngest(
            DeviceMemory(self._tap.memory),
            self._write,
            strings=self._ingest.strings,
            clock=self._ingest.clock_now,
            host_tids=self._tap.host_tids(),
        )

    def _memory_ingest(self) -> MemoryIngest:
        from gputap.profiler.memory_samples import MemoryIngest

        return MemoryIngest(self._tap.memory, self._write, clock=self._ingest.clock_now)

    # -------------------------------------------------------------------------- the window

    def open(self, window_ns: int) -> None:
        """Open the window."""
        try:
            self._before = self._counters()
            self._tap.start(window_ns)
            self._started = True
            if self._device:
                self._device.window_start_ticks = self._tap.memory.get("window_start_ticks")
        except TargetGone as exc:
            self.gone = exc.message

    def poll(self) -> None:
        """Take what has come, and look whether the target is still there."""
        self._ingest.poll()
        if self._device:
            self._device.poll()
        if self._allocator:
            self._allocator.poll()
        if not self.gone:
            try:
                self._tap.raise_if_gone()
            except ProfilerError as exc:
                self.gone = exc.message

    @property
    def over(self) -> bool:
        """The window has closed, or the target has gone."""
        return bool(self.gone) or self._tap.memory.get("window_end_ticks") != 0

    def close(self) -> None:
        """Close the window."""
        if self._started and not self.gone:
            try:
                self._tap.stop()
            except ProfilerError as exc:
                self.gone = exc.message

    # ---------------------------------------------------------------------------- counters

    @property
    def events(self) -> int:
        """Events taken so far."""
        return self._ingest.events

    @property
    def boundaries(self) -> int:
        """Step boundaries that the agent has seen."""
        return self._since("boundaries")

    @property
    def dropped(self) -> dict[str, int]:
        """Lost events by cause, only causes above zero."""
        causes = [cause for cause in DropCause if cause not in _CUT]
        lost = {cause.name.lower(): self._since(cause.name) for cause in causes}
        return {cause: count for cause, count in lost.items() if count > 0}

    def _counters(self) -> dict[str, int]:
        """The agent's counters, which run on from window to window."""
        memory = self._tap.memory
        names = ("armed_events", "boundaries", "bursts", "recorded_ticks", "user_ticks")
        counters = {name: memory.get(name) for name in names}
        return counters | {cause.name: count for cause, count in memory.dropped().items()}

    def _since(self, name: str) -> int:
        """How far a counter has come since the window opened."""
        return self._counters()[name] - self._before.get(name, 0)

    # --------------------------------------------------------------------------- afterwards

    def finish(self) -> RankManifest:
        """Write what is left, learn the last from the target, let it go."""
        tap = self._tap
        reason = self._finish_device()
        if self._allocator:
            self._allocator.finish()
        if not self.gone:
            try:
                self._after = tap.after()
            except ProfilerError as exc:
                self.gone = exc.message
        tids = tap.host_tids()
        threads = tap.description.get("threads") or ()
        self._ingest.finish(
            main_tid=tap.pid,
            thread_names={tids.get(t["tid"], t["tid"]): t["name"] for t in threads},
        )
        self._write("stacks", self._names.table())
        self.manifest = self._final_manifest(reason)
        with suppress(ProfilerError, OSError):
            tap.detach()
        return self.manifest

    def _finish_device(self) -> str:
        """Take the GPU's last records. Why there are none, or not all; empty: all is well."""
        if not self._device:
            return ""
        reason = ""
        if not self.gone:
            try:
                reason = self._tap.device_settled()
            except ProfilerError as exc:
                self.gone = exc.message
        self._device.finish()
        return reason

    def _final_manifest(self, device_reason: str) -> RankManifest:
        memory, clock = self._tap.memory, self._ingest.clock.clock()
        start, end = memory.get("window_start_ticks"), memory.get("window_end_ticks")
        reasons = [*self._tap.reasons, *([device_reason] if device_reason else [])]
        if self._allocator and self._allocator.failure:
            reasons.append(f"torch's allocator did not tell: {self._allocator.failure}")
        if self.gone:
            reasons.append(f"the target went before the window's end: {self.gone}")
        return replace(
            self.manifest,
            level="device" if self._device and self._device.rows else self.manifest.level,
            level_reasons=tuple(reasons),
            target={**self._tap.description, **self._after},
            clock=ClockManifest(
                offset_ns=clock.offset_ns,
                error_ns=clock.error_ns,
                samples=clock.samples,
                kind=ClockKind(memory.get("clock_kind")).name.lower(),
                drift_ns=clock.drift_ns,
            ),
            window_start_ns=self._unix(start),
            window_end_ns=self._unix(end),
            recorded_ns=self._span(self._since("recorded_ticks")),
            scopes_seen_ns=self._span(self._since("user_ticks")),
            events=self.events,
            armed_events=self._since("armed_events"),
            boundaries=self.boundaries,
            bursts=self._since("bursts"),
            dropped=self.dropped,
            cut=self._since(DropCause.OPEN_AT_CLOSE.name),
            device=self._device_manifest(),
            memory=self._memory_manifest(),
            stop_reason=_stop_reason(memory.get("stop_reason")),
        )

    def _device_manifest(self) -> DeviceManifest | None:
        device, memory = self._device, self._tap.memory
        if not device or not memory.get("device_version"):
            return None
        version = memory.get("device_version")
        return DeviceManifest(
            cuda=f"{version // 100}.{version % 100}",
            cupti=memory.get("device_api_version"),
            devices={str(number): name for number, name in sorted(device.devices.items())},
            rows=device.rows,
            calls=device.calls,
            clock_error_ns=device.error_ns,
            clock_steps=device.clock_steps,
            yields=memory.get("device_yields"),
            left_out={cause: count for cause, count in device.lost.items() if count},
        )

    def _memory_manifest(self) -> MemoryManifest | None:
        allocator = self._allocator
        if not allocator:
            return None
        return MemoryManifest(
            readings=allocator.readings,
            cost_ns=self._span(allocator.cost_ticks),
            missed=allocator.missed,
            nonsense=allocator.nonsense,
            failure=allocator.failure,
        )

    def _unix(self, ticks: int) -> int | None:
        if not ticks:
            return None
        return int(self._ingest.clock.clock().to_unix_ns(np.array([ticks], np.int64))[0])

    def _span(self, ticks: int) -> int:
        """Length in ns of so many ticks."""
        start = self._tap.memory.get("window_start_ticks")
        first, last = self._unix(start), self._unix(start + ticks)
        return last - first if first is not None and last is not None else 0


def _offset(memory: AgentMemory, ours: int) -> int | None:
    """Our offset, unless the target's CLOCK_MONOTONIC is another one (a time namespace)."""
    samples, _ = memory.clock_samples(0)
    if not len(samples):
        return ours
    theirs = int(samples["unix_ns"][-1]) - int(samples["mono_ns"][-1])
    return ours if abs(theirs - ours) < 1_000_000_000 else None


def _stop_reason(number: int) -> str:
    try:
        return StopReason(number).name.lower()
    except ValueError:
        return StopReason.INTERNAL.name.lower()
