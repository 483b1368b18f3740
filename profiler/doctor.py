"""What is possible on this machine and for one process, and the exact step to get more.

Every check is cheap, has no effect on the target, and answers even where it cannot see: then its
status is `unknown`, never `ok`.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import re
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

from gputap.profiler.obstacles import LEVELS, PROVIDED, Level, Obstacle
from gputap.profiler.procfs import PROC, Process, ProcessGone, sysctl
from gputap.profiler.target import Ourselves, Target, inspect, ourselves, parse_container

Status = Literal["ok", "warn", "fail", "unknown"]

SUPPORTED_MACHINES: Final = ("x86_64",)
LEAST_KERNEL: Final = (4, 1)
"""The first that tells thread ids across pid namespaces (NSpid); memfd and OFD locks are older."""
LEAST_FREE_BYTES: Final = 256 << 20


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at, on this machine or on the target."""

    name: str
    status: Status
    finding: str
    next_step: str = ""
    """The exact thing to do to get more; empty where all is well or nothing helps."""


@dataclass(frozen=True, slots=True)
class LevelVerdict:
    """Whether one level of truth can be had for the target now."""

    level: Level
    possible: bool
    because: tuple[str, ...]
    """Why not; empty if possible."""
    next_steps: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Everything `gputap doctor` has to say."""

    machine: tuple[Check, ...]
    target: Target | None = None
    target_checks: tuple[Check, ...] = ()
    levels: tuple[LevelVerdict, ...] = ()

    @property
    def level_obtainable(self) -> Level | None:
        """The highest level that can be had for the target now."""
        return self.target.level_obtainable if self.target else None


def diagnose(
    pid: int | None = None,
    *,
    native: Sequence[Path] = (),
    output: Path | None = None,
    proc: Path = PROC,
) -> Diagnosis:
    """Check this machine, and process `pid` if given.

    Args:
        pid: the process that somebody wants to tap.
        native: files of gputap's own native parts that have to exist.
        output: folder that captures will be written to; its free space is checked.
        proc: where /proc is mounted.

    Raises:
        TargetNotFound: there is no such process.
    """
    ours = ourselves(proc)
    machine = tuple(_machine_checks(ours, native, output or Path.cwd(), proc))
    if pid is None:
        return Diagnosis(machine)
    target = inspect(pid, proc=proc, ours=ours)
    return Diagnosis(machine, target, tuple(_target_checks(target)), level_verdicts(target))


def to_json(diagnosis: Diagnosis) -> dict[str, Any]:
    """The diagnosis as plain data for `--json`."""
    data: dict[str, Any] = _encodable(asdict(diagnosis))
    data["level_obtainable"] = diagnosis.level_obtainable
    if diagnosis.target is not None:
        data["target"]["command"] = diagnosis.target.command
    return data


def _encodable(value: Any) -> Any:
    """`value` with every string fit for UTF-8: file names need not be."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {key: _encodable(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_encodable(item) for item in value]
    return value


def level_verdicts(target: Target) -> tuple[LevelVerdict, ...]:
    """For every level: can it be had for `target` now, and if not, why and what to do."""
    return tuple(_verdict(level, target.obstacles) for level in LEVELS)


def _verdict(level: Level, found: Sequence[Obstacle]) -> LevelVerdict:
    if level not in PROVIDED:
        return LevelVerdict(level, False, (f"this version of gputap has no {level} level yet",), ())
    blocking = [obstacle for obstacle in found if level in obstacle.blocks]
    steps = dict.fromkeys(obstacle.next_step for obstacle in blocking if obstacle.next_step)
    return LevelVerdict(level, not blocking, tuple(o.what for o in blocking), tuple(steps))


def _machine_checks(
    ours: Ourselves, native: Sequence[Path], output: Path, proc: Path
) -> Iterator[Check]:
    yield _kernel(platform.release(), ours.machine)
    yield _native(native)
    yield _ptrace_capability(ours)
    yield _yama(ours)
    yield _memfd(ours)
    yield _own_seccomp(ours)
    yield _security_modules()
    yield _container(proc, ours)
    yield _bpf(ours, proc)
    yield _uprobes()
    yield _bcc()
    yield _gpus()
    yield _space("captures", output)
    yield _space("temporary files", Path(tempfile.gettempdir()))


def _kernel(release: str, machine: str) -> Check:
    finding = f"Linux {release} on {machine}"
    if machine not in SUPPORTED_MACHINES:
        step = f"The agent is built for {', '.join(SUPPORTED_MACHINES)}."
        return Check("kernel", "fail", finding, step)
    numbers = re.match(r"(\d+)\.(\d+)", release)
    if numbers and (int(numbers[1]), int(numbers[2])) < LEAST_KERNEL:
        step = f"gputap needs Linux {'.'.join(map(str, LEAST_KERNEL))} or later."
        return Check("kernel", "fail", finding, step)
    return Check("kernel", "ok", finding)


