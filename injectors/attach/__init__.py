"""The way in by ptrace: gets the agent library into a running process by its pid.

`inject` pauses one thread of the target for a fraction of a millisecond and refuses, with a reason,
wherever that could do harm. `check` says beforehand whether it would. Both run `gputap-inject`
(`native/`), a helper that lives for some milliseconds and may be killed at any of them.
"""

from __future__ import annotations

import os
from pathlib import Path

from gputap.injectors.attach.helper import Answer, binary, run_helper
from gputap.injectors.attach.refusals import refusal
from gputap.injectors.injection import Injection
from gputap.profiler.errors import AttachFailed, UsageError

__all__ = ["Injection", "binary", "check", "inject"]


def inject(
    pid: int,
    *,
    agent: Path,
    timeout_s: float = 10.0,
    ring_count: int = 0,
    ring_capacity: int = 0,
    trust_seccomp: bool = False,
) -> Injection:
    """Get `agent` into process `pid`, or wake the one that is there if it is the same build.

    `ring_count` and `ring_capacity` (records, a power of two) are hints to a new agent; 0 is its
    default. `trust_seccomp` goes ahead where the target's seccomp filter cannot be read; a filter
    that kills on `memfd_create`, `clone3` or their like would then kill the target. Raises a
    `TargetError`, or `TargetGone`; the target runs on as before in every case.
    """
    options = ["--agent", str(agent), "--ring-count", str(ring_count)]
    options += ["--ring-capacity", str(ring_capacity)]
    if trust_seccomp:
        options.append("--trust-seccomp")
    answer = _ask(pid, options, timeout_s=timeout_s)
    return Injection(
        pid=pid,
        control_fd=_whole(answer, "control_fd"),
        reused=answer.get("reused") is True,
        tid=_whole(answer, "tid"),
        pause_ns=_whole(answer, "pause_ns"),
        stops=_whole(answer, "stops"),
        resolve_ns=_whole(answer, "resolve_ns"),
        load_ns=_whole(answer, "load_ns"),
        total_ns=_whole(answer, "total_ns"),
    )


def check(pid: int, *, timeout_s: float = 5.0) -> None:
    """Raise what `inject` would raise before it touches `pid`; return if nothing stands in the way.

    Stops a thread for a moment only where a seccomp filter has to be read. Says nothing about
    threads: a process all of whose threads are stuck in the kernel passes here, and `inject` would
    time out.
    """
    _ask(pid, ["--dry-run"], timeout_s=timeout_s)


def _ask(pid: int, options: list[str], *, timeout_s: float) -> Answer:
    if pid <= 0 or pid == os.getpid():
        raise UsageError(f"{pid} is no process that gputap can attach to.")
    command = ["--pid", str(pid), "--timeout-ms", str(max(1, round(timeout_s * 1000))), *options]
    answer = run_helper(command, timeout_s=timeout_s)
    code = answer.get("error")
    if code is not None:
        raise refusal(str(code), str(answer.get("detail", "")))
    return answer


def _whole(answer: Answer, key: str) -> int:
    value = answer.get(key)
    if not isinstance(value, int):
        raise AttachFailed(f"gputap-inject gave no {key}: it is of another version than gputap.")
    return value
