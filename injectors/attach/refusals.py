"""What the refusals of `gputap-inject` are in the error tree, and what to do about each."""

from __future__ import annotations

from typing import Final, NamedTuple

from gputap.profiler.errors import (
    AttachFailed,
    TargetBusy,
    TargetError,
    TargetGone,
    TargetNotFound,
    TargetNotPermitted,
    TargetUnsupported,
)


class Refusal(NamedTuple):
    """The error that a code stands for; `hint` None keeps the hint of the error's class."""

    error: type[TargetError | TargetGone]
    hint: str | None


AGAIN: Final = "The target runs on as before. Try again; if it repeats, run `gputap doctor PID`."
HOST_LEVEL: Final = "`gputap doctor PID` says what is possible for this process."

REFUSALS: Final[dict[str, Refusal]] = {
    "no_process": Refusal(TargetNotFound, None),
    "zombie": Refusal(TargetNotFound, None),
    "kernel_thread": Refusal(TargetNotFound, None),
    "thread": Refusal(TargetNotFound, "Give the pid of the process, not of one of its threads."),
    "not_permitted": Refusal(
        TargetNotPermitted,
        "Run as the target's user or with CAP_SYS_PTRACE (`sudo gputap ...`; in Kubernetes: "
        "shareProcessNamespace and the SYS_PTRACE capability). With Yama's ptrace_scope at 1 or 2 "
        "CAP_SYS_PTRACE is needed even for one's own processes; at 3 nothing can attach.",
    ),
    "seccomp_unknown": Refusal(
        TargetNotPermitted,
        "Run gputap with CAP_SYS_ADMIN and without a seccomp profile of its own, so that the "
        "filter can be read; or, if you know that the profile answers with an error instead of "
        "killing (the default profiles of Docker and containerd do), say so with --trust-seccomp.",
    ),
    "seccomp_kill": Refusal(
        TargetNotPermitted,
        "Allow the system call in the target's seccomp profile, and start the target anew.",
    ),
    "seccomp_denied": Refusal(
        TargetNotPermitted,
        "Allow the system call in the target's seccomp profile, and start the target anew.",
    ),
    "traced": Refusal(
        TargetBusy, "End the other tracer (gdb, strace, a profiler), then try again."
    ),
    "busy": Refusal(TargetBusy, "Wait for the other gputap, then try again."),
    "stopped": Refusal(TargetBusy, "Let it run (`kill -CONT PID`), then try again."),
    "architecture": Refusal(
        TargetUnsupported, "gputap attaches to 64-bit processes of its own architecture."
    ),
    "static": Refusal(TargetUnsupported, HOST_LEVEL),
    "musl": Refusal(TargetUnsupported, "Run the job on a glibc image; PyTorch has no musl wheels."),
    "no_libc": Refusal(TargetUnsupported, HOST_LEVEL),
    "old_libc": Refusal(TargetUnsupported, "Run the job on glibc 2.17 or newer."),
    "missing_symbol": Refusal(TargetUnsupported, HOST_LEVEL),
    "shadow_stack": Refusal(
        TargetUnsupported,
        "Start the target with GLIBC_TUNABLES=glibc.cpu.x86_shstk=off to allow attaching.",
    ),
    "no_safe_thread": Refusal(
        AttachFailed,
        "Nothing was changed. Try again later, or with a longer timeout; a process whose threads "
        "are all stuck in a driver or on a disk cannot be entered until one comes back.",
    ),
    "call_stuck": Refusal(AttachFailed, AGAIN),
    "call_failed": Refusal(AttachFailed, AGAIN),
    "thread_failed": Refusal(
        AttachFailed,
        "Look at the limits on threads and memory: `ulimit -u`, the cgroup's pids.max and "
        "memory.max.",
    ),
    "load_timeout": Refusal(AttachFailed, AGAIN),
    "load_failed": Refusal(
        AttachFailed,
        "A container without /proc and with every directory mounted noexec cannot load a library.",
    ),
    "agent_failed": Refusal(AttachFailed, AGAIN),
    "agent_missing": Refusal(
        AttachFailed, "In a checkout run `make build`; else reinstall gputap's wheel."
    ),
    "target_gone": Refusal(TargetGone, None),
}
"""Every code that the helper knows; a test compares it with the helper's sources."""


def refusal(code: str, detail: str) -> TargetError | TargetGone:
    """The error for a refusal; an unknown code is a failed attach."""
    error, hint = REFUSALS.get(code, Refusal(AttachFailed, None))
    sentence = f"{detail[:1].upper()}{detail[1:]}".rstrip(".")
    return error(f"{sentence}." if sentence else code, hint=hint, code=code)
