"""Finds out from outside which torch and which CPython run in a process. Nothing is stopped or run.

The mapped files say what is there; versions come from the files as the target sees them and from
symbols in its memory. What cannot be found out is None, with the reason.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import Final

from gputap.injectors.library.layouts import cpython, torch
from gputap.injectors.library.layouts.cpython import PythonLayout
from gputap.injectors.library.layouts.torch import TorchLayout
from gputap.profiler import elf
from gputap.profiler.elf import Elf, ProcessMemory
from gputap.profiler.errors import TargetGone, TargetNotPermitted
from gputap.profiler.procfs import Mapping, Process, ProcessGone

LIBTORCH: Final = "libtorch_cpu.so"
LIBC10: Final = "libc10.so"

_STRING: Final = "NSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE"
# Exported by libc10 of every version in the table; the last letters are the string's ABI.
_ABI_MARKS: Final = {
    True: (
        f"_ZN3c106detail14torchCheckFailEPKcS2_jRK{_STRING}",
        f"_ZN3c105ErrorC2ENS_14SourceLocationE{_STRING}",
    ),
    False: (
        "_ZN3c106detail14torchCheckFailEPKcS2_jRKSs",
        "_ZN3c105ErrorC2ENS_14SourceLocationESs",
    ),
}

_INTERPRETER: Final = re.compile(r"(?:lib)?python(3)\.(\d{1,2})([a-z]*)(?:\.so[.\d]*|-[\w-]+)?")
_EXTENSION: Final = re.compile(r"\.cpython-(3)(\d{1,2})([a-z]*)-[\w-]+\.so")
_VERSION_LINE: Final = re.compile(
    rb"^(__version__|cuda|hip)\b[^=\n]*=\s*['\"]([^'\"\n]{1,64})", re.M
)
_DIST_INFO: Final = re.compile(r"torch-(\d[\w.+!]{0,63})\.dist-info")


@dataclass(frozen=True, slots=True)
class Torch:
    """The PyTorch in a process. None = not found out."""

    path: str
    """`libtorch_cpu.so` as the target sees it."""
    version: str | None
    cuda: str | None
    """CUDA (or HIP) version that it was built for; None for a CPU build."""
    cxx11_abi: bool | None


@dataclass(frozen=True, slots=True)
class Python:
    """The CPython in a process."""

    path: str
    version: tuple[int, int]
    free_threaded: bool
    debug: bool


@dataclass(frozen=True, slots=True)
class Detected:
    """What runs in a process, the layouts chosen for it, and what is left out for which reason."""

    torch: Torch | None
    python: Python | None
    torch_layout: TorchLayout
    python_layout: PythonLayout
    reasons: tuple[str, ...]


def detect(pid: int) -> Detected:
    """Look at a process. Raises TargetGone or TargetNotPermitted."""
    process = Process(pid)
    maps = _maps(process)
    with ProcessMemory(pid) as memory:
        found_torch = _torch(process, maps, memory)
        images = _interpreters(maps, memory)
        found_python = _python(maps, images, memory)
        torch_layout, no_torch = torch.choose(
            found_torch.version if found_torch else None,
            found_torch.cxx11_abi if found_torch else None,
        )
        python_layout, no_python = cpython.choose(
            found_python.version if found_python else None,
            lambda size: _runtime(images, memory, size),
            free_threaded=found_python is not None and found_python.free_threaded,
            debug=found_python is not None and found_python.debug,
        )
    reasons = tuple(reason for reason in (no_torch, no_python) if reason)
    return Detected(found_torch, found_python, torch_layout, python_layout, reasons)


def _maps(process: Process) -> tuple[Mapping, ...]:
    try:
        maps = process.mappings
    except ProcessGone as exc:
        raise TargetGone(f"pid {process.pid} has ended.") from exc
    if maps is None:
        raise TargetNotPermitted(f"Reading the memory map of pid {process.pid} was refused.")
    return maps


# ------------------------------------------------------------------------------------ torch


def _torch(process: Process, maps: tuple[Mapping, ...], memory: ProcessMemory) -> Torch | None:
    library = next((m for m in maps if m.name == LIBTORCH), None)
    if library is None:
        return None
    package = library.path.rpartition("/lib/")[0]
    said = dict(_VERSION_LINE.findall(process.read_in_root(f"{package}/version.py") or b""))
    version = said.get(b"__version__", b"").decode("ascii", "replace") or None
    built_for = said.get(b"cuda") or said.get(b"hip")
    return Torch(
        path=library.path,
        version=version or _installed_version(process, package),
        cuda=built_for.decode("ascii", "replace") if built_for else None,
        cxx11_abi=_cxx11_abi(maps, memory),
    )


def _installed_version(process: Process, package: str) -> str | None:
    """The version in the name of torch's dist-info folder, beside the package."""
    try:
        names = process.names(process.in_root(package.rpartition("/")[0])) or []
    except ProcessGone:
        return None
    return next((m[1] for name in names if (m := _DIST_INFO.fullmatch(name))), None)


