"""What the files mapped into a process tell: architecture, C library, Python, PyTorch, CUDA."""

from __future__ import annotations

import os
import re
import stat
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

from gputap.profiler import elf
from gputap.profiler.errors import ProfilerError
from gputap.profiler.procfs import PROC, Mapping, Process

MACHINES: Final = {3: "i386", 40: "arm", 62: "x86_64", 183: "aarch64", 243: "riscv64"}
"""ELF e_machine to the name that `uname -m` uses."""

_LARGEST_SEARCHED: Final = 256 << 20


@dataclass(frozen=True, slots=True)
class Elf:
    """What the header of an executable says."""

    bits: int
    machine: str
    interpreter: str | None
    """The dynamic loader it asks for; None for a static executable."""


@dataclass(frozen=True, slots=True)
class Libc:
    """The C library of a process."""

    kind: Literal["glibc", "musl", "static", "unknown"]
    version: str | None = None
    path: str | None = None


@dataclass(frozen=True, slots=True)
class Python:
    """The Python interpreter inside a process."""

    version: str | None
    """As far as it can be told: `3.11.7`, or `3.11`."""
    implementation: Literal["cpython", "pypy"]
    linkage: Literal["static", "libpython"]
    """The interpreter is part of the executable, or in a libpython of its own."""
    free_threaded: bool
    path: str


@dataclass(frozen=True, slots=True)
class Torch:
    """The PyTorch that is mapped, which need not be the one on disk now."""

    version: str | None
    path: str
    cuda: str | None
    """Version of CUDA that it was built for."""
    hip: str | None
    build: Literal["cuda", "rocm", "cpu"]
    deleted: bool
    """Its files were replaced or removed since (a pip upgrade): version is then unknown."""
    python_bindings: bool
    """False for a C++ program that uses libtorch alone."""


@dataclass(frozen=True, slots=True)
class CudaLibrary:
    """One library of the CUDA stack that is mapped."""

    name: str
    path: str
    version: str | None


def read_elf(process: Process) -> Elf | None:
    """The executable's header; None where we may not read it."""
    header = process.read("exe", 1 << 16)
    return None if header is None else parse_elf(header)


def parse_elf(data: bytes) -> Elf | None:
    """Parse the first pages of an ELF file; None if it is not one."""
    if len(data) < 52 or data[:4] != b"\x7fELF" or data[4] not in (1, 2) or data[5] not in (1, 2):
        return None
    order = "<" if data[5] == 1 else ">"
    wide = data[4] == 2
    (machine,) = struct.unpack_from(order + "H", data, 18)
    name = MACHINES.get(machine, f"machine {machine}")
    try:
        interpreter = _interpreter(data, order, wide)
    except struct.error:
        interpreter = None
    return Elf(64 if wide else 32, name, interpreter)


def _interpreter(data: bytes, order: str, wide: bool) -> str | None:
    (table,) = struct.unpack_from(order + ("Q" if wide else "I"), data, 32 if wide else 28)
    size, count = struct.unpack_from(order + "HH", data, 54 if wide else 42)
    for at in range(table, table + size * count, max(size, 1)):
        (kind,) = struct.unpack_from(order + "I", data, at)
        if kind != 3:  # PT_INTERP
            continue
        where = struct.unpack_from(order + ("Q" if wide else "I"), data, at + (8 if wide else 4))[0]
        length = struct.unpack_from(
            order + ("Q" if wide else "I"), data, at + (32 if wide else 16)
        )[0]
        return data[where : where + length].rstrip(b"\0").decode("utf-8", "replace")
    return None


def find_libc(process: Process, header: Elf | None, mappings: Sequence[Mapping]) -> Libc:
    """Which C library the process runs on."""
    for mapping in mappings:
        if re.fullmatch(r"ld-musl-.*\.so\.1|libc\.musl-.*\.so\.1", mapping.name):
            return Libc("musl", None, mapping.path)
        if re.fullmatch(r"libc\.so\.6|libc-2\.\d+\.so", mapping.name):
            return Libc("glibc", _glibc_version(process, mapping), mapping.path)
    if header is not None and header.interpreter is None:
        return Libc("static")
    return Libc("unknown")