def _native(native: Sequence[Path]) -> Check:
    missing = [path.name for path in native if not path.is_file()]
    if not native:
        return Check("native parts", "unknown", "not looked for")
    if missing:
        step = "`make build` in a checkout, or install the wheel."
        return Check("native parts", "fail", f"missing: {', '.join(missing)}", step)
    return Check("native parts", "ok", ", ".join(path.name for path in native))


def _ptrace_capability(ours: Ourselves) -> Check:
    if "sys_ptrace" in ours.capabilities:
        scope = "" if ours.initial_user_namespace else ", inside our own user namespace only"
        return Check("CAP_SYS_PTRACE", "ok", f"we have it{scope}")
    return Check(
        "CAP_SYS_PTRACE",
        "warn",
        f"missing: only processes of uid {ours.uid} can be tapped",
        "`sudo gputap ...`; Docker: `--cap-add SYS_PTRACE`; Kubernetes: securityContext."
        'capabilities.add: ["SYS_PTRACE"]',
    )


def _yama(ours: Ourselves) -> Check:
    scope, may = ours.yama_scope, "sys_ptrace" in ours.capabilities
    if scope is None:
        return Check("ptrace scope", "ok", "no Yama in this OS kernel")
    if scope == 0 or (scope < 3 and may):
        return Check("ptrace scope", "ok", f"kernel.yama.ptrace_scope is {scope}")
    step = (
        "Set it below 3 in /etc/sysctl.d and reboot."
        if scope >= 3
        else "`sudo sysctl kernel.yama.ptrace_scope=0`, or run gputap as root"
        if scope == 1
        else "Run gputap as root."
    )
    return Check("ptrace scope", "fail", f"kernel.yama.ptrace_scope is {scope}", step)


def _memfd(ours: Ourselves) -> Check:
    if ours.memfd_noexec == 2:
        finding = (
            "forbidden (vm.memfd_noexec is 2): the agent is copied to the target's /tmp instead"
        )
        return Check("executable memfd", "warn", finding, "`sudo sysctl vm.memfd_noexec=0`")
    known = (
        "no restriction" if ours.memfd_noexec is None else f"vm.memfd_noexec is {ours.memfd_noexec}"
    )
    return Check("executable memfd", "ok", known)


def _own_seccomp(ours: Ourselves) -> Check:
    if ours.seccomp == 2:
        return Check(
            "seccomp of gputap",
            "warn",
            "we run under a filter ourselves: it may forbid ptrace, and a filter of the target "
            "cannot be read from under one",
            "Docker: `--security-opt seccomp=unconfined`; Kubernetes: seccompProfile: Unconfined",
        )
    if ours.seccomp is None:
        return Check("seccomp of gputap", "unknown", "this OS kernel does not say")
    return Check("seccomp of gputap", "ok", "no filter")


def _security_modules(path: Path = Path("/sys/kernel/security/lsm")) -> Check:
    try:
        modules = path.read_text().strip()
    except OSError:
        return Check("security modules", "unknown", f"{path} cannot be read")
    strict = [name for name in ("selinux", "apparmor", "smack", "tomoyo") if name in modules]
    if not strict:
        return Check("security modules", "ok", modules)
    names = " and ".join(strict)
    return Check(
        "security modules",
        "warn",
        f"{modules}: {names} may refuse ptrace",
        "If attach is refused for no other reason: `dmesg | grep -i denied`, "
        "`ausearch -m avc -ts recent`",
    )


def _container(proc: Path, ours: Ourselves) -> Check:
    inside = _container_signs(proc)
    if not inside:
        return Check("container", "ok", "none: gputap runs on the host")
    host_pids = _sees_host_pids(proc)
    if host_pids:
        return Check("container", "ok", f"in a container ({inside}) that sees the host's processes")
    return Check(
        "container",
        "warn",
        f"in a container ({inside}) that sees only its own processes",
        "To tap others: Docker `--pid=host` or `--pid=container:NAME`; Kubernetes hostPID: true or "
        "shareProcessNamespace: true",
    )


def _container_signs(proc: Path) -> str | None:
    for file, name in (("/.dockerenv", "docker"), ("/run/.containerenv", "podman")):
        if os.path.exists(file):
            return name
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        return "kubernetes"
    cgroup = Process(os.getpid(), proc).read("cgroup") or b""
    container = parse_container(cgroup.decode("utf-8", "replace"))
    return (container.runtime or "container") if container else None


