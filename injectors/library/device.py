"""Switches the agent's device level on and off: CUPTI in the target, and what it says of it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gputap.profiler.cupti.abi import ActivityKind, Result
from gputap.profiler.schema import Command, DeviceState

if TYPE_CHECKING:
    from gputap.injectors.library.client import AgentClient
    from gputap.profiler.agent_memory import AgentMemory

STANDARD_KINDS: Final = (
    ActivityKind.CONCURRENT_KERNEL,
    ActivityKind.MEMCPY,
    ActivityKind.MEMCPY2,
    ActivityKind.MEMSET,
    ActivityKind.SYNCHRONIZATION,
    ActivityKind.OVERHEAD,
    ActivityKind.DEVICE,
    ActivityKind.CONTEXT,
    ActivityKind.STREAM,
)
"""Never KERNEL: it makes kernels run one after another."""

START_S: Final = 20.0
"""The first time CUPTI instruments every loaded module: seconds in a large program."""

STOP_S: Final = 4.0

TAKE_OVER_S: Final = 2.0
"""The agent asks for CUPTI again five times a second."""

_POLL_S: Final = 0.002
_ON_THE_WAY: Final = (DeviceState.OFF, DeviceState.STARTING)
_RESULTS: Final = {int(result): result.name for result in Result}


@dataclass(frozen=True, slots=True)
class DeviceConfig:
    """What CUPTI is to record."""

    kinds: Iterable[ActivityKind] = STANDARD_KINDS
    calls: bool = True
    """Also the CUDA calls that launch, copy, wait and allocate."""
    flush_ms: int = 100
    record_limit: int = 5_000_000
    """After so many records a window has had enough: some versions of CUPTI run out of memory after
    25 million, and give zeros from then on."""


def switch_on(client: AgentClient, config: DeviceConfig) -> DeviceState:
    """Have the agent take CUPTI, and wait until it has it or says why not.

    What it cannot have now it goes on asking for, until the window ends: CUDA may be loaded later.
    """
    memory = client.memory
    memory.set("device_kinds", sum(1 << int(kind) for kind in config.kinds))
    memory.set("device_calls", int(config.calls))
    memory.set("device_flush_ms", config.flush_ms)
    memory.set("device_torch_is_idle", 0)
    memory.set("device_record_limit", memory.get("device_records") + config.record_limit)
    client.command(Command.DEVICE_ON)
    return _await(client, START_S, _ON_THE_WAY)


def take_over_from_torch(client: AgentClient) -> DeviceState:
    """After HELD, where torch's profiler is idle: take CUPTI's records without a subscription.

    torch's profiler subscribes at its first profile and never gives that back. The agent agrees
    only if no other library of the process calls CUPTI, and lets go when torch wants it again.
    """
    client.memory.set("device_torch_is_idle", 1)
    return _await(client, TAKE_OVER_S, (DeviceState.HELD, DeviceState.STARTING))


def switch_off(client: AgentClient) -> DeviceState:
    """Have the agent give CUPTI back, its last records fetched."""
    client.command(Command.DEVICE_OFF)
    return settled(client)


def settled(client: AgentClient) -> DeviceState:
    """Wait until what CUPTI still had has come, after the window's end."""
    return _await(client, STOP_S, (DeviceState.ON, DeviceState.STARTING, DeviceState.STOPPING))


def state_of(memory: AgentMemory) -> DeviceState:
    """How the agent stands with CUPTI; FAILED if it says something unknown."""
    value = memory.get("device_state")
    known = value in DeviceState._value2member_map_
    return DeviceState(value) if known else DeviceState.FAILED


def reason(memory: AgentMemory, state: DeviceState) -> str:
    """Why there are no GPU times, or not all; empty where there is nothing to say."""
    yields = memory.get("device_yields")
    if state in (DeviceState.OFF, DeviceState.ON) and yields:
        times = "once" if yields == 1 else f"{yields} times"
        return f"GPU times stop while the target's own profiler runs, which it did {times}"
    message, error = memory.text("device_message"), memory.get("device_error")
    failed = f" ({_RESULTS.get(error, error)})" if error else ""
    return {
        DeviceState.OFF: "",
        DeviceState.ON: "",
        DeviceState.STARTING: "CUPTI was still starting when the window ended",
        DeviceState.STOPPING: "CUPTI had not given back all records when gputap let go",
        DeviceState.YIELDED: "CUPTI was left to a profiler that the target itself runs",
        DeviceState.NO_CUPTI: "no CUPTI library is loaded in the process",
        DeviceState.NO_DRIVER: message + failed,
        DeviceState.HELD: "another profiler holds CUPTI (the target's own, Nsight or a debugger)",
        DeviceState.FAILED: f"CUPTI failed: {message}{failed}",
        DeviceState.BUDGET: f"GPU times end early: {message}",
        DeviceState.STUCK: "a call into CUPTI does not return",
    }[state]


def _await(client: AgentClient, timeout_s: float, passing: Iterable[DeviceState]) -> DeviceState:
    deadline = time.monotonic() + timeout_s
    while (state := state_of(client.memory)) in passing and time.monotonic() < deadline:
        client.raise_if_gone()
        time.sleep(_POLL_S)
    return state
