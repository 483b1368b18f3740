"""What was recorded comes back, and becomes the chunks that the agent would have made."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gputap.profiler.cupti import recording as recordings
from gputap.profiler.cupti.abi import ActivityKind
from gputap.profiler.cupti.decode import decode
from gputap.profiler.cupti.recording import MAGIC, Buffer, Origin, Recording, read, write
from gputap.profiler.cupti.replay import MOST_IN_CHUNK, replay
from gputap.profiler.cupti.tables import device_table
from gputap.profiler.errors import CaptureNotWritable, CaptureUnreadable
from tests.unit.profiler.cupti.packing import chunk, record, timed

V = (13, 0)
K = ActivityKind
ORIGIN = Origin(
    gputap="0.1.0",
    api_version=130000,
    version=1300,
    soname="libcupti.so.13",
    simulated=True,
    driver="580.65.06",
    device="NVIDIA H200",
    kinds=[1, 10],
    attributes={"device_buffer_size": 1 << 22},
    clock_samples=[{"realtime_ns": 5, "monotonic_ns": 3, "boottime_ns": 4}],
    notes="ünïcode",
)


def raw(*records: bytes) -> bytes:
    return chunk(records, V)[0].tobytes()


def sample() -> Recording:
    first = raw(
        timed(K.CONCURRENT_KERNEL, V, 1, 2, name=0x7F00_0000_0010),
        timed(K.RUNTIME, V, 1, 2, cbid=211),
        timed(K.CONCURRENT_KERNEL, V, 3, 4, name=0x7F00_0000_0020),
        record(K.DEVICE, V, name=0x7F00_0000_0030, id=0),
        timed(K.OVERHEAD, V, 5, 6, overheadData=0x5555_0000),
    )
    second = raw(timed(K.KERNEL, V, 7, 8, name=0x7F00_0000_0010), timed(K.KERNEL, V, 9, 9, name=1))
    return Recording(
        ORIGIN,
        [
            Buffer(
                0x7FFF_0000,
                first,
                {0x7F00_0000_0010: "_Z1av", 0x7F00_0000_0020: "b", 0x7F00_0000_0030: "GPU"},
            ),
            # The module was unloaded, and another's name was put there.
            Buffer(0x7FFF_8000, second, {0x7F00_0000_0010: "c"}),
            Buffer(0, b""),
        ],
    )


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "one.rec"
    write(path, sample())
    assert read(path) == sample()
    nothing = Recording(Origin("", 0, 0, "", False), [])
    write(path, nothing)
    assert read(path) == nothing


def test_it_is_compressed(tmp_path: Path) -> None:
    path = tmp_path / "one.rec"
    data = raw(*[timed(K.KERNEL, V, i, i + 1) for i in range(1, 5000)])
    write(path, Recording(ORIGIN, [Buffer(1, data)]))
    assert path.stat().st_size < len(data) / 10


def test_chunks_as_the_agent_makes_them() -> None:
    replayed = replay(sample())
    assert replayed.strings == ["", "_Z1av", "b", "GPU", "c"]
    assert replayed.left == 0
    first, second = replayed.chunks
    found = decode(first.data, first.offsets, first.version)
    assert found.kernels["name"].tolist() == [1, 2]
    assert found.devices["name"].tolist() == [3]
    assert found.overheads["overhead_data"].tolist() == [0]
    assert found.api_calls["cbid"].tolist() == [211]
    # The same address in a later buffer is another name; one without a string is unknown.
    assert decode(second.data, second.offsets, 1300).kernels["name"].tolist() == [4, 0]


def test_a_recording_becomes_rows(tmp_path: Path) -> None:
    path = tmp_path / "one.rec"
    write(path, sample())
    replayed = replay(read(path))
    decoded = [decode(c.data, c.offsets, c.version) for c in replayed.chunks]
    table = device_table(decoded, replayed.strings, lambda times: times)
    rows = [row for row in table.to_pylist() if row["kind"] == "kernel"]
    assert [row["name"] for row in rows] == ["a()", "b", "c", None]


def test_long_buffers_are_cut_into_chunks() -> None:
    count = 2 * MOST_IN_CHUNK + 5
    data = raw(*[timed(K.RUNTIME, V, i + 1, i + 2, cbid=i) for i in range(count)])
    replayed = replay(Recording(ORIGIN, [Buffer(0, data)]))
    assert [len(c.offsets) for c in replayed.chunks] == [MOST_IN_CHUNK, MOST_IN_CHUNK, 5]
    assert all(c.offsets[0] == 0 for c in replayed.chunks)
    ids = [decode(c.data, c.offsets, c.version).api_calls["cbid"] for c in replayed.chunks]
    assert np.concatenate(ids).tolist() == list(range(count))


def test_what_cannot_be_stepped_through_is_counted() -> None:
    data = raw(timed(K.RUNTIME, V, 1, 2)) + b"\xff" * 100
    replayed = replay(Recording(ORIGIN, [Buffer(0, data), Buffer(0, b"\xff" * 20)]))
    assert replayed.left == 120
    assert [len(c.data) for c in replayed.chunks] == [40]


# ------------------------------------------------------------------------------------- damage


def written(
    path: Path, header: Any, data: bytes = b"", length: int | None = None, flip: int = 0
) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(MAGIC)
        with pa.CompressedOutputStream(pa.PythonFile(file, "w"), "zstd") as out:
            out.write((len(text) if length is None else length).to_bytes(8, "little"))
            out.write((crc32(text + data) ^ flip).to_bytes(8, "little"))
            out.write(text + data)
    return path


def header(**changes: Any) -> dict[str, Any]:
    return {"format": 1, "buffers": [], **asdict(Origin("", 0, 0, "", False)), **changes}


def buffer(size: int) -> dict[str, Any]:
    return {"address": 0, "bytes": size, "names": {}}


@pytest.mark.parametrize(
    ("made", "word"),
    [
        (b"", "too early"),
        (b"{", "damaged"),
        (b"\xff\xfe", "damaged"),
        (b"[]", "header"),
        ({}, "header"),
        ({"format": 99}, "format 99"),
        (header(version="13"), "`version`"),
        (header(version=True), "`version`"),
        (header(simulated=1), "`simulated`"),
        (header(buffers={}), "`buffers`"),
        (header(buffers=[7]), "`buffer`"),
        (header(buffers=[buffer(8)]), "too early"),
        (header(buffers=[buffer(-8)]), "-8 bytes"),
        (header(buffers=[buffer(1 << 40)]), "1099511627776 bytes"),
        (header(buffers=[{"address": 0, "bytes": 0, "names": {"x": "a"}}]), "damaged"),
        (header(buffers=[{"address": 0, "bytes": 0, "names": {"1": 5}}]), "`name`"),
        (header(buffers=[{"bytes": 0}]), "`names`"),
    ],
)
def test_damaged_headers(tmp_path: Path, made: Any, word: str) -> None:
    with pytest.raises(CaptureUnreadable, match=word):
        read(written(tmp_path / "bad.rec", made, length=8 if made == b"" else None))


def test_other_files_and_none(tmp_path: Path) -> None:
    path = tmp_path / "other"
    with pytest.raises(CaptureUnreadable, match="No such file"):
        read(path)
    path.write_bytes(b"")
    with pytest.raises(CaptureUnreadable, match="not a recording"):
        read(path)
    path.write_bytes(MAGIC + b"no zstd at all")
    with pytest.raises(CaptureUnreadable, match="damaged"):
        read(path)
    with pytest.raises(CaptureUnreadable, match="header has"):
        read(written(path, b"", length=1 << 60))
    with pytest.raises(CaptureUnreadable, match="checksum"):
        read(written(path, header(), flip=1))
    with pytest.raises(CaptureUnreadable, match="follows"):
        read(written(path, header(), b"more"))
    with pytest.raises(CaptureNotWritable):
        write(tmp_path / "no" / "such" / "place", sample())


@given(at=st.integers(0, 10_000), byte=st.integers(0, 255), cut=st.booleans())
@settings(
    deadline=None,
    max_examples=200,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_a_damaged_file_is_refused_or_read(tmp_path: Path, at: int, byte: int, cut: bool) -> None:
    path = tmp_path / "one.rec"
    write(path, sample())
    good = path.read_bytes()
    at %= len(good)
    path.write_bytes(good[:at] if cut else good[:at] + bytes([byte]) + good[at + 1 :])
    # The few bytes that are not summed up are the compressor's own.
    try:
        assert read(path) == sample()
    except CaptureUnreadable as exc:
        assert "cannot be read" in str(exc)


def test_what_is_read_is_bounded() -> None:
    assert recordings.MAX_BUFFER_BYTES <= 1 << 30
    assert recordings.MAX_HEADER_BYTES <= 1 << 26
