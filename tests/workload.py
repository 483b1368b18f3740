"""Starts a workload of `tests/workloads`, waits until it is ready, ends it cleanly.

```python
with Workload("mlp", "--seed", "1") as workload:
    attach(workload.pid)
    losses = workload.stop()
```
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

FOLDER = Path(__file__).resolve().parent / "workloads"


class Workload:
    """A workload process. `pid` is the host's pid of the (first) ready process.

    Args:
        name: a file of `tests/workloads` without `.py`, or the path of any script or program that
            prints `ready PID [RANK]`.
        args: the workload's arguments.
        python: interpreter; `None` runs `name` itself as a program.
        prefix: command to run it under, for example `["setpriv", "--reuid", "65534"]`.
        env: variables on top of ours.
        ranks: how many ready lines to wait for. `pids` then holds them in order of rank.
        record_losses: pass `--losses`; `stop()` and `wait()` then return rank 0's losses.
        timeout_s: deadline for becoming ready, and for ending after SIGTERM.
    """

    def __init__(
        self,
        name: str | Path,
        *args: str,
        python: str | Path | None = sys.executable,
        prefix: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        ranks: int = 1,
        record_losses: bool = False,
        timeout_s: float = 60.0,
    ) -> None:
        script = FOLDER / f"{name}.py"
        program = [str(python)] if python is not None else []
        self._command = [*prefix, *program, str(script if script.exists() else name), *args]
        self._env = {**os.environ, **(env or {})}
        self._ranks = ranks
        self._record_losses = record_losses
        self._timeout_s = timeout_s
        self._folder = tempfile.TemporaryDirectory(prefix="workload-")
        self._output = b""
        self._handles: list[int] = []
        self.pids: list[int] = []

    def __enter__(self) -> Workload:
        # The target may run as another user: it must be able to write its losses.
        os.chmod(self._folder.name, 0o777)
        losses = ["--losses", str(self._losses)] if self._record_losses else []
        self._errors = tempfile.TemporaryFile(dir=self._folder.name)
        self.process = subprocess.Popen(
            [*self._command, *losses],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=self._env,
        )
        try:
            self.pids = self._wait_until_ready()
            self._handles = [os.pidfd_open(pid) for pid in self.pids]
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Ranks whose launcher has died are nobody's descendants any more, hence the handles.
        for handle in self._handles:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
            os.close(handle)
        if self.process.poll() is None:
            for pid in [*reversed(descendants(self.process.pid)), self.process.pid]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.process.wait(self._timeout_s)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._errors.close()
        self._folder.cleanup()

    @property
    def pid(self) -> int:
        """The host's pid of the process to tap; of rank 0 where there are several."""
        return self.pids[0]

    @property
    def alive(self) -> bool:
        """The process that was started has not ended."""
        return self.process.poll() is None

    @property
    def errors(self) -> str:
        """What it has written to stderr."""
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace")

    @property
    def steps(self) -> int:
        """How many steps it did; known once it has said `done`."""
        lines = [line.split() for line in self._output.decode().splitlines()]
        return max(int(words[1]) for words in lines if words[:1] == ["done"])

    def begin(self) -> None:
        """Let a workload that was started with `--hold` begin."""
        for pid in self.pids:
            os.kill(pid, signal.SIGUSR1)

    def wait_done(self, timeout_s: float | None = None) -> int:
        """Wait until every rank has said `done` (`--steps`, `--linger`); return the steps."""
        self._read_until(b"done ", self._ranks, timeout_s or self._timeout_s)
        return self.steps

    def stop(self) -> list[float]:
        """SIGTERM, and wait for a clean end. Returns the losses where they are recorded."""
        for pid in self.pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        return self.wait()

    def wait(self, timeout_s: float | None = None) -> list[float]:
        """Wait for a clean end by itself. Returns the losses where they are recorded."""
        deadline = time.monotonic() + (timeout_s or self._timeout_s)
        while self._read(deadline):
            pass
        code = self.process.wait(max(0.1, deadline - time.monotonic()))
        assert code == 0, f"{self._command} ended with {code}: {self.errors}"
        return self.losses()

    def losses(self, rank: int = 0) -> list[float]:
        """The exact losses that rank `rank` wrote; empty where none are recorded."""
        names = (self._losses, Path(f"{self._losses}.{rank}"))
        path = next((path for path in names if path.exists()), None)
        return [float.fromhex(line) for line in path.read_text().split()] if path else []

    @property
    def _losses(self) -> Path:
        return Path(self._folder.name) / "losses"

    def _wait_until_ready(self) -> list[int]:
        self._read_until(b"ready ", self._ranks, self._timeout_s)
        lines = [line.split() for line in self._output.decode().splitlines()]
        ready = [words for words in lines if words and words[0] == "ready"]
        by_rank = sorted((int(words[2]) if words[2:] else 0, int(words[1])) for words in ready)
        return [host_pid(self.process.pid, inner) for _, inner in by_rank]

    def _read_until(self, word: bytes, count: int, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while self._complete_lines().count(b"\n" + word) < count:
            if not self._read(deadline):
                raise RuntimeError(f"{self._command} ended before {word!r}: {self.errors}")

    def _complete_lines(self) -> bytes:
        return b"\n" + self._output[: self._output.rfind(b"\n") + 1]

    def _read(self, deadline: float) -> bool:
        """Read some output; False at its end. Raises TimeoutError at the deadline."""
        assert self.process.stdout is not None
        fd = self.process.stdout.fileno()
        if not select.select([fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise TimeoutError(f"{self._command}: no answer in time: {self.errors}")
        data = os.read(fd, 65536)
        self._output += data
        return bool(data)


def descendants(pid: int) -> list[int]:
    """Children of `pid`, their children, and so on; parents before children."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                stat = (entry / "stat").read_bytes()
                # The name is in parentheses and may hold anything, parentheses too.
                parent = int(stat[stat.rindex(b")") + 2 :].split()[1])
                parents.setdefault(parent, []).append(int(entry.name))
    found = [pid]
    for one in found:
        found += parents.get(one, [])
    return found[1:]


def host_pid(root: int, inner: int) -> int:
    """Our pid of the process below `root` that calls itself `inner` in its own pid namespace."""
    for pid in [root, *descendants(root)]:
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{pid}/status").read_text(errors="replace")
            numbers = next(line for line in status.splitlines() if line.startswith("NSpid:"))
            if int(numbers.split()[-1]) == inner and not status.startswith("Name:\tunshare\n"):
                return pid
    raise ProcessLookupError(f"no process below {root} has the pid {inner} in its namespace")
