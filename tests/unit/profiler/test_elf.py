"""Symbols are found in a running process and in files, and nonsense gives None."""

from __future__ import annotations

import ctypes
import mmap
import os
import random

import pytest

from gputap.profiler import elf
from gputap.profiler.elf import ProcessMemory
from gputap.profiler.errors import TargetGone
from gputap.profiler.procfs import Process


def _address(library: ctypes.CDLL, name: str) -> int:
    return ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0


def test_symbols_of_a_loaded_library_are_where_dlsym_says() -> None:
    libm = ctypes.CDLL("libm.so.6")
    mapping = next(m for m in Process(os.getpid()).mappings or () if m.name.startswith("libm.so"))
    with ProcessMemory(os.getpid()) as memory:
        image = elf.loaded(memory, mapping.start)
        assert image is not None
        for name in ("cbrtf", "lgamma_r", "nexttowardl"):
            symbol = image.symbol(name)
            assert symbol is not None and symbol.address == _address(libm, name)
        assert image.symbol("no_such_symbol") is None
        assert image.soname() == "libm.so.6"


def test_symbols_of_a_file_are_those_in_memory() -> None:
    mapping = next(m for m in Process(os.getpid()).mappings or () if m.name.startswith("libc.so"))
    with open(mapping.path, "rb") as file, ProcessMemory(os.getpid()) as memory:
        there = elf.loaded(memory, mapping.start)
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        image = elf.of_file(memoryview(data))
        assert there is not None and image is not None
        for name in ("qsort_r", "getdents64"):
            in_file, in_memory = image.symbol(name), there.symbol(name)
            assert in_file is not None and in_memory is not None
            assert in_file.address + there.bias == in_memory.address
            assert in_file.size == in_memory.size
        assert image.soname() == "libc.so.6"


def test_what_is_no_image_is_none() -> None:
    assert elf.of_file(b"") is None
    assert elf.of_file(b"\x7fELF\x02\x01" + bytes(58)) is None
    assert elf.of_file(b"#!/bin/sh\n" * 100) is None
    with ProcessMemory(os.getpid()) as memory:
        assert elf.loaded(memory, 0) is None
        assert elf.loaded(memory, 2**63) is None


def test_damaged_files_never_raise() -> None:
    with open("/proc/self/exe", "rb") as file:
        whole = bytearray(file.read(1 << 20))
    rng = random.Random(7)
    for _ in range(200):
        data = bytearray(whole)
        for _ in range(rng.randrange(1, 40)):
            data[rng.randrange(min(4096, len(data)))] = rng.randrange(256)
        image = elf.of_file(bytes(data[: rng.randrange(1, len(data))]))
        if image is not None:
            image.symbol("main")
            image.soname()


def test_hashes_are_those_of_the_format() -> None:
    assert elf.gnu_hash(b"printf") == 0x156B2BB8
    assert elf.sysv_hash(b"printf") == 0x077905A6


def test_a_process_that_is_gone_is_gone() -> None:
    pid = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(pid, 0)
    with pytest.raises(TargetGone):
        ProcessMemory(pid)
