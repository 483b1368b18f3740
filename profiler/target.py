"""Everything about a process that can be read from /proc, from outside, without ever stopping it.

`inspect(pid)` gives a `Target`; what we may not see is None, never guessed. `require(target)`
raises the error that says why a level cannot be had. `profiler.discovery` finds the targets.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Collection
from collections.abc import Mapping as MappingOf
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

from gputap.profiler import binaries, obstacles
from gputap.profiler.errors import (
    ProfilerError,
    TargetBusy,
    TargetNotFound,
    TargetNotPermitted,
    TargetUnsupported,
)
from gputap.profiler.obstacles import Level, Obstacle
from gputap.profiler.procfs import (
    PROC,
    Mapping,
    Process,
    ProcessGone,
    capability_names,
    printable,
    sysctl,
)
from gputap.profiler.redact import redact
from gputap.profiler.schema import AGENT_MEMFD, CONTROL_MEMFD

NAMESPACES: Final = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")

_FDS_LOOKED_AT: Final = 4096
_ENVIRONMENT_LIMIT: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class Thread:
    """One thread of a target."""

    tid: int
    """Its id as we see it."""
    ns_tid: int
    """Its id as it sees itself, in its own pid namespace: what the agent reports."""
    name: str
    state: str


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a process stands in its job, as its launcher put it into the environment."""

    rank: int | None = None
    world_size: int | None = None
    local_rank: int | None = None
    job_id: str | None = None
    source: Literal["env", "ompi", "slurm"] | None = None
    """Which launcher's variables gave the rank; None if the environment says nothing."""


@dataclass(frozen=True, slots=True)
class Container:
    """The container that a process runs in."""

    id: str
    runtime: str | None
    pod_uid: str | None


@dataclass(frozen=True, slots=True)
class Ourselves:
    """What we are and may do: the other half of every question of permission."""

    pid: int
    uid: int
    capabilities: frozenset[str]
    permitted_mask: int
    namespaces: MappingOf[str, str]
    initial_user_namespace: bool
    """Our capabilities reach every process: all other user namespaces descend from ours."""
    yama_scope: int | None
    memfd_noexec: int | None
    seccomp: int | None
    machine: str


@dataclass(frozen=True, slots=True)
class Target:
    """A process, as seen from outside at one moment. None means: we were not allowed to see it."""

    pid: int
    ns_pid: int
    """Its pid as it sees itself."""
    ppid: int
    start_ticks: int
    """Clock ticks since boot. (pid, start_ticks) names one process for good."""
    start_time_ns: int | None
    """The same in unix time, to a clock tick."""
    uid: int
    uids: tuple[int, ...]
    """Real, effective, saved, file-system."""
    state: str
    exe: str | None
    exe_deleted: bool
    comm: str
    argv: tuple[str, ...]
    """The command line, secrets masked. Not made safe for a terminal: show `command`."""
    threads: tuple[Thread, ...]
    elf: binaries.Elf | None
    libc: binaries.Libc
    python: binaries.Python | None
    torch: binaries.Torch | None
    cuda: tuple[binaries.CudaLibrary, ...]
    gpus: tuple[int, ...]
    """Minor numbers of the /dev/nvidiaN that it has open."""
    other_profilers: tuple[str, ...]
    placement: Placement
    namespace_same: MappingOf[str, bool | None]
    """For each kind of namespace: is it ours?"""
    container: Container | None
    cgroup: str | None
    seccomp: int | None
    """0 none, 1 strict, 2 filter."""
    no_new_privs: bool | None
    permitted_mask: int
    dumpable: bool
    shadow_stack: bool
    tracer_pid: int
    tracer_name: str | None
    maps_readable: bool
    has_proc: bool | None
    """There is a /proc in its own mount namespace."""
    agent_resident: bool
    """Our library is in it, perhaps idle after an earlier attach."""
    control_fd: int | None
    """The target's descriptor of the shared memory, if there is one."""
    tapped: bool
    """A gputap is attached now."""
    obstacles: tuple[Obstacle, ...] = ()
    level_obtainable: Level | None = None

    @property
    def command(self) -> str:
        """The command line in one line, safe for a terminal, secrets masked."""
        return printable(" ".join(self.argv) or f"[{self.comm}]", 1024)


