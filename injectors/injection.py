"""What every way into a process ends in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Way: TypeAlias = Literal["ptrace", "remote-exec"]


@dataclass(frozen=True, slots=True)
class Injection:
    """The agent is in the target and has answered."""

    pid: int
    control_fd: int
    """The control memfd's number in the target: open it as `/proc/PID/fd/N`."""
    reused: bool
    """True if the agent of an earlier attach was woken; nothing was loaded."""
    tid: int
    """The thread that was paused."""
    pause_ns: int
    """For how long, an upper bound. By ptrace: from asking it to stop to letting it go. By
    remote-exec: as long as our script ran in it. Other threads are not paused."""
    stops: int
    """How often a thread was stopped until one was at a safe point; 0 by remote-exec."""
    resolve_ns: int
    load_ns: int
    total_ns: int
    way: Way = "ptrace"
