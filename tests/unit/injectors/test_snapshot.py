"""What a target packs is unpacked with suspicion, and never unpickled."""

from __future__ import annotations

import binascii
import zlib
from typing import Any

import pytest

from gputap.injectors.snapshot import NoSnapshot, _unpacked


def packed(raw: bytes) -> dict[str, Any]:
    return {"data": binascii.b2a_base64(zlib.compress(raw)).decode(), "packed_bytes": len(raw)}


def test_what_was_packed_comes_out() -> None:
    raw = b"anything at all" * 100_000
    assert _unpacked(packed(raw), len(raw)) == raw


@pytest.mark.parametrize("size", [0, -1, 5, 7, 1 << 40])
def test_another_length_than_the_told_one_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=r"bytes|length"):
        _unpacked(packed(b"sixsix"), size)


def test_a_bomb_is_not_unpacked_beyond_its_told_length() -> None:
    with pytest.raises(ValueError, match="length"):
        _unpacked(packed(b"\0" * (64 << 20)), 1000)


@pytest.mark.parametrize("data", ["", "!!!!", "AAAA", 5, None])
def test_what_is_no_packed_data_is_refused(data: Any) -> None:
    with pytest.raises((ValueError, TypeError, zlib.error)):
        _unpacked({"data": data, "packed_bytes": 1}, 10)


def test_one_that_did_not_fit_says_how_to_get_a_smaller() -> None:
    with pytest.raises(NoSnapshot, match="too large: 40 MiB") as caught:
        _unpacked({"packed_bytes": 40 << 20}, 10)
    assert "--record" in str(caught.value.hint)
