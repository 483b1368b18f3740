"""The way in by the interpreter's own door: PEP 768, which CPython has since 3.14.

The interpreter is told the path of a script, which its main thread runs at its next bytecode
boundary; the script starts a thread that loads the agent. Nothing is stopped and no register is
touched, so this works where ptrace may not stop a thread, or finds none that it may use. It takes
the same right as ptrace. While the main thread is in C (a long kernel, a lock, a `sleep`) it does
not come to the script: then the request is withdrawn, and nothing was done.

A limit of CPython's: what a signal handler of the target's raises in the moment in which the
interpreter opens the script, some 0.1 ms, goes to `sys.unraisablehook`. What it raises while the
script runs is raised again in the main thread.
"""

from __future__ import annotations

import json
import os
import struct
import time
from pathlib import Path
from typing import Final

from gputap.injectors.injection import Injection
from gputap.injectors.library import detect
from gputap.injectors.library.layouts import cpython
from gputap.injectors.remote_exec.folder import Folder
from gputap.profiler import elf
from gputap.profiler.elf import ProcessMemory
from gputap.profiler.errors import AttachFailed, TargetGone, TargetNotPermitted, TargetUnsupported
from gputap.profiler.procfs import Process, ProcessGone
from gputap.profiler.schema import AGENT_MEMFD
from gputap.profiler.target import is_agent

PLEASE_STOP: Final = 1 << 5
"""The bit of the eval breaker that sends a thread to look for requests."""

WORK_S: Final = 5.0
"""From the script's start to the agent's answer it takes some milliseconds."""

_MOST_INTERPRETERS: Final = 256
_POLL_S: Final = 0.0005

_WHY_NOT: Final = "It needs CPython 3.14 or later; ptrace is the way into the others."


