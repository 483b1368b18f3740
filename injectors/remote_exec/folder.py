"""A folder in the target's own file system that only gputap and the target may look into."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Final

from gputap.injectors.library.snippets import Argument, with_arguments
from gputap.profiler.errors import AttachFailed, TargetGone
from gputap.profiler.procfs import Process, ProcessGone
from gputap.profiler.schema import AGENT_MEMFD

PLACES: Final = ("tmp", "dev/shm", "var/tmp")

_SCRIPTS: Final = Path(__file__).parent
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW: Final = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Folder:
    """Holds the script, the agent and the answer for as long as the block lasts."""

    def __init__(self, pid: int, agent: bytes) -> None:
        """Make it. Raises AttachFailed where the target has no directory for temporary files."""
        self._pid = pid
        self._uid, self._gid = _identity(pid)
        self._name: Final = f".{AGENT_MEMFD}-{secrets.token_hex(8)}"
        self._library: Final = f"{self._name}.so"
        self._parent, self._place = self._make()
        self._fd = self._answer_fd = -1
        try:
            self._fd = os.open(self._name, _DIRECTORY, dir_fd=self._parent)
            self._file(self._library, agent, 0o500)
            self._answer_fd = self._file("answer", b"", 0o600)
            os.chmod(self._fd, 0o500)
            if self._uid != os.geteuid():
                os.chown(self._fd, self._uid, self._gid)
        except OSError as exc:
            self.remove()
            raise AttachFailed(
                f"Nothing can be written to /{self._place} of pid {pid}: {exc.strerror}."
            ) from exc

    def _make(self) -> tuple[int, str]:
        for place in PLACES:
            parent = _inside(self._pid, place)
            if parent < 0:
                continue
            try:
                os.mkdir(self._name, 0o700, dir_fd=parent)
            except OSError:
                os.close(parent)
                continue
            return parent, place
        raise AttachFailed(
            f"pid {self._pid} has no directory that a script for it could be put into.",
            hint=f"One of {', '.join('/' + place for place in PLACES)} must be writable in it.",
        )

    def _file(self, name: str, content: bytes, mode: int) -> int:
        """A new file of the target's; its descriptor if it is left open for reading (`answer`)."""
        fd = os.open(name, _NEW | os.O_RDWR, mode, dir_fd=self._fd)
        try:
            if self._uid != os.geteuid():
                os.fchown(fd, self._uid, self._gid)
            while content:
                content = content[os.write(fd, content) :]
        except BaseException:
            os.close(fd)
            raise
        if name == "answer":
            return fd
        os.close(fd)
        return -1

    def script(self, **arguments: Argument) -> str:
        """Write the scripts with their arguments; the path of the first as the target sees it."""
        path = f"/{self._place}/{self._name}"
        os.chmod(self._fd, 0o700)
        self._script("enter.py", folder=path)
        self._script("load.py", folder=path, library=self._library, **arguments)
        os.chmod(self._fd, 0o500)
        return f"{path}/enter.py"

    def _script(self, name: str, **arguments: Argument) -> None:
        text = (_SCRIPTS / name).read_text(encoding="utf-8")
        self._file(name, with_arguments(text, **arguments).encode(), 0o400)

    def answer(self) -> bytes:
        """What the script has written so far."""
        return os.pread(self._answer_fd, 1 << 16, 0)

    def remove(self) -> None:
        """Take everything away. Idempotent."""
        with suppress(OSError):
            os.chmod(self._fd, 0o700)
            for name in os.listdir(self._fd):
                os.unlink(name, dir_fd=self._fd)
        for fd in (self._answer_fd, self._fd):
            if fd >= 0:
                os.close(fd)
        self._answer_fd = self._fd = -1
        if self._parent >= 0:
            with suppress(OSError):
                os.rmdir(self._name, dir_fd=self._parent)
            os.close(self._parent)
            self._parent = -1

    def __enter__(self) -> Folder:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Take everything away."""
        self.remove()


def _identity(pid: int) -> tuple[int, int]:
    """Effective user and group of a process."""
    try:
        status = Process(pid).status
    except ProcessGone as exc:
        raise TargetGone(f"pid {pid} has ended.") from exc
    return int(status["Uid"].split()[1]), int(status["Gid"].split()[1])


def _inside(pid: int, place: str) -> int:
    """A directory of the target's, opened part by part and never through a link; -1 if it has none.

    A target must not be able to lead a privileged gputap elsewhere.
    """
    at = -1
    try:
        at = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        for part in place.split("/"):
            inner = os.open(part, _DIRECTORY, dir_fd=at)
            os.close(at)
            at = inner
    except OSError:
        if at >= 0:
            os.close(at)
        return -1
    return at
