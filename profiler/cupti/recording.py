"""Golden recordings: what CUPTI really wrote, kept to be read again where there is no GPU.

A file is `GPUTAPR1`, then, compressed with zstd: the length of the header and the CRC-32 of what
follows (u64 each), the header as JSON, and the bytes of all buffers one after another. The header
tells machine and versions, and for each buffer its address, size and what its pointers to strings
meant while it was filled.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final
from zlib import crc32

from gputap.profiler.errors import CaptureNotWritable, CaptureUnreadable

MAGIC: Final = b"GPUTAPR1"
FORMAT: Final = 1
MAX_HEADER_BYTES: Final = 1 << 26
MAX_BUFFER_BYTES: Final = 1 << 30
"""Of all buffers together: a damaged size shall not fill the memory."""

_PIECE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Buffer:
    """One buffer as CUPTI handed it back."""

    address: int
    """Where it was in the target."""
    data: bytes
    """Its valid bytes."""
    names: Mapping[int, str] = field(default_factory=dict)
    """Strings by address: they are sure to be there only while CUPTI hands back the buffer."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What must be known of a recording to read and judge it."""

    gputap: str
    """Version of gputap that made it."""
    api_version: int
    """What cuptiGetVersion said."""
    version: int
    """CUDA version of the CUPTI: major * 100 + minor."""
    soname: str
    simulated: bool
    """True if it is from the simulated stack, not from a GPU."""
    driver: str = ""
    device: str = ""
    kinds: Sequence[int] = field(default_factory=list)
    """Activity kinds that were enabled."""
    attributes: Mapping[str, int] = field(default_factory=dict)
    """CUPTI attributes that were set."""
    clock_samples: Sequence[Mapping[str, int]] = field(default_factory=list)
    """Clocks read back to back, by their names."""
    notes: str = ""


@dataclass(frozen=True, slots=True)
class Recording:
    """Buffers and where they are from."""

    origin: Origin
    buffers: Sequence[Buffer]


def write(path: str | os.PathLike[str], recording: Recording) -> None:
    """Write a recording. Raises CaptureNotWritable."""
    import pyarrow as pa

    header = {
        "format": FORMAT,
        **asdict(recording.origin),
        "buffers": [
            {
                "address": buffer.address,
                "bytes": len(buffer.data),
                "names": {str(at): text for at, text in buffer.names.items()},
            }
            for buffer in recording.buffers
        ],
    }
    text = json.dumps(header).encode()
    checksum = _checksum([text, *(buffer.data for buffer in recording.buffers)])
    try:
        with open(path, "wb") as file:
            file.write(MAGIC)
            with pa.CompressedOutputStream(pa.PythonFile(file, "w"), "zstd") as out:
                out.write(len(text).to_bytes(8, "little") + checksum.to_bytes(8, "little"))
                out.write(text)
                for buffer in recording.buffers:
                    out.write(buffer.data)
    except OSError as exc:
        raise CaptureNotWritable(f"The recording {path} cannot be written: {exc}.") from exc


def read(path: str | os.PathLike[str]) -> Recording:
    """Read a recording. Raises CaptureUnreadable if it is none, or damaged, or newer."""
    import pyarrow as pa

    try:
        with open(path, "rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                raise _unreadable(path, "it is not a recording")
            with pa.CompressedInputStream(pa.PythonFile(file, "r"), "zstd") as stream:
                return _read_stream(stream, path)
    except (OSError, ValueError, RecursionError) as exc:  # pyarrow's errors are of these two
        raise _unreadable(path, f"it is damaged ({exc})") from exc


def _read_stream(stream: Any, path: str | os.PathLike[str]) -> Recording:
    length, checksum = (int.from_bytes(_bytes(stream, 8), "little") for _ in range(2))
    if length > MAX_HEADER_BYTES:
        raise _unreadable(path, f"its header has {length} bytes")
    text = _bytes(stream, length)
    header = json.loads(text)
    if not isinstance(header, dict) or not isinstance(header.get("format"), int):
        raise _unreadable(path, "its header is none")
    if header["format"] > FORMAT:
        raise _unreadable(path, f"it has format {header['format']}, this gputap reads {FORMAT}")
    buffers = _checked(header.get("buffers"), list, "buffers")
    sizes = [_checked(_checked(b, dict, "buffer").get("bytes"), int, "bytes") for b in buffers]
    if min(sizes, default=0) < 0 or sum(sizes) > MAX_BUFFER_BYTES:
        raise _unreadable(path, f"its buffers have {sum(sizes)} bytes")
    data = [_bytes(stream, size) for size in sizes]
    if stream.read(1):
        raise _unreadable(path, "something follows its last buffer")
    if _checksum([text, *data]) != checksum:
        raise _unreadable(path, "its checksum is wrong")
    return Recording(
        _origin(header), [_buffer(b, raw) for b, raw in zip(buffers, data, strict=True)]
    )


def _checksum(parts: Sequence[bytes]) -> int:
    found = 0
    for part in parts:
        found = crc32(part, found)
    return found


def _bytes(stream: Any, count: int) -> bytes:
    """Exactly so many bytes, read piece by piece. Raises ValueError at the end."""
    pieces = []
    while count:
        piece = stream.read(min(count, _PIECE))
        if not piece:
            raise ValueError("it ends too early")
        pieces.append(piece)
        count -= len(piece)
    return b"".join(pieces)


def _buffer(described: Mapping[str, Any], data: bytes) -> Buffer:
    names = _checked(described.get("names"), dict, "names")
    return Buffer(
        _checked(described.get("address"), int, "address"),
        data,
        {int(at): _checked(text, str, "name") for at, text in names.items()},
    )


def _origin(header: Mapping[str, Any]) -> Origin:
    kinds = {"str": str, "int": int, "bool": bool, "Sequence[int]": list}
    values = {}
    for one in fields(Origin):
        name = str(one.type)
        kind = kinds.get(name, dict if name.startswith("Mapping") else list)
        values[one.name] = _checked(header.get(one.name), kind, one.name)
    return Origin(**values)


def _checked(value: Any, kind: type, what: str) -> Any:
    """A value if it is of that kind. Raises ValueError."""
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"`{what}` makes no sense")
    return value


def _unreadable(path: str | os.PathLike[str], why: str) -> CaptureUnreadable:
    return CaptureUnreadable(
        f"The recording {Path(path)} cannot be read: {why}.",
        hint="Take it again from where it was made; gputap reads what this or an older one wrote.",
    )