def inspect(pid: int, *, proc: Path = PROC, ours: Ourselves | None = None) -> Target:
    """Look at process `pid` from outside. It is never stopped, and nothing is written to it.

    Costs some milliseconds, most of it for looking up versions in files (kept for the next process
    that maps the same file).

    Raises:
        TargetNotFound: no such process, a zombie, a kernel thread, or it ended while we looked.
        TargetNotPermitted: it exists, but /proc is mounted so that we see nothing of it.
    """
    process = Process(pid, proc)
    ours = ours or ourselves(proc)
    try:
        _refuse_what_is_no_process(process)
        target = _look(process, ours)
        # What was read belongs together only if it is the same, living process after all that.
        again = Process(pid, proc)
        if again.start_ticks != target.start_ticks or again.stat[0] in "ZX":
            raise ProcessGone(pid)
    except ProcessGone as gone:
        raise _not_found(pid, proc) from gone
    found = obstacles.find_obstacles(target, ours)
    return replace(target, obstacles=found, level_obtainable=obstacles.highest_level(found))


def require(target: Target, level: Level = "framework", *, ignore: Collection[str] = ()) -> None:
    """Raise the error that says why `target` cannot be tapped at `level`; return if it can.

    Obstacles whose code is in `ignore` are passed over: somebody has taken the responsibility.

    Raises:
        TargetNotPermitted: the operating system would refuse.
        TargetBusy: a debugger or another gputap holds it.
        TargetUnsupported: this kind of process cannot be tapped.
    """
    for obstacle in target.obstacles:
        if level in obstacle.blocks and obstacle.code not in ignore:
            kind = _ERRORS.get(obstacle.code, TargetUnsupported)
            message = f"Process {target.pid} cannot be tapped: {obstacle.what}. {obstacle.why}"
            raise kind(message, hint=obstacle.next_step, code=obstacle.code)


_ERRORS: Final[dict[str, type[ProfilerError]]] = {
    **dict.fromkeys(obstacles.PERMISSION_CODES, TargetNotPermitted),
    **dict.fromkeys(obstacles.BUSY_CODES, TargetBusy),
}


def thread_map(pid: int, *, proc: Path = PROC) -> dict[int, int]:
    """Thread ids as the target sees them to thread ids as we see them.

    The two differ where the target has a pid namespace of its own. Threads that end meanwhile are
    left out.

    Raises:
        TargetNotFound: the process has gone.
    """
    try:
        threads = _threads(Process(pid, proc))
    except ProcessGone as gone:
        raise _not_found(pid, proc) from gone
    return {thread.ns_tid: thread.tid for thread in threads}


def ourselves(proc: Path = PROC) -> Ourselves:
    """Our own identity, capabilities and namespaces, and the switches that bear on attaching."""
    process = Process(os.getpid(), proc)
    status = process.status
    yama = sysctl("kernel.yama.ptrace_scope", proc)
    noexec = sysctl("vm.memfd_noexec", proc)
    uid_map = (process.read("uid_map") or b"").split()
    return Ourselves(
        pid=process.pid,
        uid=os.geteuid(),
        capabilities=capability_names(int(status["CapEff"], 16)),
        permitted_mask=int(status["CapPrm"], 16),
        namespaces=_namespaces(process),
        initial_user_namespace=uid_map == [b"0", b"0", b"4294967295"],
        yama_scope=int(yama) if yama is not None else None,
        memfd_noexec=int(noexec) if noexec is not None else None,
        seccomp=int(status["Seccomp"]) if "Seccomp" in status else None,
        machine=platform.machine(),
    )


def read_placement(process: Process) -> Placement:
    """Rank, world size and job of a process. Only the variables named here are ever kept."""
    text = process.read("environ", _ENVIRONMENT_LIMIT) or b""
    pairs = (entry.partition(b"=") for entry in text.split(b"\0"))
    kept = {
        name: value.decode("utf-8", "replace")
        for key, equals, value in pairs
        if equals and (name := key.decode("ascii", "replace")) in _ENVIRONMENT
    }
    return parse_placement(kept)


_RANK_VARIABLES: Final[dict[Literal["env", "ompi", "slurm"], tuple[str, str, str]]] = {
    "env": ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
    "ompi": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
    "slurm": ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"),
}
_JOB_VARIABLES: Final = ("TORCHELASTIC_RUN_ID", "SLURM_JOB_ID", "SLURM_JOBID", "PMIX_NAMESPACE")
_ENVIRONMENT: Final = frozenset(x for names in _RANK_VARIABLES.values() for x in names).union(
    _JOB_VARIABLES
)


