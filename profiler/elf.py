"""Exported symbols of what a process has mapped, read from the file or from the process's memory.

Only the dynamic symbol table, by its hash table, so a look-up in a library of hundreds of megabytes
reads a few hundred bytes. 64-bit little-endian ELF. What is read may be anything: nonsense gives
None, never an exception of the parser.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Final

from gputap.profiler.errors import TargetGone, TargetNotPermitted

Read = Callable[[int, int], bytes]
"""`read(address, size)`: exactly `size` bytes, else OSError."""

_PT_LOAD, _PT_DYNAMIC = 1, 2
_DT_HASH, _DT_STRTAB, _DT_SYMTAB, _DT_SONAME, _DT_GNU_HASH = 4, 5, 6, 14, 0x6FFFFEF5
_SYMBOL: Final = struct.Struct("<IBBHQQ")
_MAX_CHAIN: Final = 1 << 16
_NONSENSE: Final = (OSError, ValueError, ArithmeticError, struct.error)
"""What following the offsets of a damaged image can end in."""


@dataclass(frozen=True, slots=True)
class Symbol:
    """An exported symbol. `address` is in the process, or in the file's own numbering."""

    address: int
    size: int


class ProcessMemory:
    """The memory of a process, read-only, through /proc/PID/mem. Nothing is stopped."""

    def __init__(self, pid: int) -> None:
        """Open it. Raises TargetNotPermitted or TargetGone."""
        try:
            self._fd = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
        except PermissionError as exc:
            raise TargetNotPermitted(f"Reading the memory of pid {pid} was refused.") from exc
        except OSError as exc:
            raise TargetGone(f"pid {pid} has ended.") from exc

    def read(self, address: int, size: int) -> bytes:
        """Exactly `size` bytes at `address`; OSError if they are not all mapped."""
        if not 0 <= address < 1 << 63:
            raise OSError(f"address {address:#x} is no user address")
        data = os.pread(self._fd, size, address)
        if len(data) != size:
            raise OSError(f"only {len(data)} of {size} bytes at {address:#x}")
        return data

    def close(self) -> None:
        """Close it."""
        os.close(self._fd)

    def __enter__(self) -> ProcessMemory:
        """Itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()


class Elf:
    """One loaded library or program."""

    def __init__(self, read: Read, base: int) -> None:
        """Of the image whose first byte is at `base`; OSError or ValueError if it is no ELF."""
        self._read = read
        header = read(base, 64)
        if header[:6] != b"\x7fELF\x02\x01":
            raise ValueError("not a 64-bit little-endian ELF image")
        table, entry_size, count = struct.unpack_from("<Q14xHH", header, 32)
        if entry_size != 56 or count > 512:
            raise ValueError("no usable program headers")
        raw = read(base + table, entry_size * count)
        entries = [struct.unpack_from("<IIQQQQQQ", raw, i * entry_size) for i in range(count)]
        loads = [e[3] - e[2] for e in entries if e[0] == _PT_LOAD and e[2] == 0]
        dynamic = [(e[3], e[6]) for e in entries if e[0] == _PT_DYNAMIC]
        if not loads or not dynamic:
            raise ValueError("not a dynamic ELF image")
        self._base = base
        self.bias = base - loads[0]
        """What to add to an address in the file's numbering."""
        self._tags = self._dynamic(*dynamic[0])

    def _dynamic(self, address: int, size: int) -> dict[int, int]:
        raw = self._read(self.bias + address, min(size, 1 << 16) // 16 * 16)
        tags: dict[int, int] = {}
        for tag, value in struct.iter_unpack("<QQ", raw):
            if tag == 0:
                break
            tags.setdefault(tag, value)
        return tags

    def _pointer(self, tag: int) -> int | None:
        """A table's address. glibc's loader relocates these in memory, that of musl does not."""
        value = self._tags.get(tag)
        if value is None:
            return None
        return value if value >= self._base else self.bias + value

    def read(self, address: int, size: int) -> bytes:
        """Bytes of the image; OSError if they are not all there."""
        return self._read(address, size)

    def soname(self) -> str | None:
        """The library's own name."""
        strings, at = self._pointer(_DT_STRTAB), self._tags.get(_DT_SONAME)
        if strings is None or at is None:
            return None
        try:
            return self._string(strings + at, 256).decode(errors="replace")
        except OSError:
            return None

    def _string(self, address: int, limit: int) -> bytes:
        """A NUL-terminated string. Reads page by page, since the next may not be mapped."""
        out = b""
        while len(out) < limit:
            out += self._read(address + len(out), 4096 - (address + len(out)) % 4096)
            if (end := out.find(b"\0")) >= 0:
                return out[:end]
        return out[:limit]

    def symbol(self, name: str) -> Symbol | None:
        """An exported, defined symbol by its (mangled) name."""
        wanted = name.encode()
        try:
            for index in self._candidates(wanted):
                found = self._match(index, wanted)
                if found is not None:
                    return found
        except _NONSENSE:
            return None
        return None

    def _match(self, index: int, wanted: bytes) -> Symbol | None:
        symbols, strings = self._pointer(_DT_SYMTAB), self._pointer(_DT_STRTAB)
        if symbols is None or strings is None:
            return None
        raw = self._read(symbols + index * _SYMBOL.size, _SYMBOL.size)
        at, _, _, section, value, size = _SYMBOL.unpack(raw)
        if section == 0 or self._read(strings + at, len(wanted) + 1) != wanted + b"\0":
            return None
        return Symbol(self.bias + value, size)

    def _candidates(self, wanted: bytes) -> list[int]:
        """Indices of the symbols that share the hash of `wanted`."""
        if (table := self._pointer(_DT_GNU_HASH)) is not None:
            return self._gnu_candidates(table, wanted)
        if (table := self._pointer(_DT_HASH)) is not None:
            return self._sysv_candidates(table, wanted)
        return []

    def _gnu_candidates(self, table: int, wanted: bytes) -> list[int]:
        hashed = gnu_hash(wanted)
        buckets, first, bloom_words, _ = struct.unpack("<IIII", self._read(table, 16))
        if not buckets:
            return []
        bucket_at = table + 16 + 8 * bloom_words
        (index,) = struct.unpack("<I", self._read(bucket_at + 4 * (hashed % buckets), 4))
        if index < first:
            return []
        chain_at, found = bucket_at + 4 * buckets, []
        for _ in range(_MAX_CHAIN):
            (value,) = struct.unpack("<I", self._read(chain_at + 4 * (index - first), 4))
            if value | 1 == hashed | 1:
                found.append(index)
            if value & 1:
                break
            index += 1
        return found

    def _sysv_candidates(self, table: int, wanted: bytes) -> list[int]:
        buckets, _ = struct.unpack("<II", self._read(table, 8))
        if not buckets:
            return []
        slot = table + 8 + 4 * (sysv_hash(wanted) % buckets)
        found: list[int] = []
        (index,) = struct.unpack("<I", self._read(slot, 4))
        while index and len(found) < _MAX_CHAIN:
            found.append(index)
            slot = table + 8 + 4 * buckets + 4 * index
            (index,) = struct.unpack("<I", self._read(slot, 4))
        return found


def gnu_hash(name: bytes) -> int:
    """Hash of DT_GNU_HASH."""
    value = 5381
    for byte in name:
        value = (value * 33 + byte) & 0xFFFFFFFF
    return value


def sysv_hash(name: bytes) -> int:
    """Hash of DT_HASH."""
    value = 0
    for byte in name:
        value = (value << 4) + byte
        value = (value ^ (value >> 24 & 0xF0)) & 0x0FFFFFFF
    return value


def loaded(memory: ProcessMemory, base: int) -> Elf | None:
    """The image loaded at `base`; None if it is not one."""
    try:
        return Elf(memory.read, base)
    except _NONSENSE:
        return None


class _FileImage:
    """A file read by the addresses that it wants to be loaded at, relative to its lowest one."""

    def __init__(self, data: bytes | memoryview) -> None:
        self._data = data
        header = bytes(data[:64])
        self._segments = [(0, 0, 64)]
        if len(header) == 64 and header[:6] == b"\x7fELF\x02\x01":
            table, size, count = struct.unpack_from("<Q14xHH", header, 32)
            self._segments = [
                (address, offset, length)
                for kind, _, offset, address, _, length, _, _ in (
                    struct.unpack_from("<IIQQQQQQ", data, table + i * size)
                    for i in range(min(count, 512))
                )
                if kind == _PT_LOAD
            ]
        self.base = next((a for a, offset, _ in self._segments if offset == 0), 0)

    def read(self, address: int, size: int) -> bytes:
        for start, offset, length in self._segments:
            if start <= address < start + length:
                at = offset + address - start
                data = bytes(self._data[at : at + min(size, start + length - address)])
                return data if len(data) == size else data.ljust(size, b"\0")
        raise OSError(f"address {address:#x} is not in the file")


def of_file(data: bytes | memoryview) -> Elf | None:
    """The image in a file's bytes (an mmap works too); None if it is not one."""
    try:
        image = _FileImage(data)
        return Elf(image.read, image.base)
    except _NONSENSE:
        return None
