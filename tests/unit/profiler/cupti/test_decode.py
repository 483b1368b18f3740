"""Every field of every kind is read where each version has it; nonsense is counted by its cause."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gputap.profiler.cupti import abi
from gputap.profiler.cupti.abi import ActivityKind, Version
from gputap.profiler.cupti.decode import Decoded, decode
from gputap.profiler.cupti.rows import NO_ID, NO_PRIORITY, TABLES, column_name, dtypes, joined
from tests.unit.profiler.cupti.packing import VERSIONS, Chunk, chunk, number, record, timed

COUNTERS = ("unknown_kind", "too_short", "zero_times", "backwards", "unreal_times", "bad_offset")
TABLE_OF = {kind: name for name, rows in TABLES.items() for row in rows for kind in row.kinds}
TIMES = ("start", "end", "timestamp")
K = ActivityKind


def counted(found: Decoded) -> dict[str, int]:
    return {name: getattr(found, name) for name in COUNTERS if getattr(found, name)}


def rows_in(found: Decoded) -> int:
    return sum(len(getattr(found, name)) for name in TABLES)


@st.composite
def chunks(draw: st.DrawFn) -> tuple[Version, list[tuple[int, dict[str, int]]], Chunk]:
    """Records of any kinds with any values, whose times make sense."""
    version = draw(st.sampled_from(VERSIONS))
    made, raw = [], []
    for kind in draw(st.lists(st.sampled_from(list(abi.BY_KIND)), max_size=12)):
        values = {}
        start = draw(st.integers(1, (1 << 63) - 1))
        for field in abi.BY_KIND[kind].fields:
            if field.since > version:
                continue
            bits = 8 * int(field.type[-1])
            low, high = (0, 1 << bits) if field.type[1] == "u" else (-1 << bits - 1, 1 << bits - 1)
            values[field.name] = draw(st.integers(low, high - 1))
            if field.name in TIMES:
                values[field.name] = draw(st.integers(start, (1 << 63) - 1))
        if "start" in values:
            values["start"] = start
        made.append((int(kind), values))
        raw.append(record(kind, version, draw(st.integers(0, 255)), **values))
    return version, made, chunk(raw, version)


@given(chunks())
@settings(deadline=None, max_examples=300)
def test_every_field_of_every_kind_in_every_version(
    case: tuple[Version, list[tuple[int, dict[str, int]]], Chunk],
) -> None:
    _, made, packed = case
    found = decode(*packed)
    assert counted(found) == {}
    assert found.records == rows_in(found) == len(made)
    for name, records in TABLES.items():
        rows = getattr(found, name)
        kinds = [int(kind) for record in records for kind in record.kinds]
        # Of several kinds in one table each keeps its order.
        mine = [row for kind in sorted(kinds) for row in made if row[0] == kind]
        assert rows["kind"].tolist() == [kind for kind, _ in mine]
        for field in {f.name: f for layout in records for f in layout.fields}.values():
            column = column_name(field.name)
            absent = {"priority": NO_PRIORITY}.get(column, 0)
            if name == "memcpys" and column[:4] in ("src_", "dst_") and column.endswith("_id"):
                absent = NO_ID
            expected = [values.get(field.name, absent) for _, values in mine]
            assert rows[column].tolist() == expected, column
            assert rows[column].dtype == dtypes(name)[column]


@pytest.mark.parametrize("version", VERSIONS, ids=lambda v: f"{v[0]}.{v[1]}")
def test_every_kind_in_every_version(version: Version) -> None:
    """As above, the same for every version: hypothesis need not meet all of them."""
    raw, made = [], []
    for i, (kind, layout) in enumerate(abi.BY_KIND.items()):
        there = [field for field in layout.fields if field.since <= version]
        values = {field.name: (i * 40 + j) % 250 + 1 for j, field in enumerate(there)}
        values |= {name: 1 << 60 | i for name in TIMES if name in values}
        made.append((kind, values))
        raw.append(record(kind, version, 0xFF, **values))
    found = decode(*chunk(raw, version))
    assert counted(found) == {}
    for kind, values in made:
        rows = getattr(found, TABLE_OF[kind])
        (at,) = np.flatnonzero(rows["kind"] == kind).tolist()
        for name, value in values.items():
            assert rows[column_name(name)][at] == value, (kind.name, name)


def test_fields_that_a_version_lacks() -> None:
    raw = [
        timed(K.CONCURRENT_KERNEL, (12, 8), 1, 2),
        timed(K.MEMCPY, (12, 6), 1, 2),
        timed(K.SYNCHRONIZATION, (12, 6), 1, 2),
        timed(K.OVERHEAD, (11, 8), 1, 2),
    ]
    found = [decode(*chunk([one], (11, 8))) for one in raw]
    assert found[0].kernels["priority"].tolist() == [NO_PRIORITY]
    assert found[0].kernels["is_device_launched"].tolist() == [0]
    assert found[1].memcpys["copy_count"].tolist() == [0]
    assert found[1].memcpys["src_device_id"].tolist() == [NO_ID]
    assert found[1].memcpys["dst_context_id"].tolist() == [NO_ID]
    assert found[2].syncs["return_value"].tolist() == [0]
    assert found[3].overheads["correlation_id"].tolist() == [0]


def test_copies_of_both_kinds_share_a_table() -> None:
    version = (13, 0)
    raw = [
        timed(K.MEMCPY2, version, 5, 9, bytes=64, srcDeviceId=1, dstDeviceId=2, deviceId=1),
        timed(K.MEMCPY, version, 3, 4, bytes=32, deviceId=7),
    ]
    rows = decode(*chunk(raw, version)).memcpys
    assert rows["kind"].tolist() == [K.MEMCPY, K.MEMCPY2]
    assert rows["bytes"].tolist() == [32, 64]
    assert rows["src_device_id"].tolist() == [NO_ID, 1]
    assert rows["dst_device_id"].tolist() == [NO_ID, 2]


def test_many_records_of_one_kind_and_of_several() -> None:
    """More than are gathered at once."""
    version, count = (12, 8), 9001
    raw = [timed(K.KERNEL, version, i + 1, i + 2, gridX=i) for i in range(count)]
    calls = [timed(K.RUNTIME, version, i + 1, i + 3, cbid=i) for i in range(count)]
    same = decode(*chunk(raw, version)).kernels
    mixed = decode(*chunk([one for pair in zip(raw, calls, strict=True) for one in pair], version))
    for rows in (same, mixed.kernels):
        assert rows["grid_x"].tolist() == list(range(count))
        assert rows["end"].tolist() == list(range(2, count + 2))
    assert mixed.api_calls["cbid"].tolist() == list(range(count))


# ------------------------------------------------------------------------------------ nonsense


@pytest.mark.parametrize(
    ("start", "end", "cause"),
    [
        (0, 5, "zero_times"),
        (5, 0, "zero_times"),
        (0, 0, "zero_times"),
        (0, 1 << 63, "zero_times"),
        (6, 5, "backwards"),
        (5, 1 << 63, "unreal_times"),
        (1 << 63, 5, "unreal_times"),
        ((1 << 64) - 1, (1 << 64) - 1, "unreal_times"),
    ],
)
def test_times_that_make_no_sense(start: int, end: int, cause: str) -> None:
    good = timed(K.KERNEL, (13, 0), 1, (1 << 63) - 1, gridX=3)
    bad = timed(K.KERNEL, (13, 0), start, end)
    found = decode(*chunk([bad, good, bad], (13, 0)))
    assert counted(found) == {cause: 2}
    assert found.kernels["grid_x"].tolist() == [3]
    assert found.records == 3


def test_an_event_of_no_length_is_one() -> None:
    found = decode(*chunk([timed(K.KERNEL, (13, 0), 7, 7)], (13, 0)))
    assert found.kernels["start"].tolist() == found.kernels["end"].tolist() == [7]


@pytest.mark.parametrize("kind", [K.MEMORY2, K.MEMORY_POOL])
def test_a_timestamp_of_0_is_counted(kind: int) -> None:
    raw = [record(kind, (12, 8), timestamp=t, address=a) for t, a in ((0, 1), (9, 2))]
    found = decode(*chunk(raw, (12, 8)))
    assert counted(found) == {"zero_times": 1}
    assert getattr(found, TABLE_OF[K(kind)])["address"].tolist() == [2]


def test_what_has_no_times_is_not_asked_for_them() -> None:
    raw = [record(kind, (12, 8)) for kind in (K.STREAM, K.CONTEXT, K.DEVICE)]
    found = decode(*chunk(raw, (12, 8)))
    assert counted(found) == {}
    assert rows_in(found) == 3


@pytest.mark.parametrize("kind", [0, 6, 60, 64, 1000, 0xFFFFFFFF])
def test_unknown_kinds_are_skipped(kind: int) -> None:
    other = np.array([kind, 7, 7, 7, 7, 7], "<u4").tobytes()
    good = timed(K.KERNEL, (13, 0), 1, 2)
    found = decode(*chunk([other, good, other, good], (13, 0)))
    assert counted(found) == {"unknown_kind": 2}
    assert len(found.kernels) == 2


@pytest.mark.parametrize("kind", list(abi.BY_KIND))
def test_records_shorter_than_their_fields(kind: ActivityKind) -> None:
    layout, version = abi.BY_KIND[kind], (13, 5)
    needed = max(f.offset + int(f.type[-1]) for f in layout.fields)
    whole = record(kind, version, **{f.name: 5 for f in layout.fields})
    for size in range(8, len(whole) + 1, 8):
        # The last one ends with the data, the first where the next begins.
        found = decode(*chunk([whole[:size], whole[:size]], version))
        assert counted(found) == ({"too_short": 2} if size < needed else {})
        assert rows_in(found) == (0 if size < needed else 2)


def test_an_older_record_under_a_newer_version_is_too_short() -> None:
    found = decode(*chunk([timed(K.KERNEL, (11, 8), 1, 2)], (13, 5)))
    assert counted(found) == {"too_short": 1}


def test_a_longer_record_than_is_known_is_read() -> None:
    longer = timed(K.KERNEL, (13, 5), 1, 2, gridX=4) + bytes(64)
    found = decode(*chunk([longer, longer], (14, 2)))
    assert found.kernels["grid_x"].tolist() == [4, 4]


@pytest.mark.parametrize("version", [0, 1, 1000, 1107, 1108, 99999, 0xFFFFFFFF])
def test_any_version_is_taken_for_one_that_is_known(version: int) -> None:
    known = (13, 5) if version > 2000 else (11, 8)
    data, offsets, _ = chunk([timed(K.KERNEL, known, 1, 2, gridX=4)], known)
    assert decode(data, offsets, version).kernels["grid_x"].tolist() == [4]


@pytest.mark.parametrize(
    ("offsets", "bad", "kept"),
    [
        ([0, 216, 432], 0, [1, 2, 3]),
        ([0, 216, 216, 432], 1, [1, 2, 3]),  # of two that are equal the last is a record
        ([216, 0, 432], 1, [1, 3]),
        ([4, 216, 432], 1, [2, 3]),
        ([0, 216, 648], 1, [1, 2]),  # begins at the end
        ([0, 216, 0xFFFFFFF8], 1, [1, 2]),
        ([0, 0xFFFFFFFF, 432], 1, [1, 3]),
        ([432], 0, [3]),
        ([], 0, []),
    ],
)
def test_offsets_that_make_no_sense(offsets: list[int], bad: int, kept: list[int]) -> None:
    raw = [timed(K.KERNEL, (13, 0), 1, 2, gridX=i) for i in (1, 2, 3)]
    data, _, version = chunk(raw, (13, 0))
    found = decode(data, np.array(offsets, np.uint32), version)
    assert found.bad_offset == bad
    assert found.kernels["grid_x"].tolist() == kept
    assert found.records == len(offsets) == bad + rows_in(found)


def test_no_data() -> None:
    nothing = decode(np.empty(0, np.uint8), np.empty(0, np.uint32), 1300)
    assert rows_in(nothing) == 0
    assert counted(nothing) == {}
    found = decode(np.empty(0, np.uint8), np.zeros(5, np.uint32), 1300)
    assert counted(found) == {"bad_offset": 5}


def test_data_that_ends_within_a_record() -> None:
    data, offsets, version = chunk([timed(K.RUNTIME, (13, 0), 1, 2) for _ in "ab"], (13, 0))
    found = decode(data[:-1], offsets, version)
    assert counted(found) == {"too_short": 1}
    assert len(found.api_calls) == 1


@pytest.mark.parametrize("shift", [1, 4, 7])
def test_data_anywhere_in_memory(shift: int) -> None:
    data, offsets, version = chunk([timed(K.KERNEL, (13, 0), 1, 2, gridX=4)] * 3, (13, 0))
    moved = np.zeros(len(data) + 8, np.uint8)[shift : shift + len(data)]
    moved[:] = data
    assert decode(moved, offsets, version).kernels["grid_x"].tolist() == [4, 4, 4]
    apart = np.zeros((len(data), 2), np.uint8)
    apart[:, 0] = data
    assert decode(apart[:, 0], offsets, version).kernels["grid_x"].tolist() == [4, 4, 4]


def test_rows_outlive_their_chunk() -> None:
    """The ring's memory is written again as soon as a chunk is decoded."""
    data, offsets, version = chunk([timed(K.KERNEL, (13, 0), 1, 2, gridX=4)], (13, 0))
    data, offsets = data.copy(), offsets.copy()
    found = decode(data, offsets, version)
    data[:] = 0xFF
    offsets[:] = 0
    assert found.kernels["grid_x"].tolist() == [4]


