"""Finds the PyTorch processes of a machine, and tells the ranks from their helpers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal

from gputap.profiler.errors import TargetError, UsageError
from gputap.profiler.procfs import PROC, Process, ProcessGone, processes
from gputap.profiler.target import (
    Ourselves,
    Target,
    inspect,
    ourselves,
    read_argv,
    read_placement,
)

Role = Literal["main", "worker", "launcher", "helper"]
"""main: trains or serves. worker: a DataLoader worker or another forked child. launcher: torchrun
and the like, which only waits for its ranks. helper: PyTorch's own service processes."""


@dataclass(frozen=True, slots=True)
class Found:
    """One PyTorch process and the part it plays."""

    target: Target
    role: Role


@dataclass(frozen=True, slots=True)
class Scan:
    """The PyTorch processes of this machine at one moment."""

    found: tuple[Found, ...]
    hidden: int
    """Processes of others that we may not look into; PyTorch ones may be among them."""

    @property
    def targets(self) -> list[Target]:
        """The processes worth tapping, in order of job, rank and pid."""
        return sorted((f.target for f in self.found if f.role == "main"), key=_job_order)


def find(*, match: str | None = None, proc: Path = PROC) -> list[Target]:
    """PyTorch processes worth tapping, in order of job, rank and pid.

    Args:
        match: regular expression searched in the command line (secrets masked) and the name.
        proc: where /proc is mounted.

    Raises:
        UsageError: `match` is no regular expression.
    """
    return scan(match=match, proc=proc).targets


def scan(*, match: str | None = None, proc: Path = PROC) -> Scan:
    """Look at every process. Fast: of most, only the list of mapped files is read."""
    pattern = _compile(match)
    ours = ourselves(proc)
    candidates: dict[int, _Candidate] = {}
    hidden = 0
    for process in processes(proc):
        maps_torch = _maps_torch(process) if process.pid != ours.pid else False
        if maps_torch:
            candidates[process.pid] = _Candidate(process)
        hidden += maps_torch is None
    looked_at = (_look_at(c, candidates, pattern, ours) for c in candidates.values())
    return Scan(tuple(found for found in looked_at if found), hidden)


def _maps_torch(process: Process) -> bool | None:
    """PyTorch seems to be mapped; None if we may not know."""
    try:
        answer = process.maps_mention(b"/libtorch")
        # Threads of the OS kernel have no command line; they are nobody's secret.
        return False if answer is None and not process.read("cmdline") else answer
    except ProcessGone:
        return False


def _look_at(
    candidate: _Candidate,
    candidates: Mapping[int, _Candidate],
    pattern: re.Pattern[str] | None,
    ours: Ourselves,
) -> Found | None:
    try:
        if pattern is not None and not candidate.matches(pattern, candidates):
            return None
        role = _role(candidate, candidates)
        target = inspect(candidate.process.pid, proc=candidate.process.proc, ours=ours)
    except (ProcessGone, TargetError):
        return None
    # The quick look may have hit a folder of that name.
    return Found(target, role) if target.torch is not None else None


class _Candidate:
    """A process with libtorch mapped. Its properties raise ProcessGone."""

    def __init__(self, process: Process) -> None:
        self.process = process

    @property
    def ppid(self) -> int:
        return int(self.process.stat[1])

    @property
    def comm(self) -> str:
        return self.process.status["Name"]

    @cached_property
    def argv(self) -> tuple[str, ...]:
        return read_argv(self.process)

    @cached_property
    def rank(self) -> int | None:
        return read_placement(self.process).rank

    @cached_property
    def image(self) -> tuple[object, ...]:
        """What fork copies and exec makes anew: program, command line, random addresses.

        The addresses (code, stack, arguments) are 0 where we may not see them; then the rest
        decides.
        """
        stat = self.process.stat
        return (self.process.link("exe"), self.argv, stat[23], stat[25], stat[45])

    @cached_property
    def thread_names(self) -> frozenset[str]:
        names = self.process.names("task") or ()
        texts = (self.process.read(f"task/{name}/comm") for name in names)
        return frozenset(text.decode("utf-8", "replace").strip() for text in texts if text)

    @cached_property
    def is_fork_server(self) -> bool:
        """It only forks what multiprocessing asks it to: Python 3.14's usual way, older ones' too.

        What it forks has its command line.
        """
        if "multiprocessing.forkserver" not in " ".join(self.argv[:4]):
            return False
        return read_argv(Process(self.ppid, self.process.proc)) != self.argv

    @cached_property
    def is_forked_by_server(self) -> bool:
        """Such a server's child."""
        return "multiprocessing.forkserver" in " ".join(self.argv[:4]) and not self.is_fork_server

    def matches(self, pattern: re.Pattern[str], candidates: Mapping[int, _Candidate]) -> bool:
        if pattern.search(" ".join(self.argv)) or pattern.search(self.comm):
            return True
        # What multiprocessing spawned has a command line that says nothing: its parent's counts.
        parent = candidates.get(self.ppid) if "--multiprocessing-fork" in self.argv else None
        return parent is not None and parent.matches(pattern, candidates)

    def takes_part(self) -> bool:
        """It has threads that only a process that computes or communicates has."""
        return any(name.startswith(_RANK_THREADS) for name in self.thread_names)


