"""Why a level of truth cannot be had for a process, and the exact step to get it.

Each rule looks at one thing and is one function. A rule that cannot see enough says nothing: the
injector checks again, with the process in hand, and refuses rather than takes a risk.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from gputap.profiler.target import Ourselves, Target

Level = Literal["host", "framework", "device"]

LEVELS: Final[tuple[Level, ...]] = ("host", "framework", "device")
"""From the least to the most."""

PROVIDED: Final[frozenset[Level]] = frozenset({"framework", "device"})
"""Levels that this version of gputap can capture at all."""

INJECTED: Final[tuple[Level, ...]] = ("framework", "device")
"""Levels that need our library inside the target."""

LEAST_GLIBC: Final = (2, 17)

PERMISSION_CODES: Final = (
    "ptrace_uid",
    "ptrace_capabilities",
    "ptrace_not_dumpable",
    "ptrace_user_namespace",
    "ptrace_refused",
    "seccomp_unknown",
    "yama",
)
BUSY_CODES: Final = ("traced", "tapped", "stopped")


@dataclass(frozen=True, slots=True)
class Obstacle:
    """One thing that stands in the way of tapping a process, or makes it doubtful."""

    code: str
    """Fixed word for programs."""
    what: str
    """The obstacle, in a few words."""
    why: str
    """Why it is one: whole sentences."""
    next_step: str
    """The exact thing to do; empty where nothing can be done."""
    blocks: tuple[Level, ...]
    """Levels that cannot be had; empty for a warning."""


def find_obstacles(target: Target, ours: Ourselves) -> tuple[Obstacle, ...]:
    """Every obstacle for `target`, the ones to remove first before the others."""
    return tuple(obstacle for rule in _RULES for obstacle in rule(target, ours))


def highest_level(found: Sequence[Obstacle]) -> Level | None:
    """The most that can be had now, with this version; None if nothing."""
    blocked = {level for obstacle in found for level in obstacle.blocks}
    free = [level for level in LEVELS if level in PROVIDED and level not in blocked]
    return free[-1] if free else None


def _process_kind(target: Target, ours: Ourselves) -> Iterator[Obstacle]:
    elf = target.elf
    if elf is not None and elf.bits != 64:
        yield Obstacle(
            "bits",
            f"it is a {elf.bits}-bit program",
            "Only 64-bit processes can be tapped.",
            "",
            INJECTED,
        )
    elif elf is not None and elf.machine != ours.machine:
        yield Obstacle(
            "architecture",
            f"it is built for {elf.machine}, and runs here on {ours.machine} by emulation",
            "The agent has to be built for the machine that the process runs on.",
            "",
            INJECTED,
        )
    if target.libc.kind == "static":
        yield Obstacle(
            "static",
            "it is a fully static executable",
            "No library can be loaded into it, and PyTorch cannot be in it.",
            "",
            INJECTED,
        )
    if target.libc.kind == "musl":
        yield Obstacle(
            "musl",
            "it runs on musl, not on glibc",
            "PyTorch publishes no builds for musl, and the agent is not made for it.",
            "Run the job in an image with glibc (Debian, Ubuntu, RHEL).",
            INJECTED,
        )


def _old_libc(target: Target, ours: Ourselves) -> Iterator[Obstacle]:
    numbers = (target.libc.version or "").split(".")
    if target.libc.kind == "glibc" and all(number.isdecimal() for number in numbers):
        version = tuple(int(number) for number in numbers)
        if version < LEAST_GLIBC:
            yield Obstacle(
                "old_libc",
                f"it runs on glibc {target.libc.version}",
                f"The agent needs glibc {'.'.join(map(str, LEAST_GLIBC))} or later.",
                "Run the job in a newer image.",
                INJECTED,
            )


def _pytorch(target: Target, ours: Ourselves) -> Iterator[Obstacle]:
    if target.maps_readable and target.torch is None and target.libc.kind == "glibc":
        yield Obstacle(
            "no_torch",
            "no PyTorch is loaded in it",
            "Neither libtorch nor its Python module is mapped in the process. It may not have "
            "reached `import torch` yet, or it is the launcher of the real ones.",
            "`gputap ps` lists the PyTorch processes.",
            INJECTED,
        )


def _permission(target: Target, ours: Ourselves) -> Iterator[Obstacle]:
    """The kernel's rule for PTRACE_ATTACH (ptrace(2), "Ptrace access mode checking")."""
    if "sys_ptrace" in ours.capabilities:
        if target.namespace_same.get("user") is False and not ours.initial_user_namespace:
            yield Obstacle(
                "ptrace_user_namespace",
                "it is in another user namespace than gputap",
                "Our capabilities count only inside our own user namespace and those below it.",
                "Run gputap on the host, as root.",
                INJECTED,
            )
        return
    if set(target.uids[:3]) != {ours.uid}:
        yield Obstacle(
            "ptrace_uid",
            f"it belongs to uid {target.uid}, and gputap runs as uid {ours.uid}",
            "Without CAP_SYS_PTRACE one may tap only one's own processes.",
            f"Run as that user (`sudo -u '#{target.uid}' gputap ...`) or as root (`sudo gputap "
            f"attach {target.pid}`){_container_step(target)}.",
            INJECTED,
        )
    elif target.permitted_mask & ~ours.permitted_mask:
        yield Obstacle(
            "ptrace_capabilities",
            "it has capabilities that gputap has not",
            "The kernel lets nobody without CAP_SYS_PTRACE into a more privileged process.",
            f"`sudo gputap attach {target.pid}`{_container_step(target)}.",
            INJECTED,
        )
    elif not target.dumpable:
        yield Obstacle(
            "ptrace_not_dumpable",
            "the process has made itself not dumpable",
            "It changed its identity or called prctl(PR_SET_DUMPABLE, 0); then only "
            "CAP_SYS_PTRACE opens it.",
            f"`sudo gputap attach {target.pid}`{_container_step(target)}.",
            INJECTED,
        )