def parse_placement(environment: MappingOf[str, str]) -> Placement:
    """The placement that a launcher's variables tell; one launcher's, never a mixture."""
    # "none" is what torchrun sets when nobody named the job.
    jobs = (environment.get(name) for name in _JOB_VARIABLES)
    job_id = next((printable(job, 128) for job in jobs if job and job != "none"), None)
    for source, names in _RANK_VARIABLES.items():
        rank, world_size, local_rank = (_number(environment.get(name)) for name in names)
        if rank is not None:
            return Placement(rank, world_size, local_rank, job_id, source)
    return Placement(job_id=job_id)


def parse_container(cgroup: str) -> Container | None:
    """The container that a path in /proc/PID/cgroup belongs to."""
    found = re.findall(
        r"(?:(docker|cri-containerd|crio|libpod|nerdctl)[-/])?([0-9a-f]{64})", cgroup
    )
    if not found:
        return None
    runtime, identity = found[-1]
    pod = re.search(r"pod([0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12})", cgroup)
    return Container(identity, runtime or None, pod[1].replace("_", "-") if pod else None)


def _refuse_what_is_no_process(process: Process) -> None:
    if process.pid <= 0:
        raise ProcessGone(process.pid)
    leader = int(process.status["Tgid"])
    if leader != process.pid:
        raise TargetNotFound(
            f"{process.pid} is a thread of process {leader}, not a process.",
            hint=f"Use {leader}.",
        )
    if process.kernel_thread:
        raise TargetNotFound(
            f"{process.pid} ({printable(process.status['Name'])}) is a thread of the OS kernel."
        )
    if process.stat[0] in "ZX":
        if len(process.names("task") or ()) > 1:
            raise TargetUnsupported(
                f"The main thread of process {process.pid} has ended; only others are left.",
                hint="Such a process cannot be read from outside.",
            )
        raise TargetNotFound(
            f"Process {process.pid} has ended: it is a zombie that its parent has not collected."
        )


def _not_found(pid: int, proc: Path) -> ProfilerError:
    if proc == PROC and pid > 0 and not os.path.exists(proc / str(pid)):
        try:
            os.kill(pid, 0)  # signal 0 is only a question
        except PermissionError:
            return TargetNotPermitted(
                f"Process {pid} exists, but /proc hides it from us (mount option hidepid).",
                hint="Run as the target's user or as root.",
            )
        except (ProcessLookupError, OverflowError):
            pass
    return TargetNotFound(f"There is no process {pid}.")


def _look(process: Process, ours: Ourselves) -> Target:
    status = process.status
    exe, exe_deleted = _exe(process)
    mappings = process.mappings or ()
    elf = binaries.read_elf(process)
    cgroup = (process.read("cgroup") or b"").decode("utf-8", "replace") or None
    links = _fd_links(process)
    control = next((m for m in mappings if _is_memfd(m.path, CONTROL_MEMFD)), None)
    tracer = int(status.get("TracerPid", "0"))
    seccomp = status.get("Seccomp")
    no_new_privs = status.get("NoNewPrivs")
    return Target(
        pid=process.pid,
        ns_pid=_innermost(status, process.pid),
        ppid=int(process.stat[1]),
        start_ticks=process.start_ticks,
        start_time_ns=_start_time_ns(process),
        uid=int(status["Uid"].split()[1]),
        uids=tuple(int(uid) for uid in status["Uid"].split()),
        state=process.stat[0],
        exe=exe,
        exe_deleted=exe_deleted,
        comm=printable(status["Name"]),
        argv=read_argv(process),
        threads=tuple(_threads(process)),
        elf=elf,
        libc=binaries.find_libc(process, elf, mappings),
        python=binaries.find_python(process, exe, mappings),
        torch=binaries.find_torch(process, mappings),
        cuda=binaries.find_cuda(process, mappings),
        gpus=_gpus(links),
        other_profilers=binaries.other_profilers(mappings),
        placement=read_placement(process),
        namespace_same=_compare(_namespaces(process), ours.namespaces),
        container=parse_container(cgroup or ""),
        cgroup=_cgroup_path(cgroup),
        seccomp=int(seccomp) if seccomp is not None else None,
        no_new_privs=no_new_privs == "1" if no_new_privs is not None else None,
        permitted_mask=int(status.get("CapPrm", "0"), 16),
        dumpable=_dumpable(process),
        shadow_stack="shstk" in status.get("x86_Thread_features", ""),
        tracer_pid=tracer,
        tracer_name=_name_of(tracer, process.proc) if tracer else None,
        maps_readable=process.mappings is not None,
        has_proc=_has_proc(process),
        agent_resident=any(is_agent(m) for m in mappings),
        control_fd=next((fd for fd, x in links.items() if _is_memfd(x, CONTROL_MEMFD)), None),
        tapped=control is not None and _locked(control, process.proc),
    )