_RANK_THREADS: Final = ("pt_autograd", "pt_gloo", "pt_nccl", "gloo_tcp", "cuda-EvtHandlr")
_WORKER_NAME: Final = "pt_data_worker"
"""Name that PyTorch 2.6 and later gives its DataLoader workers."""

_HELPERS: Final = re.compile(
    r"torch_shm_manager|_inductor/compile_worker|torch\._inductor\.compile_worker"
)
_LAUNCHERS: Final = re.compile(
    r"(?:^|/)(?:torchrun|accelerate|deepspeed)$|^torch\.distributed\.(?:run|launch|launcher)\b"
)


def _role(candidate: _Candidate, candidates: Mapping[int, _Candidate]) -> Role:
    """Which part a process plays. Evidence, in this order:

    1. PyTorch's own helpers by their command. The compile workers fork: their children too.
    2. DataLoader workers by the name of their main thread, whether forked or spawned.
    3. A child that was forked and did not exec has its parent's image; what a fork server of
       multiprocessing forked has that one's command line. Before PyTorch 2.6 workers have no name,
       so every such child counts as worker, unless it has threads that only a rank has (ranks made
       by fork, as in Lightning's ddp_fork).
    4. What torchrun starts has an image of its own (exec), and RANK in its environment: main. Its
       parent, which has no RANK itself, is the launcher, as is whatever is called torchrun.
    5. So is the parent of spawned processes that communicate (torch.multiprocessing.spawn) while
       it does not itself.
    """
    if _HELPERS.search(" ".join(candidate.argv[:4])) or candidate.is_fork_server:
        return "helper"
    if candidate.comm == _WORKER_NAME:
        return "worker"
    parent = candidates.get(candidate.ppid)
    forked = candidate.is_forked_by_server or (parent and candidate.image == parent.image)
    if forked and not candidate.takes_part():
        return "worker"
    if candidate.rank is None and _launches(candidate, candidates):
        return "launcher"
    return "main"


def _launches(candidate: _Candidate, candidates: Mapping[int, _Candidate]) -> bool:
    if any(_LAUNCHERS.search(argument) for argument in candidate.argv[:4]):
        return True
    if candidate.takes_part():
        return False
    pid = candidate.process.pid
    return any(_is_rank_of(pid, child) for child in candidates.values())


def _is_rank_of(pid: int, child: _Candidate) -> bool:
    try:
        return child.ppid == pid and (child.rank is not None or child.takes_part())
    except ProcessGone:
        return False


def _compile(match: str | None) -> re.Pattern[str] | None:
    try:
        return None if match is None else re.compile(match)
    except re.error as error:
        raise UsageError(f"--match {match!r} is no regular expression: {error}.") from error


def _job_order(target: Target) -> tuple[str, int, int]:
    place = target.placement
    rank = place.rank if place.rank is not None else -1
    return (place.job_id or "", rank, target.pid)


def to_json(scan: Scan) -> list[dict[str, Any]]:
    """The processes worth tapping as plain data for `--json`."""
    return [
        {
            "pid": target.pid,
            "rank": target.placement.rank,
            "world_size": target.placement.world_size,
            "local_rank": target.placement.local_rank,
            "job": target.placement.job_id,
            "uid": target.uid,
            "python": target.python.version if target.python else None,
            "torch": target.torch.version if target.torch else None,
            "cuda": [library.name for library in target.cuda],
            "level": target.level_obtainable,
            "obstacles": [obstacle.what for obstacle in target.obstacles],
            "command": list(target.argv),
        }
        for target in scan.targets
    ]