def _sees_host_pids(proc: Path) -> bool:
    # Only the first pid namespace shows the OS kernel's own threads.
    try:
        return Process(2, proc).kernel_thread
    except ProcessGone:
        return False


def _bpf(ours: Ourselves, proc: Path) -> Check:
    """For the host level. It is not in this version: the finding is for information."""
    code = probe_bpf()
    unprivileged = sysctl("kernel.unprivileged_bpf_disabled", proc)
    btf = "BTF" if os.path.exists("/sys/kernel/btf/vmlinux") else "no BTF"
    tracefs = "tracefs" if os.path.isdir("/sys/kernel/tracing/events") else "no tracefs"
    facts = f"{btf}, {tracefs}, unprivileged_bpf_disabled={unprivileged or 'unknown'}"
    if code == 0:
        return Check("eBPF", "ok", f"programs can be loaded ({facts})")
    name = errno.errorcode.get(code, str(code))
    if code in (errno.EPERM, errno.EACCES):
        step = "Run as root, or with CAP_BPF and CAP_PERFMON (Linux 5.8), before that CAP_SYS_ADMIN"
        return Check("eBPF", "warn", f"not permitted: {name} ({facts})", step)
    return Check("eBPF", "warn", f"not available: {name} ({facts})", "")


_SYS_BPF: Final = {"x86_64": 321, "aarch64": 280}
_BPF_PROG_LOAD: Final = 5
_BPF_PROG_TYPE_KPROBE: Final = 2


def probe_bpf() -> int:
    """Try to load a program of two instructions of the type that uprobes need; 0 or an errno.

    It is closed at once and was never attached to anything.
    """
    number = _SYS_BPF.get(platform.machine())
    if number is None:
        return errno.ENOSYS
    # r0 = 0; exit
    program = ctypes.create_string_buffer(struct.pack("<BBhi", 0xB7, 0, 0, 0) + b"\x95" + bytes(7))
    licence = ctypes.create_string_buffer(b"Apache-2.0")
    attributes = ctypes.create_string_buffer(
        struct.pack(
            "<IIQQIIQII16s",
            _BPF_PROG_TYPE_KPROBE,
            2,
            ctypes.addressof(program),
            ctypes.addressof(licence),
            0,
            0,
            0,
            0,
            0,
            b"",
        )
    )
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    fd = libc.syscall(
        ctypes.c_long(number),
        ctypes.c_long(_BPF_PROG_LOAD),
        attributes,
        ctypes.c_long(len(attributes.raw) - 1),
    )
    if fd < 0:
        return ctypes.get_errno()
    os.close(fd)
    return 0


def _uprobes() -> Check:
    if os.path.exists("/sys/bus/event_source/devices/uprobe/type"):
        return Check("uprobes", "ok", "the OS kernel has the uprobe event source")
    if not os.path.isdir("/sys/bus/event_source/devices"):
        return Check("uprobes", "unknown", "/sys is not mounted here")
    return Check("uprobes", "warn", "no uprobe event source: the host level will not work here")


_BCC_PLACES: Final = ("/usr/lib/python3/dist-packages/bcc", "/usr/share/bcc")


def _bcc() -> Check:
    """For the host level. Only looked for: importing it costs 100 MB."""
    place = next((path for path in _BCC_PLACES if os.path.isfile(f"{path}/__init__.py")), None)
    if place:
        return Check("BCC", "ok", place)
    step = (
        "Optional. Debian, Ubuntu: `sudo apt-get install --no-install-recommends python3-bpfcc` "
        "(never `pip install bcc`, which is another project)"
    )
    return Check("BCC", "warn", "not installed; it will serve the host level", step)


def _gpus() -> Check:
    try:
        devices = sorted(name for name in os.listdir("/dev") if re.fullmatch(r"nvidia\d+", name))
    except OSError:
        devices = []
    if not devices:
        return Check(
            "GPUs", "ok", "no /dev/nvidia* here: operators can be captured, kernels cannot"
        )
    nvml = _find_library("libnvidia-ml.so.1")
    if nvml is None:
        step = "Container: `--gpus all` with the utility capability (NVIDIA_DRIVER_CAPABILITIES)"
        return Check("GPUs", "warn", f"{len(devices)} devices, but no libnvidia-ml.so.1", step)
    return Check("GPUs", "ok", f"{len(devices)} devices, {nvml}")


