"""Reads /proc for one process. Every read can fail at any moment, and says how it failed.

Two failures are told apart everywhere: the process has gone (`ProcessGone`), and the OS kernel does
not let us see (`None`). Nothing here stops, signals or writes to a process.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc")

_CHUNK: Final = 1 << 20
MAPS_LIMIT: Final = 256 << 20
"""A process may have millions of mappings; after this much text we stop reading."""

_REFUSED: Final = (errno.EACCES, errno.EPERM)

CAPABILITIES: Final = (
    "chown dac_override dac_read_search fowner fsetid kill setgid setuid setpcap linux_immutable "
    "net_bind_service net_broadcast net_admin net_raw ipc_lock ipc_owner sys_module sys_rawio "
    "sys_chroot sys_ptrace sys_pacct sys_admin sys_boot sys_nice sys_resource sys_time "
    "sys_tty_config mknod lease audit_write audit_control setfcap mac_override mac_admin syslog "
    "wake_alarm block_suspend audit_read perfmon bpf checkpoint_restore"
).split()
"""Names of the capability bits from bit 0, as in linux/capability.h."""


class ProcessGone(Exception):
    """The process ended, or another one has taken its pid."""


@dataclass(frozen=True, slots=True)
class Mapping:
    """One file mapped into a process (all its segments together, the first one's address)."""

    path: str
    """Path in the target's own mount namespace, without the mark of a deleted file."""
    deleted: bool
    inode: int
    start: int
    end: int

    @property
    def name(self) -> str:
        """The file name without its folder."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True)
class Process:
    """One process, seen through /proc. The properties are read once, when first asked for."""

    pid: int
    proc: Path = PROC

    @property
    def path(self) -> Path:
        """The process's folder."""
        return self.proc / str(self.pid)

    def read(self, name: str, limit: int = _CHUNK) -> bytes | None:
        """Content of /proc/PID/`name`, at most `limit` bytes; None where we may not read it."""
        try:
            with open(self.path / name, "rb", buffering=0) as file:
                return b"".join(_chunks(file.fileno(), limit))
        except OSError as error:
            self._check_alive(error)
            return None

    def link(self, name: str) -> str | None:
        """Target of the link /proc/PID/`name`; None where we may not read it."""
        try:
            return os.readlink(self.path / name)
        except OSError as error:
            self._check_alive(error)
            return None

    def names(self, folder: str) -> list[str] | None:
        """Entries of /proc/PID/`folder`; None where we may not list it."""
        try:
            return os.listdir(self.path / folder)
        except OSError as error:
            self._check_alive(error)
            return None

    def exists(self) -> bool:
        """There is such a process now."""
        return os.path.exists(self.path)

    @cached_property
    def status(self) -> dict[str, str]:
        """/proc/PID/status: field to text."""
        return parse_status(self._must("status"))

    @cached_property
    def stat(self) -> list[str]:
        """/proc/PID/stat from field 3 (state) on: `stat[0]` is the state, `stat[19]` the start."""
        text = self._must("stat")
        # The name is in parentheses and may hold anything, parentheses too.
        return text[text.rindex(b")") + 2 :].decode("ascii", "replace").split()

    @property
    def start_ticks(self) -> int:
        """Start in clock ticks since boot. With the pid it names a process for good."""
        return int(self.stat[19])

    @cached_property
    def mappings(self) -> tuple[Mapping, ...] | None:
        """The mapped files, each once, in order of address; None where we may not see them."""
        text = self.read("maps", MAPS_LIMIT)
        return None if text is None else tuple(parse_maps(text))

    @property
    def kernel_thread(self) -> bool:
        """It is a thread of the OS kernel: no memory of its own, nothing to tap."""
        return bool(int(self.stat[6]) & 0x00200000)  # PF_KTHREAD

    def maps_mention(self, word: bytes) -> bool | None:
        """`word` is in /proc/PID/maps; stops at the first hit. None where we may not see."""
        overlap = len(word) - 1
        tail = b""
        try:
            with open(self.path / "maps", "rb", buffering=0) as file:
                for chunk in _chunks(file.fileno(), MAPS_LIMIT):
                    if word in tail + chunk:
                        return True
                    tail = chunk[-overlap:]
        except OSError as error:
            self._check_alive(error)
            return None
        return False

    def open_mapped(self, mapping: Mapping) -> int | None:
        """A descriptor of the file behind a mapping: right for deleted files and other namespaces.

        None where the file cannot be reached: deleted and we lack the capability for map_files, or
        refused.
        """
        seen_from_target = f"{self.path}/root{mapping.path}"
        range_name = f"{self.path}/map_files/{mapping.start:x}-{mapping.end:x}"
        for path in (range_name,) if mapping.deleted else (seen_from_target, range_name):
            with contextlib.suppress(OSError):
                return _nonblocking(path, os.O_RDONLY)
        return None

    def in_root(self, path: str) -> str:
        """Where a mapped file lies in the process's folder: `root/...`.

        The kernel shows a process in a chroot with paths from our root, one in a container with
        paths from its own.
        """
        root = (self.link("root") or "/").rstrip("/")
        return f"root{path.removeprefix(root) if path.startswith(f'{root}/') else path}"

    def read_in_root(self, path: str, limit: int = _CHUNK) -> bytes | None:
        """Content of a mapped regular file, or one beside it; None where it cannot be read."""
        try:
            # Not a FIFO that would block us, and never a device: the path comes from the target.
            with open(
                self.path / self.in_root(path), "rb", buffering=0, opener=_nonblocking
            ) as file:
                if not os.path.isfile(f"/proc/self/fd/{file.fileno()}"):
                    return None
                return b"".join(_chunks(file.fileno(), limit))
        except OSError:
            return None

    def _must(self, name: str) -> bytes:
        """Content of a file that everybody may read (status, stat)."""
        text = self.read(name)
        if not text:
            raise ProcessGone(self.pid)
        return text

    def _check_alive(self, error: OSError) -> None:
        """Raise ProcessGone if that is why a read failed.

        Otherwise we were refused, or only this file is missing (older OS kernel, ended thread).
        """
        if error.errno not in _REFUSED and not self.exists():
            raise ProcessGone(self.pid) from error


def _nonblocking(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)


def _chunks(fd: int, limit: int) -> Iterator[bytes]:
    left = limit
    while left > 0 and (chunk := os.read(fd, min(left, _CHUNK))):
        left -= len(chunk)
        yield chunk


def parse_status(text: bytes) -> dict[str, str]:
    """Fields of a status file."""
    lines = text.decode("utf-8", "replace").split("\n")
    return {key: value.strip() for key, colon, value in (x.partition(":") for x in lines) if colon}


_MAP: Final = re.compile(
    rb"^([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ ([1-9][0-9]*) +(/[^\n]*)$", re.MULTILINE
)


def parse_maps(text: bytes) -> Iterator[Mapping]:
    """Mapped files of a maps file, each file once."""
    seen: set[tuple[bytes, bytes]] = set()
    for start, end, inode, path in _MAP.findall(text):
        if (inode, path) in seen:
            continue
        seen.add((inode, path))
        name = path.decode("utf-8", "surrogateescape")
        plain = name.removesuffix(" (deleted)")
        # The kernel writes a line feed in a name as \012.
        yield Mapping(
            plain.replace("\\012", "\n"), plain != name, int(inode), int(start, 16), int(end, 16)
        )


def processes(proc: Path = PROC) -> list[Process]:
    """Every process that we can see now, in order of pid."""
    pids = sorted(int(name) for name in os.listdir(proc) if name.isdigit())
    return [Process(pid, proc) for pid in pids]


def capability_names(mask: int) -> frozenset[str]:
    """Names, without CAP_ and in lower case, of the bits in a mask such as CapEff."""
    return frozenset(name for bit, name in enumerate(CAPABILITIES) if mask >> bit & 1)


def sysctl(name: str, proc: Path = PROC) -> str | None:
    """Value of a sysctl such as `kernel.yama.ptrace_scope`; None where this OS kernel has none."""
    try:
        return (proc / "sys" / name.replace(".", "/")).read_text().strip()
    except OSError:
        return None


def printable(text: str, limit: int = 4096) -> str:
    """`text` made safe for a terminal: control, format and undecodable characters become `?`."""
    shown = "".join(c if c.isprintable() else "?" for c in text[:limit])
    return shown if len(text) <= limit else shown[: limit - 1] + "…"
