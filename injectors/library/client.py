"""Gives commands to the agent in a target. Reading what it records is `AgentMemory`'s work."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import select
import struct
import time
from dataclasses import dataclass, fields
from types import TracebackType
from typing import Final

import numpy as np

from gputap.injectors.library.layouts.cpython import PythonLayout
from gputap.injectors.library.layouts.torch import TorchLayout
from gputap.profiler.agent_memory import AgentMemory
from gputap.profiler.errors import AttachFailed, ProfilerError, TargetBusy, TargetGone
from gputap.profiler.schema import AgentState, CaptureMode, Command, StopReason

COMMAND_TIMEOUT_S: Final = 5.0
"""The agent answers within its 100 ms turn; a machine under load is given more."""

_ALIVE_CHECK_S: Final = 0.05
_MAPS_CHECK_S: Final = 0.5
_FUTEX_WAIT: Final = 0
_FUTEX_WAKE: Final = 1
_SYS_FUTEX: Final = {"x86_64": 202, "aarch64": 98}.get(platform.machine(), -1)
_libc: Final = ctypes.CDLL(None, use_errno=True)


class SnippetFailed(ProfilerError):
    """Python in the target did not answer: `status` is ETIMEDOUT, EOPNOTSUPP or 1 (it raised)."""

    help = "The capture goes on without what this Python would have told."

    def __init__(self, message: str, *, status: int) -> None:
        """Keep why as a number, so that nobody has to match words."""
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class WindowConfig:
    """What to record, and what it may cost the target."""

    mode: CaptureMode = CaptureMode.BURSTS
    window_ns: int = 0
    """The agent closes the window by itself after so long; 0 = at `stop`."""
    budget_ppm: int = 10_000
    event_cost_ns: int = 320
    """Price of one recorded event. Measured: 180 to 230 ns; the rest is for what gputap costs the
    target beside it, by its own work on a neighbouring hardware thread."""
    armed_cost_ns: int = 200
    user_cost_ns: int = 0
    """What one user scope costs; 0 = the agent's default."""
    want_stacks: bool = True
    want_shapes: bool = False
    want_gc: bool = True
    min_burst_steps: int = 1


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_int64), ("nanoseconds", ctypes.c_int64))


def _futex(address: int, operation: int, value: int, timeout_s: float = 0) -> None:
    """Wait or wake on a word of shared memory. Spurious returns are the caller's to handle."""
    timeout = _Timespec(int(timeout_s), int(timeout_s % 1 * 1e9))
    _libc.syscall(
        ctypes.c_long(_SYS_FUTEX),
        ctypes.c_void_p(address),
        ctypes.c_int(operation),
        ctypes.c_uint(value),
        ctypes.byref(timeout) if operation == _FUTEX_WAIT else None,
        None,
        ctypes.c_int(0),
    )


def _try_lock(fd: int) -> bool:
    """Take the open-file-description write lock on byte 0, which says that gputap is attached."""
    lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0)
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, lock)
    except OSError as exc:
        if exc.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


