"""Which way into a process: ptrace, or the interpreter's own door where ptrace cannot be used."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

from gputap.injectors.attach import inject
from gputap.injectors.injection import Injection, Way
from gputap.injectors.remote_exec import offered, remote_exec
from gputap.profiler.errors import AttachFailed, TargetError, TargetNotPermitted
from gputap.profiler.target import Target, require

Via: TypeAlias = Way | Literal["auto"]

WAYS: Final[tuple[Via, ...]] = ("auto", "ptrace", "remote-exec")


@dataclass(frozen=True, slots=True)
class Entry:
    """How to get in."""

    via: Via = "auto"
    trust_seccomp: bool = False
    """Go ahead where the target's seccomp filter cannot be read."""
    timeout_s: float = 10.0


CANNOT_STOP: Final = frozenset({"no_safe_thread", "shadow_stack"})
"""Refusals of ptrace that say nothing against the other way. Both come before anything was done."""

NOT_NEEDED: Final = ("traced", "shadow_stack")
"""Obstacles that stand in the way of ptrace alone."""


def enter(target: Target, *, agent: Path, entry: Entry) -> Injection:
    """Get `agent` into `target`. Raises an error of the target's tree; then nothing has changed.

    `auto` is ptrace, and where no thread may be stopped the interpreter's own door, if it has one.
    """
    trusted = ("seccomp_unknown",) if entry.trust_seccomp else ()
    if entry.via == "remote-exec":
        require(target, ignore=(*NOT_NEEDED, *trusted))
        if target.seccomp == 2 and not entry.trust_seccomp:
            raise TargetNotPermitted(
                f"Process {target.pid} runs under a seccomp filter, which only ptrace can read.",
                hint="Leave --via out; or, if you know that it kills nobody, add --trust-seccomp.",
            )
        return remote_exec(target.pid, agent=agent, timeout_s=entry.timeout_s)
    try:
        require(target, ignore=trusted)
        return inject(
            target.pid,
            agent=agent,
            timeout_s=entry.timeout_s,
            trust_seccomp=entry.trust_seccomp,
        )
    except TargetError as refused:
        # Only where a thread could be stopped has a filter been read.
        unread = refused.code == "shadow_stack" and target.seccomp == 2 and not entry.trust_seccomp
        if entry.via == "ptrace" or refused.code not in CANNOT_STOP or unread:
            raise
        return _by_the_door(target, refused, agent, entry.timeout_s)


def _by_the_door(target: Target, refused: TargetError, agent: Path, timeout_s: float) -> Injection:
    if not offered(target.pid):
        raise refused
    try:
        return remote_exec(target.pid, agent=agent, timeout_s=timeout_s)
    except TargetError as exc:
        raise AttachFailed(f"{refused.message} {exc.message}", hint=exc.hint) from exc