def test_every_table_has_its_columns_even_when_empty() -> None:
    nothing = Decoded()
    for name in TABLES:
        rows = getattr(nothing, name)
        assert {column: rows[column].dtype for column in rows.columns} == dtypes(name)
        assert len(rows) == 0
    assert {f.name for f in fields(Decoded)} == {*TABLES, *COUNTERS, "records"}


def test_parts_are_joined() -> None:
    parts = [
        decode(*chunk([timed(K.KERNEL, v, i, i, gridX=i)], v)).kernels
        for i, v in enumerate(VERSIONS, 1)
    ]
    rows = joined("kernels", [Decoded().kernels, *parts])
    assert rows["grid_x"].tolist() == list(range(1, len(VERSIONS) + 1))
    assert joined("kernels", parts, ["grid_x"]).columns.keys() == {"grid_x"}
    assert len(joined("kernels", [])) == 0


# ---------------------------------------------------------------------------------------- fuzz


def total(found: Decoded) -> int:
    return rows_in(found) + sum(counted(found).values())


@given(
    data=st.binary(max_size=600),
    offsets=st.lists(st.integers(0, 700).map(lambda n: n & ~7) | st.integers(0, (1 << 32) - 1)),
    version=st.integers(0, (1 << 32) - 1) | st.sampled_from([1108, 1208, 1300, 1304]),
)
@settings(deadline=None, max_examples=500)
def test_any_bytes_are_survived_and_every_record_is_counted_once(
    data: bytes, offsets: list[int], version: int
) -> None:
    at: Any = np.array(offsets, np.uint32)
    found = decode(np.frombuffer(data, np.uint8), at, version)
    assert total(found) == found.records == len(offsets)


@given(chunks(), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=500)
def test_damaged_chunks_are_survived_and_every_record_is_counted_once(
    case: tuple[Version, list[tuple[int, dict[str, int]]], Chunk], chance: Any
) -> None:
    data, offsets, version = case[2]
    data, offsets = data.copy(), offsets.copy()
    for _ in range(chance.randrange(6)):
        if len(data):
            data[chance.randrange(len(data))] = chance.randrange(256)
        if len(offsets):
            offsets[chance.randrange(len(offsets))] ^= np.uint32(1 << chance.randrange(32))
    data = data[: chance.randrange(len(data) + 1)]
    found = decode(data, offsets, chance.choice([version, number((13, 5))]))
    assert total(found) == found.records == len(offsets)