class Door:
    """Where the main thread of one process takes a script, found and checked by reading only."""

    def __init__(self, pid: int) -> None:
        """Find it. Raises TargetUnsupported, TargetNotPermitted or TargetGone."""
        self._pid = pid
        found = detect.runtime(pid)
        layout = cpython.remote_exec(found.version, found.head) if found else None
        if found is None or layout is None:
            said = ".".join(map(str, found.version)) if found else "none that says its version"
            raise TargetUnsupported(
                f"The interpreter of pid {pid} takes no scripts from outside: {said}.",
                hint=_WHY_NOT,
            )
        try:
            # Holds on to this very program: should the process execute another, nothing happens.
            self._memory: Final = os.open(f"/proc/{pid}/mem", os.O_RDWR | os.O_CLOEXEC)
        except PermissionError as exc:
            raise TargetNotPermitted(f"Writing to the memory of pid {pid} was refused.") from exc
        except OSError as exc:
            raise TargetGone(f"pid {pid} has ended.") from exc
        self._layout: Final = layout
        try:
            self._thread: Final = self._main_thread(found.address)
        except BaseException:
            self.close()
            raise

    def _main_thread(self, runtime: int) -> int:
        """Address of the main thread's state; the main interpreter has id 0."""
        layout = self._layout
        interpreter = self._word(runtime + layout.interpreters_head)
        for _ in range(_MOST_INTERPRETERS):
            if self._word(interpreter + layout.interpreter_id) == 0:
                break
            interpreter = self._word(interpreter + layout.interpreter_next)
        if self._number(interpreter + layout.enabled) != 1:
            raise TargetUnsupported(
                f"Remote debugging is switched off in the interpreter of pid {self._pid}.",
                hint="It was started with PYTHON_DISABLE_REMOTE_DEBUG or -X disable-remote-debug.",
            )
        thread = self._word(interpreter + layout.threads_main)
        if not thread:
            raise TargetUnsupported(f"The interpreter of pid {self._pid} has no main thread.")
        return thread

    def ask(self, path: str) -> None:
        """Have the script at `path`, as the target sees it, run at the next bytecode boundary."""
        layout, raw = self._layout, os.fsencode(path) + b"\0"
        if len(raw) > layout.script_path_size:
            raise AttachFailed(f"The path {path} is longer than the interpreter takes.")
        if self._number(self._thread + layout.pending_call):
            raise AttachFailed(f"Another tool's script already waits in pid {self._pid}.")
        self._write(layout.script_path, raw)
        self._write(layout.pending_call, struct.pack("<i", 1))
        # As CPython's own sys.remote_exec does it, without a lock: another bit that is set in this
        # very moment may be lost; each is one that its setter, or the next event, sets again.
        breaker = self._word(self._thread + layout.eval_breaker)
        self._write(layout.eval_breaker, struct.pack("<Q", breaker | PLEASE_STOP))

    def taken(self) -> bool:
        """The main thread has come for the script."""
        return self._number(self._thread + self._layout.pending_call) == 0

    def withdraw(self) -> None:
        """Take the request back."""
        self._write(self._layout.pending_call, struct.pack("<i", 0))

    def close(self) -> None:
        """Let the memory go."""
        os.close(self._memory)

    def __enter__(self) -> Door:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let the memory go."""
        self.close()

    def _read(self, address: int, size: int) -> bytes:
        try:
            raw = os.pread(self._memory, size, address)
        except (OSError, OverflowError) as exc:
            raise AttachFailed(
                f"What the interpreter of pid {self._pid} publishes of itself leads nowhere."
            ) from exc
        if len(raw) != size:
            raise TargetGone(f"pid {self._pid} has ended.")
        return raw

    def _word(self, address: int) -> int:
        return int.from_bytes(self._read(address, 8), "little")

    def _number(self, address: int) -> int:
        return int.from_bytes(self._read(address, 4), "little", signed=True)

    def _write(self, offset: int, raw: bytes) -> None:
        try:
            os.pwrite(self._memory, raw, self._thread + offset)
        except OSError as exc:
            raise TargetGone(f"pid {self._pid} has ended.") from exc


def offered(pid: int) -> bool:
    """Whether the interpreter in process `pid` takes scripts from us. Reads only."""
    try:
        Door(pid).close()
    except (TargetUnsupported, TargetNotPermitted, TargetGone, AttachFailed):
        return False
    return True


def remote_exec(
    pid: int,
    *,
    agent: Path,
    timeout_s: float = 10.0,
    ring_count: int = 0,
    ring_capacity: int = 0,
) -> Injection:
    """Get `agent` into process `pid`, or wake the one that is there if it is the same build.

    Waits `timeout_s` for the main thread to come to a bytecode boundary. Raises a `TargetError`,
    or `TargetGone`; the target runs on as before in every case.
    """
    began = time.monotonic_ns()
    with Door(pid) as door, Folder(pid, agent.read_bytes()) as folder:
        resident = _resident(pid, agent)
        path = folder.script(
            memfd=AGENT_MEMFD,
            resident=resident,
            ring_count=ring_count,
            ring_capacity=ring_capacity,
        )
        resolved = time.monotonic_ns()
        door.ask(path)
        answer = _await(pid, door, folder, timeout_s)
    done = time.monotonic_ns()
    pause_ns = answer.get("pause_ns")
    return Injection(
        pid=pid,
        control_fd=_control_fd(pid, answer),
        reused=resident != 0,
        tid=pid,
        pause_ns=pause_ns if isinstance(pause_ns, int) else 0,
        stops=0,
        resolve_ns=resolved - began,
        load_ns=done - resolved,
        total_ns=done - began,
        way="remote-exec",
    )


def _await(pid: int, door: Door, folder: Folder, timeout_s: float) -> dict[str, object]:
    """The script's answer."""
    deadline = time.monotonic() + timeout_s
    while not door.taken():
        if not Process(pid).exists():
            raise TargetGone(f"pid {pid} has ended.")
        if time.monotonic() > deadline:
            door.withdraw()
            raise AttachFailed(
                f"The main thread of pid {pid} ran no Python within {timeout_s:.0f} s, so it did"
                " not come to the script. The request was withdrawn.",
                hint="It is in C code, or waits. Try again when it runs, or with a longer timeout.",
            )
        time.sleep(_POLL_S)
    deadline = time.monotonic() + WORK_S
    while time.monotonic() < deadline:
        text = folder.answer()
        if text.endswith(b"\n"):
            answer = json.loads(text)
            return answer if isinstance(answer, dict) else {}
        if not Process(pid).exists():
            raise TargetGone(f"pid {pid} has ended.")
        time.sleep(_POLL_S)
    raise AttachFailed(f"The script that pid {pid} took did not answer within {WORK_S:.0f} s.")


def _control_fd(pid: int, answer: dict[str, object]) -> int:
    if "error" in answer:
        raise AttachFailed(f"pid {pid} could not load the agent: {answer['error']}.")
    status, fd = answer.get("status"), answer.get("control_fd")
    if status != 0 or not isinstance(fd, int) or fd < 0:
        why = os.strerror(-status) if isinstance(status, int) and status < 0 else "no reason given"
        raise AttachFailed(f"The agent is loaded in pid {pid} but did not start: {why}.")
    return fd


def _resident(pid: int, agent: Path) -> int:
    """Entry of an agent of this very build that is in the process already; 0 if there is none.

    Any other is left alone beside the new one.
    """
    file = elf.of_file(agent.read_bytes())
    wanted = file.symbol("gputap_agent_abi") if file else None
    if file is None or wanted is None:
        raise AttachFailed(f"{agent} is not gputap's agent: it exports no gputap_agent_abi.")
    try:
        maps = Process(pid).mappings or ()
    except ProcessGone as exc:
        raise TargetGone(f"pid {pid} has ended.") from exc
    build = file.read(wanted.address, 16)
    with ProcessMemory(pid) as memory:
        for mapping in filter(is_agent, maps):
            image = elf.loaded(memory, mapping.start)
            abi = image.symbol("gputap_agent_abi") if image else None
            enter = image.symbol("gputap_agent_enter") if image else None
            if abi and enter and memory.read(abi.address, 16) == build:
                return enter.address
    return 0