def _find_library(name: str) -> str | None:
    folders = "x86_64-linux-gnu aarch64-linux-gnu wsl/lib ../lib64 . ../local/nvidia/lib64".split()
    places = (os.path.normpath(f"/usr/lib/{folder}/{name}") for folder in folders)
    return next((place for place in places if os.path.exists(place)), None)


def _space(what: str, folder: Path) -> Check:
    name = f"space for {what}"
    existing = next((p for p in (folder, *folder.parents) if p.is_dir()), Path("/"))
    try:
        free = shutil.disk_usage(existing).free
    except OSError as error:
        return Check(name, "unknown", f"{existing}: {error.strerror}")
    if not os.access(existing, os.W_OK):
        return Check(
            name, "fail", f"{existing} is not writable", "Give another folder with -o DIR."
        )
    finding = f"{existing}: {free / 1e9:.1f} GB free"
    if free < LEAST_FREE_BYTES:
        return Check(name, "warn", finding, "Give another folder with -o DIR, or make room.")
    return Check(name, "ok", finding)


def _target_checks(target: Target) -> Iterator[Check]:
    yield from (check(target) for check in _TARGET_CHECKS)
    for obstacle in target.obstacles:
        status: Status = "fail" if "framework" in obstacle.blocks else "warn"
        finding = f"{obstacle.what}. {obstacle.why}"
        # Those of the device and host levels alone are told with their level.
        if not obstacle.blocks or status == "fail":
            yield Check(obstacle.code, status, finding, obstacle.next_step)


def _python(target: Target) -> Check:
    python = target.python
    if python is None:
        known: Status = "warn" if target.maps_readable else "unknown"
        return Check("python", known, "no Python interpreter seen in it")
    finding = f"{python.implementation} {python.version or '?'}"
    finding += ", in libpython" if python.linkage == "libpython" else ", linked statically"
    if python.implementation != "cpython" or python.free_threaded:
        build = "free-threaded" if python.free_threaded else "not CPython"
        return Check("python", "warn", f"{finding}, {build}: no Python stacks and module names")
    return Check("python", "ok", finding)


def _torch(target: Target) -> Check:
    torch = target.torch
    if torch is None:
        known: Status = "fail" if target.maps_readable else "unknown"
        return Check("torch", known, "no PyTorch seen in it")
    build = {"cuda": f"CUDA {torch.cuda or '?'}", "rocm": f"ROCm {torch.hip or '?'}"}
    finding = f"{torch.version or 'version unknown'}, {build.get(torch.build, 'CPU')} build"
    if torch.deleted:
        return Check("torch", "warn", f"{finding}: its files were replaced since it started")
    return Check("torch", "ok", finding)


def _cuda(target: Target) -> Check:
    if not target.maps_readable:
        return Check("cuda", "unknown", "we may not see its libraries")
    if not target.cuda:
        return Check("cuda", "ok", "no CUDA library is mapped")
    names = ", ".join(f"{lib.name} {lib.version or '?'}" for lib in target.cuda)
    return Check("cuda", "ok", f"{names}; GPUs open: {_numbers(target.gpus)}")


def _libc(target: Target) -> Check:
    known = target.libc.kind != "unknown"
    bits = f", {target.elf.bits}-bit {target.elf.machine}" if target.elf else ""
    finding = f"{target.libc.kind} {target.libc.version or ''}".strip() + bits
    return Check("libc", "ok" if known else "unknown", finding)


def _isolation(target: Target) -> Check:
    other = [name for name, same in target.namespace_same.items() if same is False]
    if any(same is None for same in target.namespace_same.values()) and not other:
        return Check("namespaces", "unknown", "not all could be compared with ours")
    if not other:
        return Check("namespaces", "ok", "the same as ours")
    container = f", container {target.container.id[:12]}" if target.container else ""
    return Check("namespaces", "ok", f"its own: {', '.join(other)}{container}")


def _placement(target: Target) -> Check:
    place = target.placement
    if place.rank is None and not target.maps_readable:
        return Check("rank", "unknown", "we may not read its environment")
    if place.rank is None:
        return Check("rank", "ok", "none in its environment")
    return Check("rank", "ok", f"{place.rank} of {place.world_size or '?'} ({place.source})")


def _resident(target: Target) -> Check:
    if target.agent_resident:
        return Check(
            "agent", "ok", "resident and idle from an earlier attach; it will be used again"
        )
    if not target.maps_readable:
        return Check("agent", "unknown", "we may not see its libraries")
    return Check("agent", "ok", "not in it")


def _numbers(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers)) or "none"


_TARGET_CHECKS: Final[tuple[Callable[[Target], Check], ...]] = (
    _python,
    _torch,
    _cuda,
    _libc,
    _placement,
    _isolation,
    _resident,
)