def read_argv(process: Process) -> tuple[str, ...]:
    """The command line with its secrets masked."""
    text = (process.read("cmdline") or b"").decode("utf-8", "replace")
    # A process may overwrite its command line; then zero bytes end it, and may be many.
    return redact(text.rstrip("\0").split("\0")) if text.strip("\0") else ()


def _exe(process: Process) -> tuple[str | None, bool]:
    link = process.link("exe")
    if link is None:
        return None, False
    plain = link.removesuffix(" (deleted)")
    return plain, plain != link


def _threads(process: Process) -> list[Thread]:
    found = []
    for name in sorted(process.names("task") or (), key=int):
        text = process.read(f"task/{name}/status")
        if not text:
            continue  # the thread ended
        status = dict(_STATUS_FIELDS.findall(text.decode("utf-8", "replace")))
        ns_tid = _innermost(status, int(name))
        found.append(Thread(int(name), ns_tid, printable(status["Name"]), status["State"][:1]))
    if not found and not process.exists():
        raise ProcessGone(process.pid)
    return found


_STATUS_FIELDS: Final = re.compile(r"^(Name|State|NSpid):\t(.*)$", re.MULTILINE)


def _innermost(status: MappingOf[str, str], otherwise: int) -> int:
    numbers = status.get("NSpid", "").split()
    return int(numbers[-1]) if numbers else otherwise


def _namespaces(process: Process) -> dict[str, str]:
    links = ((name, process.link(f"ns/{name}")) for name in NAMESPACES)
    return {name: link for name, link in links if link is not None}


def _compare(theirs: MappingOf[str, str], our: MappingOf[str, str]) -> dict[str, bool | None]:
    return {
        name: theirs[name] == our[name] if name in theirs and name in our else None
        for name in NAMESPACES
    }


def _fd_links(process: Process) -> dict[int, str]:
    numbers = sorted(int(name) for name in process.names("fd") or ())[:_FDS_LOOKED_AT]
    links = ((number, process.link(f"fd/{number}")) for number in numbers)
    return {number: link for number, link in links if link is not None}


def _gpus(links: MappingOf[int, str]) -> tuple[int, ...]:
    minors = {m[1] for x in links.values() if (m := re.fullmatch(r"/dev/nvidia(\d+)", x))}
    return tuple(sorted(int(minor) for minor in minors))


def _is_memfd(path: str, name: str) -> bool:
    return path.removesuffix(" (deleted)") == f"/memfd:{name}"


def is_agent(mapping: Mapping) -> bool:
    """Whether a mapped file is our agent library."""
    # The second form is the copy for targets that can load nothing from memory.
    return _is_memfd(mapping.path, AGENT_MEMFD) or mapping.name.startswith(f".{AGENT_MEMFD}-")


def _locked(mapping: Mapping, proc: Path) -> bool:
    """Somebody holds an open-file-description write lock on the file: a gputap is attached."""
    try:
        locks = (proc / "locks").read_text()
    except OSError:
        return False
    pattern = rf"OFDLCK\s+\S+\s+WRITE\s+\S+\s+[0-9a-f]+:[0-9a-f]+:{mapping.inode}\s"
    return re.search(pattern, locks) is not None


def _dumpable(process: Process) -> bool:
    # The files of a process that is not dumpable belong to root, whoever it runs as.
    try:
        owner = os.stat(process.path / "environ").st_uid
    except OSError:
        return True
    return owner == int(process.status["Uid"].split()[1]) or owner != 0


def _has_proc(process: Process) -> bool | None:
    if process.link("root") is None:
        return None
    return os.path.exists(f"{process.path}/root/proc/version")


def _start_time_ns(process: Process) -> int | None:
    try:
        boot = re.search(r"^btime (\d+)$", (process.proc / "stat").read_text(), re.MULTILINE)
    except OSError:
        return None
    tick_ns = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    return int(boot[1]) * 1_000_000_000 + process.start_ticks * tick_ns if boot else None


def _cgroup_path(text: str | None) -> str | None:
    """The unified hierarchy's path, or the longest of the others."""
    paths = [line.split(":", 2)[2] for line in (text or "").splitlines() if line.count(":") >= 2]
    return max(paths, key=len) if paths else None


def _name_of(pid: int, proc: Path) -> str | None:
    try:
        return printable(Process(pid, proc).status["Name"])
    except (ProcessGone, KeyError):
        return None


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch(r"\d{1,9}", text) else None