def _yama(target: Target, ours: Ourselves) -> Iterator[Obstacle]:
    scope = ours.yama_scope or 0
    if scope == 0 or (scope < 3 and "sys_ptrace" in ours.capabilities):
        return
    if scope >= 3:
        step = "Set kernel.yama.ptrace_scope below 3 in /etc/sysctl.d and reboot."
    elif scope == 2:
        step = f"`sudo gputap attach {target.pid}`{_container_step(target)}."
    else:
        step = (
            f"`sudo gputap attach {target.pid}`, or `sudo sysctl kernel.yama.ptrace_scope=0` "
            f"until the next boot{_container_step(target)}."
        )
    reasons = {
        1: "Only a process's own ancestors may trace it, and gputap is none.",
        2: "Only processes with CAP_SYS_PTRACE may trace others.",
    }
    yield Obstacle(
        "yama",
        f"Yama forbids it (kernel.yama.ptrace_scope is {scope})",
        reasons.get(scope, "Nobody may trace anything until the next boot."),
        step,
        INJECTED,
    )


def _refused(target: Target, ours: Ourselves) -> Iterator[Obstacle]:
    explained = any(True for rule in (_permission, _yama) for _ in rule(target, ours))
    if not target.maps_readable and not explained:
        yield Obstacle(
            "ptrace_refused",
            "the OS kernel does not let gputap look into it",
            "Uid, capabilities and Yama would allow it, so a security module (SELinux, AppArmor) "
            "or a user namespace above ours forbids it.",
            "Look for the refusal in the audit log (`dmesg`, `ausearch -m avc`), or run gputap on "
            "the host as root.",
            INJECTED,
        )


def _container_step(target: Target) -> str:
    if target.container is None:
        return ""
    if target.container.pod_uid is not None:
        return (
            "; in Kubernetes `kubectl debug POD --target=CONTAINER --profile=sysadmin "
            "--image=IMAGE-WITH-GPUTAP`"
        )
    return (
        f"; in Docker run gputap with `--cap-add SYS_PTRACE "
        f"--pid=container:{target.container.id[:12]}`"
    )


def _busy(target: Target, ours: Ourselves) -> Iterator[Obstacle]:
    if target.tracer_pid:
        name = f" ({target.tracer_name})" if target.tracer_name else ""
        yield Obstacle(
            "traced",
            f"process {target.tracer_pid}{name} is tracing it",
            "A process can have one tracer only: a debugger, strace, or another gputap at the "
            "moment of attaching.",
            "Detach or end the tracer, then try again.",
            INJECTED,
        )
    if target.tapped:
        yield Obstacle(
            "tapped",
            "another gputap is attached to it",
            "One process can be tapped once at a time.",
            "Wait for the other gputap, or end it; `gputap detach` clears what a killed one left.",
            INJECTED,
        )
    if target.state in "Tt" and not target.tracer_pid:
        yield Obstacle(
            "stopped",
            "it is stopped (SIGSTOP or Ctrl-Z)",
            "A stopped process runs nothing, our library neither.",
            f"`kill -CONT {target.pid}`",
            INJECTED,
        )


