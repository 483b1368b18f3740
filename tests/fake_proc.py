"""A made-up /proc folder: processes that no test machine has (musl, 32-bit, Yama, seccomp...)."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gputap.profiler.target import NAMESPACES, Ourselves

ALL_CAPABILITIES = frozenset({"sys_ptrace", "sys_admin", "bpf", "perfmon"})
NAMESPACE_LINKS = {name: f"{name}:[1]" for name in NAMESPACES}
GLIBC = "/usr/lib/libc.so.6"
LIBTORCH = "/site/torch/lib/libtorch_cpu.so"
PYTHON = "/usr/bin/python3.12"


def ourselves(
    *,
    uid: int = 0,
    capabilities: frozenset[str] = ALL_CAPABILITIES,
    permitted_mask: int = 0,
    initial_user_namespace: bool = True,
    yama_scope: int | None = None,
    memfd_noexec: int | None = 0,
    seccomp: int | None = 0,
    machine: str = "x86_64",
) -> Ourselves:
    """Us, as root on the host unless said otherwise."""
    return Ourselves(
        pid=1,
        uid=uid,
        capabilities=capabilities,
        permitted_mask=permitted_mask,
        namespaces=NAMESPACE_LINKS,
        initial_user_namespace=initial_user_namespace,
        yama_scope=yama_scope,
        memfd_noexec=memfd_noexec,
        seccomp=seccomp,
        machine=machine,
    )


def elf(*, bits: int = 64, machine: int = 62, interpreter: str | None = "/lib64/ld.so") -> bytes:
    """Header, one program header and the interpreter's name."""
    wide = bits == 64
    header_size, entry_size = (64, 56) if wide else (52, 32)
    ident = b"\x7fELF" + bytes([2 if wide else 1, 1, 1]) + bytes(9)
    count = 1 if interpreter else 0
    form = "<HHIQQQIHHHHHH" if wide else "<HHIIIIIHHHHHH"
    header = struct.pack(
        form, 2, machine, 1, 0, header_size, 0, 0, header_size, entry_size, count, 0, 0, 0
    )
    text = (interpreter or "").encode() + b"\0"
    at = header_size + entry_size
    entry = (
        struct.pack("<IIQQQQQQ", 3, 4, at, 0, 0, len(text), 0, 1)
        if wide
        else struct.pack("<IIIIIIII", 3, at, 0, 0, len(text), 0, 4, 1)
    )
    return ident + header + (entry if interpreter else b"") + text


def maps(*paths: str) -> str:
    """A maps file in which each path is mapped twice."""
    lines = ["00400000-00401000 rw-p 00000000 00:00 0                          [heap]\n"]
    for number, path in enumerate(paths, start=1):
        for part in (0, 1):
            start = number * 0x100000 + part * 0x1000
            lines.append(f"{start:x}-{start + 0x1000:x} r-xp 0000 fe:00 {number + 100} {path}\n")
    return "".join(lines)


@dataclass
class FakeProc:
    """The folder. `add` puts a process into it."""

    path: Path
    namespaces: Mapping[str, str] = field(default_factory=lambda: dict(NAMESPACE_LINKS))

    def add(
        self,
        pid: int,
        *,
        mapped: Sequence[str] | None = (PYTHON, GLIBC, LIBTORCH),
        argv: Sequence[str] = ("python", "train.py"),
        environ: Mapping[str, str] | None = None,
        program: bytes | None = None,
        exe: str = PYTHON,
        name: str = "python",
        state: str = "S",
        ppid: int = 1,
        flags: int = 0,
        image: int = 7,
        status: Mapping[str, str] | None = None,
        namespaces: Mapping[str, str] | None = None,
        cgroup: str = "0::/\n",
        threads: Mapping[int, str] | None = None,
        root: Mapping[str, str] | None = None,
        fds: Mapping[int, str] | None = None,
    ) -> Path:
        """A process. `mapped` None: its maps may not be read (missing, which comes to the same)."""
        folder = self.path / str(pid)
        (folder / "ns").mkdir(parents=True)
        (folder / "fd").mkdir()
        numbers = ["0"] * 49
        numbers[0], numbers[1], numbers[6], numbers[19] = state, str(ppid), str(flags), "4242"
        numbers[23], numbers[25], numbers[45] = str(image), str(image), str(image)
        (folder / "stat").write_text(f"{pid} ({name}) {' '.join(numbers)}\n")
        fields = {
            "Name": name,
            "State": f"{state} (x)",
            "Tgid": str(pid),
            "NSpid": str(pid),
            "Uid": "0\t0\t0\t0",
            "TracerPid": "0",
            "CapPrm": "0000000000000000",
            "CapEff": "0000000000000000",
            "NoNewPrivs": "0",
            "Seccomp": "0",
            **(status or {}),
        }
        text = "".join(f"{key}:\t{value}\n" for key, value in fields.items())
        (folder / "status").write_text(text)
        if mapped is not None:
            (folder / "maps").write_text(maps(*mapped))
        (folder / "cmdline").write_bytes(b"".join(a.encode() + b"\0" for a in argv))
        variables = (environ or {}).items()
        (folder / "environ").write_bytes(b"".join(f"{k}={v}\0".encode() for k, v in variables))
        (folder / "cgroup").write_text(cgroup)
        for kind, link in (namespaces or self.namespaces).items():
            (folder / "ns" / kind).symlink_to(link)
        for number, link in (fds or {}).items():
            (folder / "fd" / str(number)).symlink_to(link)
        for tid, thread in (threads or {pid: name}).items():
            (folder / "task" / str(tid)).mkdir(parents=True)
            own = text.replace(f"NSpid:\t{pid}", f"NSpid:\t{tid}\t{tid - pid + 1}")
            own = own.replace(f"Name:\t{name}", f"Name:\t{thread}")
            (folder / "task" / str(tid) / "status").write_text(own)
            (folder / "task" / str(tid) / "comm").write_text(thread + "\n")
        files = {"/proc/version": "Linux", **(root or {})}
        for path, content in files.items():
            inside = folder / "root" / path.lstrip("/")
            inside.parent.mkdir(parents=True, exist_ok=True)
            inside.write_text(content)
        real = self.path / "files" / exe.lstrip("/")
        real.parent.mkdir(parents=True, exist_ok=True)
        real.write_bytes(program if program is not None else elf())
        (folder / "exe").symlink_to(real)
        return folder