def _glibc_version(process: Process, mapping: Mapping) -> str | None:
    named = re.fullmatch(r"libc-(2\.\d+)\.so", mapping.name)
    if named:
        return named[1]
    return search_file(process, mapping, rb"GNU C Library [^\n]{0,200} release version (2\.\d+)")


_PYTHON_FILE: Final = re.compile(r"(?:lib)?(python|pypy)(\d\.\d+|\d)?(t?)(?:[.-].*)?")
_MODULE: Final = re.compile(r"\.(cpython|pypy)-?(\d)(\d+)(t?)-")
_STDLIB: Final = re.compile(r"/lib(?:64)?/(python|pypy)(\d\.\d+)(t?)/")


def find_python(process: Process, exe: str | None, mappings: Sequence[Mapping]) -> Python | None:
    """The interpreter in the process, shared or linked into the executable; None without one."""
    library = next((m for m in mappings if re.match(r"lib(python|pypy)[\d.]", m.name)), None)
    program = next((m for m in mappings if m.path == exe), None)
    # An extension module says "Python" even where a static interpreter has another name.
    clues = [clue for m in mappings for clue in (_clue(m.path),) if clue]
    named = _PYTHON_FILE.fullmatch(program.name) if program else None
    if library is None and not named and not clues:
        return None
    holder = library or program
    by_name = _PYTHON_FILE.fullmatch(holder.name) if holder else None
    if by_name and by_name[2] and "." in by_name[2]:
        clues.insert(0, (by_name[1], by_name[2], by_name[3]))
    family, minor, threads = clues[0] if clues else ("python", None, "")
    return Python(
        version=minor if family == "pypy" else _exact_version(process, holder, minor),
        implementation="pypy" if family == "pypy" else "cpython",
        linkage="libpython" if library else "static",
        free_threaded=threads == "t",
        path=holder.path if holder else exe or "",
    )


def _clue(path: str) -> tuple[str, str, str] | None:
    module = _MODULE.search(path)
    if module:
        family = "pypy" if module[1] == "pypy" else "python"
        return family, f"{module[2]}.{module[3]}", module[4]
    folder = _STDLIB.search(path)
    return (folder[1], folder[2], folder[3]) if folder else None


def _exact_version(process: Process, holder: Mapping | None, minor: str | None) -> str | None:
    """`3.11.7` where the interpreter exports its version (CPython 3.11 on), else `minor`."""
    if holder is None or process.proc != PROC:
        return minor
    try:
        with elf.ProcessMemory(process.pid) as memory:
            image = elf.loaded(memory, holder.start)
            symbol = image.symbol("Py_Version") if image else None
            if symbol is None:
                return minor
            return format_version_hex(struct.unpack("<Q", memory.read(symbol.address, 8))[0])
    except (OSError, ProfilerError):
        return minor


def format_version_hex(number: int) -> str:
    """PY_VERSION_HEX as text: 0x030b07f0 is `3.11.7`, 0x030e00c2 is `3.14.0rc2`."""
    major, minor, micro, level = (number >> shift & 0xFF for shift in (24, 16, 8, 0))
    stage = {0xA: "a", 0xB: "b", 0xC: "rc"}.get(level >> 4)
    return f"{major}.{minor}.{micro}" + (f"{stage}{level & 0xF}" if stage else "")


_TORCH_LIBRARY: Final = re.compile(r"libtorch(?:_cpu|_cuda|_hip|_python)?\.so(?:\.\d+)*")


def find_torch(process: Process, mappings: Sequence[Mapping]) -> Torch | None:
    """The PyTorch whose libraries are mapped."""
    libraries = {m.name.partition(".so")[0]: m for m in mappings if is_torch_library(m.path)}
    mapping = libraries.get("libtorch_cpu") or next(iter(libraries.values()), None)
    if mapping is None:
        return None
    folder = mapping.path.rpartition("/")[0].removesuffix("/lib")
    text = None if mapping.deleted else process.read_in_root(f"{folder}/version.py")
    facts = parse_version_py(text or b"")
    rocm = "libtorch_hip" in libraries or facts.get("hip") is not None
    cuda = "libtorch_cuda" in libraries or facts.get("cuda") is not None
    return Torch(
        version=facts.get("__version__"),
        path=folder,
        cuda=facts.get("cuda"),
        hip=facts.get("hip"),
        build="rocm" if rocm else "cuda" if cuda else "cpu",
        deleted=mapping.deleted,
        python_bindings="libtorch_python" in libraries,
    )