def _cxx11_abi(maps: tuple[Mapping, ...], memory: ProcessMemory) -> bool | None:
    for mapping in maps:
        if mapping.name == LIBC10 and (image := elf.loaded(memory, mapping.start)):
            for abi, marks in _ABI_MARKS.items():
                if any(image.symbol(mark) for mark in marks):
                    return abi
    return None


# ----------------------------------------------------------------------------------- python


@dataclass(frozen=True, slots=True)
class Runtime:
    """An interpreter's own account of itself: `_PyRuntime`, in the process's memory."""

    version: tuple[int, int]
    address: int
    head: bytes
    """Its first bytes; CPython 3.13 and later publish their offsets there."""


def runtime(pid: int, size: int = 4096) -> Runtime | None:
    """The CPython in a process; None if there is none that says its version (3.11 and later do).

    Raises TargetGone or TargetNotPermitted.
    """
    maps = _maps(Process(pid))
    with ProcessMemory(pid) as memory:
        for _, image in _interpreters(maps, memory):
            symbol, version = image.symbol("_PyRuntime"), _version_symbol(image, memory)
            try:
                if symbol and version:
                    return Runtime(version, symbol.address, memory.read(symbol.address, size))
            except OSError:
                continue
    return None


def _interpreters(maps: tuple[Mapping, ...], memory: ProcessMemory) -> list[tuple[Mapping, Elf]]:
    """The images that hold a CPython: libpython, or a program that it is linked into."""
    named = [m for m in maps if _INTERPRETER.fullmatch(m.name)]
    others = [m for m in maps[:1] if m not in named]  # an embedding program, linked statically
    found = []
    for mapping in named + others:
        image = elf.loaded(memory, mapping.start)
        if image is not None and image.symbol("_PyRuntime") is not None:
            found.append((mapping, image))
    return found


def _python(
    maps: tuple[Mapping, ...], images: list[tuple[Mapping, Elf]], memory: ProcessMemory
) -> Python | None:
    if not images:
        return None
    mapping, image = images[0]
    matches = [_INTERPRETER.fullmatch(mapping.name), *(_EXTENSION.search(m.name) for m in maps)]
    named = [m for m in matches if m]
    flags = {letter for m in named for letter in m[3]}
    version = _version_symbol(image, memory)
    if version is None and named:
        version = (int(named[0][1]), int(named[0][2]))
    if version is None:
        return None
    return Python(
        path=mapping.path,
        version=version,
        free_threaded="t" in flags or _published_free_threaded(version, images, memory),
        debug="d" in flags,
    )


def _version_symbol(image: Elf, memory: ProcessMemory) -> tuple[int, int] | None:
    """`Py_Version`, there since 3.11."""
    symbol = image.symbol("Py_Version")
    if symbol is None:
        return None
    try:
        (value,) = struct.unpack("<Q", memory.read(symbol.address, 8))
    except OSError:
        return None
    return (value >> 24 & 0xFF, value >> 16 & 0xFF) if value >> 24 & 0xFF == 3 else None


def _published_free_threaded(
    version: tuple[int, int], images: list[tuple[Mapping, Elf]], memory: ProcessMemory
) -> bool:
    if version < (3, 13):
        return False
    raw = _runtime(images, memory, 24)
    return raw is not None and raw[:8] == cpython.COOKIE and any(raw[16:24])


def _runtime(images: list[tuple[Mapping, Elf]], memory: ProcessMemory, size: int) -> bytes | None:
    """The first bytes of `_PyRuntime`, where 3.13 and later publish their offsets."""
    for _, image in images:
        symbol = image.symbol("_PyRuntime")
        try:
            return memory.read(symbol.address, size) if symbol else None
        except OSError:
            continue
    return None