def _hardening(target: Target, ours: Ourselves) -> Iterator[Obstacle]:
    if target.seccomp == 1:
        yield Obstacle(
            "seccomp_strict",
            "it runs under seccomp's strict mode",
            "Such a process may only read, write and exit; anything else kills it.",
            "",
            INJECTED,
        )
    if target.seccomp == 2:
        yield _seccomp_filter(ours)
    if ours.memfd_noexec == 2 and target.namespace_same.get("pid"):
        yield _needs_a_file("memfd_noexec", "executable memory files are forbidden here")
    if target.has_proc is False:
        yield _needs_a_file("no_proc", "there is no /proc in its mount namespace")
    if target.shadow_stack:
        yield Obstacle(
            "shadow_stack",
            "it runs with a hardware shadow stack",
            "The remote call that starts our thread would look like an attack to the processor."
            " CPython 3.14 and later have another way in, which is then taken.",
            "Start the job with GLIBC_TUNABLES=glibc.cpu.x86_shstk=off",
            () if _takes_scripts(target) else INJECTED,
        )


def _takes_scripts(target: Target) -> bool:
    """CPython 3.14 or later: PEP 768."""
    version = re.match(r"3\.(\d+)", target.python.version or "") if target.python else None
    return version is not None and int(version[1]) >= 14


def _seccomp_filter(ours: Ourselves) -> Obstacle:
    # The kernel shows a filter only to the initial user namespace's CAP_SYS_ADMIN, and only to
    # processes that have no filter themselves.
    readable = (
        "sys_admin" in ours.capabilities
        and ours.initial_user_namespace
        and ours.seccomp in (None, 0)
    )
    if readable:
        return Obstacle(
            "seccomp_filter",
            "it runs under a seccomp filter",
            "The filter is read at attach: if it forbids a system call that we need, the attach is "
            "refused and nothing happens. The usual filters of container runtimes allow them.",
            "",
            (),
        )
    return Obstacle(
        "seccomp_unknown",
        "it runs under a seccomp filter that gputap may not read",
        "Some filters kill a process for a system call that they forbid, so without having read "
        "it we do not try. Reading takes CAP_SYS_ADMIN, and no filter on gputap itself.",
        "Run gputap as root on the host; Docker: add `--privileged`; Kubernetes: `kubectl debug "
        "--profile=sysadmin`.",
        INJECTED,
    )


def _needs_a_file(code: str, what: str) -> Obstacle:
    return Obstacle(
        code,
        what,
        "The agent cannot be loaded from memory, so a copy of it is put into the target's /tmp, "
        "/dev/shm or /var/tmp for the moment of loading. One of them has to allow executables.",
        "",
        (),
    )


def _device(target: Target, ours: Ourselves) -> Iterator[Obstacle]:
    names = {library.name for library in target.cuda}
    if target.torch is not None and "libcuda" not in names:
        yield Obstacle(
            "no_cuda",
            "it uses no CUDA device",
            "libcuda is not mapped: a CPU build of PyTorch, or CUDA was not used so far.",
            "",
            ("device",),
        )
    elif target.torch is not None and "libcupti" not in names:
        yield Obstacle(
            "no_cupti",
            "it has no CUPTI loaded",
            "The device level drives the CUPTI that PyTorch's own build brings along.",
            "Use a PyTorch build with Kineto (all official CUDA builds).",
            ("device",),
        )
    if target.other_profilers:
        yield Obstacle(
            "cupti_held",
            f"{', '.join(target.other_profilers)} is in it",
            "CUPTI serves one profiler at a time (before CUDA 13).",
            "End the other profiler's session.",
            ("device",),
        )


def _clock(target: Target, ours: Ourselves) -> Iterator[Obstacle]:
    if target.namespace_same.get("time") is False:
        yield Obstacle(
            "time_namespace",
            "it is in another time namespace",
            "Its monotonic clock has an offset to ours; unix times are right all the same.",
            "",
            (),
        )


def _host(target: Target, ours: Ourselves) -> Iterator[Obstacle]:
    if not {"bpf", "perfmon"} <= ours.capabilities and "sys_admin" not in ours.capabilities:
        yield Obstacle(
            "no_bpf_capability",
            "gputap has neither CAP_BPF with CAP_PERFMON nor CAP_SYS_ADMIN",
            "The host level watches from the OS kernel with eBPF.",
            "Run as root, or with CAP_BPF and CAP_PERFMON.",
            ("host",),
        )


_Rule = Callable[["Target", "Ourselves"], Iterator[Obstacle]]
_RULES: Final[tuple[_Rule, ...]] = (
    _permission,
    _yama,
    _refused,
    _process_kind,
    _old_libc,
    _busy,
    _pytorch,
    _hardening,
    _device,
    _clock,
    _host,
)