def is_torch_library(path: str) -> bool:
    """A file of this path is one of PyTorch's own libraries."""
    return _TORCH_LIBRARY.fullmatch(path.rpartition("/")[2]) is not None


def parse_version_py(text: bytes) -> dict[str, str]:
    """The constants of torch/version.py that are set."""
    found = re.findall(
        rb"^(__version__|cuda|hip)(?: *: *[^=\n]+)? *= *['\"]([^'\"\n]+)['\"]", text, re.MULTILINE
    )
    return {name.decode(): value.decode("utf-8", "replace") for name, value in found}


SIMULATED: Final = "libsimgpu"
"""The core of gputap's simulated CUDA stack: where it is mapped, no GPU time is a real one."""

_CUDA_NAMES: Final = {
    "libcuda": None,
    "libcudart": "cuda_runtime",
    "libcupti": "cuda_cupti",
    "libnccl": "nccl",
    "libcudnn": "cudnn",
    "libnvidia-ml": None,
    SIMULATED: None,
}
"""Library to the middle of its PyPI package's name, where it comes in one."""


def find_cuda(process: Process, mappings: Sequence[Mapping]) -> tuple[CudaLibrary, ...]:
    """The libraries of the CUDA stack that are mapped, with versions where they can be told."""
    found = []
    for mapping in mappings:
        # libcudart.so.12.4.127, or libcudart-9335f6a2.so.12 where a wheel carries its own.
        match = re.fullmatch(r"(lib[a-z-]+?)(?:-[0-9a-f]{8})?\.so(?:\.([\d.]+))?", mapping.name)
        if match and match[1] in _CUDA_NAMES:
            version = _wheel_version(process, mapping.path, _CUDA_NAMES[match[1]]) or match[2]
            found.append(CudaLibrary(match[1], mapping.path, version))
    return tuple(found)


def _wheel_version(process: Process, path: str, package: str | None) -> str | None:
    """Version of the wheel that a library lies in: the file's own name has the major only."""
    packages = path.partition("/nvidia/")[0] if "/nvidia/" in path else None
    if package is None or packages is None:
        return None
    try:
        names = os.listdir(f"{process.path}/root{packages}")
    except OSError:
        return None
    pattern = re.compile(rf"nvidia_{package}(?:_cu\d+)?-([\d.]+)\.dist-info")
    return next((match[1] for name in names if (match := pattern.fullmatch(name))), None)


_OTHER_PROFILERS: Final = {
    "libToolsInjection64.so": "Nsight Systems",
    "libcuda-injection.so": "Nsight Compute",
    "libparcagpucupti.so": "parcagpu",
}


def other_profilers(mappings: Iterable[Mapping]) -> tuple[str, ...]:
    """GPU profilers whose library is mapped: they may hold CUPTI's only slot."""
    names = (_OTHER_PROFILERS.get(m.name) for m in mappings)
    return tuple(dict.fromkeys(name for name in names if name))


def search_file(process: Process, mapping: Mapping, pattern: bytes) -> str | None:
    """First group of the first match of `pattern` in a mapped file; None if unreadable."""
    fd = process.open_mapped(mapping)
    if fd is None:
        return None
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode) or info.st_size > _LARGEST_SEARCHED:
            return None
        return _search(_Open(fd, (info.st_dev, info.st_ino, info.st_mtime_ns)), pattern)
    finally:
        os.close(fd)


@dataclass(frozen=True)
class _Open:
    """A descriptor that compares by the file behind it, so that ranks share one search."""

    fd: int
    key: tuple[int, int, int]

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Open) and self.key == other.key


@lru_cache(maxsize=64)
def _search(file: _Open, pattern: bytes) -> str | None:
    # Read, not mapped: a file that is truncated under a mapping (a pip upgrade) would kill us.
    compiled = re.compile(pattern)
    tail = b""
    at = 0
    try:
        while chunk := os.pread(file.fd, 4 << 20, at):
            match = compiled.search(tail + chunk)
            if match:
                return match[1].decode("ascii", "replace")
            tail, at = chunk[-512:], at + len(chunk)
    except OSError:
        pass
    return None
