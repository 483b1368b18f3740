"""Records are found in a buffer by the sizes of its version."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gputap.profiler.cupti import abi
from gputap.profiler.cupti.abi import ActivityKind, Version
from gputap.profiler.cupti.decode import decode
from gputap.profiler.cupti.walk import walk
from tests.unit.profiler.cupti.packing import VERSIONS, chunk, number, record, timed

K = ActivityKind


@pytest.mark.parametrize("version", VERSIONS, ids=lambda v: f"{v[0]}.{v[1]}")
def test_every_kind_is_stepped_over_by_its_size(version: Version) -> None:
    data, offsets, numbered = chunk([record(k, version, 0xFF) for k in abi.BY_KIND] * 2, version)
    walked = walk(data, numbered)
    assert walked.offsets.tolist() == offsets.tolist()
    assert walked.offsets.dtype == np.uint32
    assert walked.left == 0


@given(st.sampled_from(VERSIONS), st.lists(st.sampled_from(list(abi.BY_KIND)), max_size=40))
@settings(deadline=None)
def test_any_sequence(version: Version, kinds: list[ActivityKind]) -> None:
    data, offsets, numbered = chunk([record(k, version, 7) for k in kinds], version)
    walked = walk(data, numbered)
    assert walked.offsets.tolist() == offsets.tolist()
    assert walked.left == 0


def test_it_stops_at_the_first_unknown_kind() -> None:
    known = timed(K.KERNEL, (13, 0), 1, 2)
    unknown = np.array([12] + [0] * 13, "<u4").tobytes()  # an NVTX marker
    data, _, version = chunk([known, known, unknown, known], (13, 0))
    walked = walk(data, version)
    assert walked.offsets.tolist() == [0, 216]
    assert walked.left == 56 + 216


def test_a_cut_record_is_left() -> None:
    data, _, version = chunk([timed(K.RUNTIME, (13, 0), 1, 2)] * 2, (13, 0))
    for missing in (1, 8, 39):
        walked = walk(data[:-missing], version)
        assert walked.offsets.tolist() == [0]
        assert walked.left == 40 - missing


def test_nothing_and_next_to_nothing() -> None:
    for size in range(8):
        walked = walk(np.zeros(size, np.uint8), 1300)
        assert walked.offsets.tolist() == []
        assert walked.left == size


def test_another_versions_sizes_lose_the_way() -> None:
    """That is why a recording says its version."""
    data, _, _ = chunk([timed(K.KERNEL, (13, 0), 1, 2)] * 10, (13, 0))
    assert len(walk(data, number((13, 0))).offsets) == 10
    assert len(walk(data, number((13, 1))).offsets) < 10


@given(st.binary(max_size=3000), st.integers(0, (1 << 32) - 1) | st.sampled_from([1108, 1300]))
@settings(deadline=None, max_examples=500)
def test_any_bytes_are_walked_and_decoded(raw: bytes, version: int) -> None:
    data = np.frombuffer(raw, np.uint8)
    walked = walk(data, version)
    assert 0 <= walked.left <= len(data)
    found = decode(data[: len(data) - walked.left], walked.offsets, version)
    # What walk found are records of known kinds, as long as they should be.
    assert found.bad_offset == found.unknown_kind == found.too_short == 0
