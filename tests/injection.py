"""Real targets for the tests of the injector: compiled or interpreted, started, awaited, ended."""

from __future__ import annotations

import atexit
import functools
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from gputap.injectors import attach

SOURCES = Path(__file__).parent / "targets"
NATIVE = Path(attach.__file__).resolve().parent / "native"
START_S = 60.0


@functools.cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="gputap-test-"))
    folder.chmod(0o755)  # other users start targets from here
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@functools.cache
def compiled(name: str, *flags: str) -> Path:
    """The program (or, with -shared, the library) made from `tests/targets/NAME.c`."""
    made = _folder() / f"{name}-{abs(hash(flags)):x}"
    command = ["cc", "-O2", "-pthread", "-D_GNU_SOURCE", "-o", str(made)]
    command += [str(SOURCES / f"{name}.c"), *flags, "-lm", "-ldl"]
    subprocess.run(command, check=True, timeout=60)
    return made


def payload(*flags: str) -> Path:
    """A stand-in for the agent library; `-DBUILD_ID=N` makes it another build."""
    return compiled("payload", "-shared", "-fPIC", "-fvisibility=hidden", *flags)


@functools.cache
def dying_helper() -> Path:
    """A copy of `gputap-inject` that kills itself around a ptrace call of one's choice."""
    flags = [
        "-O2",
        "-D_GNU_SOURCE",
        "-Dptrace=dying_ptrace",
        "-ffreestanding",
        "-fno-stack-protector",
    ]
    flags += ["-fno-jump-tables", "-fno-tree-loop-distribute-patterns", "-fcf-protection=none"]
    objects = []
    for source in sorted([*NATIVE.glob("*.c"), *NATIVE.glob("*.S")]):
        made = _folder() / f"{source.name}.o"
        subprocess.run(["cc", *flags, "-c", str(source), "-o", str(made)], check=True, timeout=60)
        objects.append(str(made))
    made = _folder() / "dying-inject"
    double = str(SOURCES / "dying_ptrace.c")
    subprocess.run(["cc", "-O2", *objects, double, "-o", str(made)], check=True, timeout=60)
    return made


def helper(
    pid: int, *options: str, command: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Run the helper itself, for what its Python front does not offer; `command` goes before it."""
    line = [*command, str(attach.binary()), "--pid", str(pid), *options]
    return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)


class Target:
    """A process that has said that it is ready, and is killed at the end unless it has ended."""

    def __init__(
        self,
        *command: str | Path,
        user: int | None = None,
        preload: Path | None = None,
    ) -> None:
        environment = dict(os.environ)
        if preload:
            environment["LD_PRELOAD"] = str(preload)
        self.process = subprocess.Popen(
            [str(part) for part in command],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            user=user,
        )
        self.pid = self.process.pid

    def __enter__(self) -> Target:
        assert self.line() == "ready"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.wait(timeout=30)
        assert self.process.stdout
        self.process.stdout.close()

    def line(self, timeout_s: float = START_S) -> str:
        """The next line that the target prints."""
        assert self.process.stdout
        ready, _, _ = select.select([self.process.stdout], [], [], timeout_s)
        assert ready, "the target said nothing in time"
        return self.process.stdout.readline().strip()

    def status(self, field: str) -> str:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return line.split(":", 1)[1].strip()
        raise AssertionError(f"no {field}")

    def mappings(self) -> list[str]:
        return Path(f"/proc/{self.pid}/maps").read_text().splitlines()

    def threads(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/task"))

    def wait_for_threads(self, count: int) -> None:
        """Wait until threads that were about to end have ended."""
        deadline = time.monotonic() + START_S
        while self.threads() != count:
            assert time.monotonic() < deadline, f"{self.threads()} threads, not {count}"
            time.sleep(0.01)

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def cpu_ticks(self) -> int:
        """Time on a CPU so far: it grows while the target does anything at all."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    def assert_unharmed(self, *, busy: bool = True) -> None:
        """The target lives, is traced by nobody, has its signals back and, if `busy`, works on."""
        assert self.process.poll() is None, f"ended with {self.process.returncode}"
        assert self.status("TracerPid") == "0"
        assert self.status("State")[0] in "RSD"
        deadline = time.monotonic() + START_S  # a thread that lost its injector is on its way back
        while int(self.status("SigBlk"), 16):
            assert time.monotonic() < deadline, "signals stayed blocked"
            time.sleep(0.001)
        before = self.cpu_ticks()
        waited = 0.0
        while busy and self.cpu_ticks() <= before:
            assert waited < START_S, "the target does not work any more"
            waited += 0.02
            select.select([], [], [], 0.02)


def python_target(script: str, *arguments: str, interpreter: str = sys.executable) -> Target:
    """A Python target from `tests/targets/`."""
    return Target(interpreter, SOURCES / script, *arguments)
