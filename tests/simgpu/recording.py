"""What `recorder.c` wrote: buffers as they came from CUPTI, and how to walk them."""

from __future__ import annotations

import ctypes
import struct
from dataclasses import dataclass, field
from pathlib import Path

from gputap.profiler.cupti.abi import BY_KIND, ActivityKind, Version, version_of

_FORMATS = {"i4": "i", "u1": "B", "u2": "H", "u4": "I", "u8": "Q", "i8": "q"}
_BUFFER, _NAME, _END = 1, 2, 3
_NO_MORE = 12


@dataclass(frozen=True, slots=True)
class Record:
    """One record: its kind, and the fields that every version since 11.8 has."""

    kind: int
    fields: dict[str, int]

    def __getitem__(self, name: str) -> int:
        return self.fields[name]


@dataclass(slots=True)
class Recording:
    """A recorded program."""

    version: Version = (0, 0)
    dropped: int = 0
    complete: bool = False
    """It ended with the program, not with a kill."""
    buffers: list[bytes] = field(default_factory=list)
    names: dict[int, set[str]] = field(default_factory=dict)

    def walk(self) -> list[Record]:
        """All records, by our own table of sizes."""
        found = []
        for buffer in self.buffers:
            at = 0
            while at < len(buffer):
                found.append(_record(buffer, at))
                kind = ActivityKind(found[-1].kind)
                at += BY_KIND[kind].size(self.version)
            assert at == len(buffer)
        return found

    def walk_with(self, library: Path) -> list[Record]:
        """All records, as a libcupti steps through them: it may be NVIDIA's."""
        step = ctypes.CDLL(str(library)).cuptiActivityGetNextRecord
        found = []
        for buffer in self.buffers:
            memory = ctypes.create_string_buffer(buffer, len(buffer))
            start, record = ctypes.addressof(memory), ctypes.c_void_p()
            size = ctypes.c_size_t(len(buffer))
            while (code := step(ctypes.c_void_p(start), size, ctypes.byref(record))) == 0:
                assert record.value
                found.append(_record(buffer, record.value - start))
            assert code == _NO_MORE, code
        return found


def _record(buffer: bytes, at: int) -> Record:
    (kind,) = struct.unpack_from("<I", buffer, at)
    fields = {
        it.name: struct.unpack_from(f"<{_FORMATS[it.type[1:]]}", buffer, at + it.offset)[0]
        for it in BY_KIND[ActivityKind(kind)].fields
        if it.since == (11, 8)
    }
    return Record(kind, fields)


def read(path: Path, soname: str = "") -> Recording:
    """A recording; `soname` tells versions apart that have one number."""
    data, at, recording = path.read_bytes(), 0, Recording()
    while at + 16 <= len(data):
        part, size = struct.unpack_from("<QQ", data, at)
        body = data[at + 16 : at + 16 + size]
        at += 16 + size
        if part == _BUFFER and body:
            recording.buffers.append(body)
        elif part == _NAME:
            (address,) = struct.unpack_from("<Q", body)
            recording.names.setdefault(address, set()).add(body[8:].decode(errors="replace"))
        elif part == _END:
            number, recording.dropped = struct.unpack("<QQ", body)
            recording.version = version_of(number, soname)
            recording.complete = True
    return recording