class AgentClient:
    """One attached gputap. No other can attach while it lives; when it dies the agent goes idle."""

    def __init__(self, pid: int, control_fd: int) -> None:
        """Open the agent's memory and become its only master.

        Raises TargetBusy if another gputap is attached, else what `AgentMemory` raises.
        """
        self.pid: Final = pid
        self._path = f"/proc/{pid}/fd/{control_fd}"
        self._pidfd = _pidfd(pid)
        try:
            self.memory: Final = AgentMemory(self._path)
        except BaseException:
            self._close_pidfd()
            raise
        if not _try_lock(self.memory.fd):
            self._close()
            raise TargetBusy(f"pid {pid} is already tapped by another gputap.")
        self._closed = False
        self._look_again = 0.0
        self._mapped = True

    # --------------------------------------------------------------------------- commands

    def configure(self, torch: TorchLayout | None, python: PythonLayout | None) -> None:
        """Tell the agent where things are; None = unknown, so only names and times are recorded."""
        self.memory.array("torch_layout")[:] = (torch or TorchLayout()).packed()
        self.memory.array("python_layout")[:] = (python or PythonLayout()).packed()
        self.command(Command.CONFIGURE)

    def start(self, window: WindowConfig) -> None:
        """Open a window."""
        for field in fields(window):
            self.memory.set(field.name, int(getattr(window, field.name)))
        self.command(Command.START)

    def stop(self) -> None:
        """Close the window; records stay in the rings until they are drained."""
        self.command(Command.STOP)

    def run_python(self, source: str, timeout_s: float = 2.0) -> str:
        """Run a snippet in the target and return the `str` that it left in `result`.

        Raises SnippetFailed if it raised, if the GIL was not to be had in time, or without Python.
        """
        self._post(source)
        self.memory.set("request_timeout_ms", max(1, int(timeout_s * 1000)))
        refused = self._ask(Command.RUN_PYTHON, timeout_s + COMMAND_TIMEOUT_S)
        return self._answer(refused or self.memory.get("result_status"))

    def sample_python(self, source: str, period_s: float) -> None:
        """Have a snippet run after steps, in open windows, so often at most; "" ends that.

        Its answers come by `AgentMemory.python_samples`. Raises AttachFailed if it is refused.
        """
        self._post(source)
        self.memory.set("sample_period_ms", max(1, int(period_s * 1000)))
        self.command(Command.SAMPLE_PYTHON)

    def _post(self, source: str) -> None:
        raw = source.encode()
        mailbox = self.memory.section("request")
        if len(raw) > len(mailbox):
            raise SnippetFailed(
                f"{len(raw)} bytes of Python exceed the agent's mailbox of {len(mailbox)}.",
                status=errno.E2BIG,
            )
        mailbox[: len(raw)] = np.frombuffer(raw, np.uint8)
        self.memory.set("request_length", len(raw))

    def _answer(self, status: int) -> str:
        raw = self.memory.section("result")[: self.memory.get("result_length")].tobytes()
        text = raw.decode(errors="replace")
        if status == 0:
            return text
        why = {
            -errno.ETIMEDOUT: "Python in the target did not answer in time.",
            -errno.EOPNOTSUPP: "The target has no Python that can be called.",
            -errno.EBUSY: "Python in the target is still busy with an earlier request.",
        }.get(status, f"Python in the target failed: {text or status}")
        raise SnippetFailed(why, status=abs(status))

    def detach(self) -> None:
        """Let go: the agent closes its window and goes inert. Idempotent; a dead target is fine."""
        if self._closed:
            return
        try:
            self.command(Command.DETACH)
        except TargetGone:
            pass
        finally:
            self.close()

    def command(self, command: Command, timeout_s: float = COMMAND_TIMEOUT_S) -> None:
        """Give a command and wait until it is done. Raises AttachFailed if it is refused."""
        status = self._ask(command, timeout_s)
        if status < 0:
            raise AttachFailed(
                f"The agent in pid {self.pid} refused {command.name}:"
                f" {self.memory.text('message') or os.strerror(-status)}"
            )

    def _ask(self, command: Command, timeout_s: float) -> int:
        """Give a command, wait for its end, return what the agent says: 0 or a negative errno."""
        memory = self.memory
        if self._closed:
            raise AttachFailed(f"pid {self.pid} is no longer attached.")
        self.raise_if_gone()
        sequence = (memory.get("command_seq") + 1) % (1 << 32)
        memory.set("command", command)
        memory.fence()
        memory.set("command_seq", sequence)
        _futex(memory.address("command_seq"), _FUTEX_WAKE, 2**31 - 1)
        self._await(command, sequence, time.monotonic() + timeout_s)
        memory.fence()
        return memory.get("ack_status")

    def _await(self, command: Command, sequence: int, deadline: float) -> None:
        memory = self.memory
        while (seen := memory.get("ack_seq")) != sequence:
            left = deadline - time.monotonic()
            if left <= 0:
                self._raise_silent(command)
            _futex(memory.address("ack_seq"), _FUTEX_WAIT, seen, min(left, _ALIVE_CHECK_S))
            if memory.get("ack_seq") != sequence:
                self.raise_if_gone()

    def _raise_silent(self, command: Command) -> None:
        raise AttachFailed(f"The agent in pid {self.pid} did not answer {command.name} in time.")

    # ------------------------------------------------------------------------------ state

    @property
    def state(self) -> AgentState:
        """What the agent is doing; FAILED if it says something unknown."""
        value = self.memory.get("state")
        return AgentState(value) if value in AgentState._value2member_map_ else AgentState.FAILED

    @property
    def stop_reason(self) -> StopReason:
        """Why the last window was closed."""
        value = self.memory.get("stop_reason")
        known = value in StopReason._value2member_map_
        return StopReason(value) if known else StopReason.INTERNAL

    def alive(self) -> bool:
        """Whether the target still runs (a zombie does not)."""
        if self._pidfd is not None:
            poller = select.poll()
            poller.register(self._pidfd, select.POLLIN)
            return not poller.poll(0)
        try:
            with open(f"/proc/{self.pid}/stat", "rb") as file:
                return file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
        except OSError:
            return False

    def raise_if_gone(self) -> None:
        """Raise TargetGone if the target has ended, or runs another program now."""
        if not self.alive():
            raise TargetGone(f"pid {self.pid} has ended.")
        if not self._is_there():
            raise TargetGone(
                f"pid {self.pid} runs another program now; the agent went with the old."
            )

    def _is_there(self) -> bool:
        """The agent is in the target: an exec closes its descriptor, and takes its memory away."""
        own = os.fstat(self.memory.fd)
        try:
            if os.path.samestat(os.stat(self._path), own):
                return True
        except PermissionError:  # the target has changed its user meanwhile
            return True
        except OSError:
            pass
        # The target may have closed the descriptor by itself: then the memory tells.
        now = time.monotonic()
        if now >= self._look_again:
            self._look_again = now + _MAPS_CHECK_S
            self._mapped = _maps_inode(self.pid, own.st_ino)
        return self._mapped

    # ---------------------------------------------------------------------------- closing

    def close(self) -> None:
        """Let the memory go without a word; the agent sees the lock gone and goes idle."""
        if not self._closed:
            self._closed = True
            self._close()

    def _close(self) -> None:
        self.memory.close()
        self._close_pidfd()

    def _close_pidfd(self) -> None:
        if self._pidfd is not None:
            os.close(self._pidfd)

    def __enter__(self) -> AgentClient:
        """Itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Detach; an agent that does not answer must not hide the error on its way."""
        try:
            self.detach()
        except ProfilerError:
            if value is None:
                raise


def _maps_inode(pid: int, inode: int) -> bool:
    """Whether a process has a file of this inode mapped."""
    wanted = str(inode).encode()
    try:
        with open(f"/proc/{pid}/maps", "rb") as maps:
            return any(line.split(None, 5)[4] == wanted for line in maps)
    except PermissionError:
        return True
    except OSError:
        return False


def _pidfd(pid: int) -> int | None:
    """A descriptor of the process: immune to reuse of the pid. None before Linux 5.3."""
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError as exc:
        raise TargetGone(f"pid {pid} has ended.") from exc
    except (OSError, AttributeError):
        return None
