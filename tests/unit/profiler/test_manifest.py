from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gputap.profiler.errors import CaptureUnreadable
from gputap.profiler.manifest import ClockManifest, Manifest, Part, RankManifest
from gputap.profiler.schema import CAPTURE_VERSION

RANK = RankManifest(
    rank=3,
    host="höst",
    pid=42,
    world_size=8,
    level="host",
    level_reasons=("ptrace refused",),
    target={"command": "python train.py \udc80", "device": None, "threads": [{"tid": 1}]},
    clock=ClockManifest(offset_ns=1, error_ns=2, samples=3),
    window_start_ns=10**18,
    window_end_ns=10**18 + 5,
    dropped={"ring_full": 9},
    pause_ns=300,
)
FULL = Manifest(
    job="j",
    created_ns=1,
    gputap="0.1.0",
    state="truncated",
    reason="the disk is full",
    ranks=(RANK, RankManifest(rank=4, host="h", level="device", level_reasons=("ptrace refused",))),
    parts=(
        Part("events", "events/a", 10, 100, 1),
        Part("events", "events/b", 5, 50, 2),
        Part("steps", "steps/a", 1, 10, 3),
    ),
)


def test_round_trip() -> None:
    assert Manifest.from_json(FULL.to_json()) == FULL
    assert Manifest.from_json(FULL.to_json().encode()) == FULL


def test_level_is_the_lowest_and_reasons_come_once() -> None:
    assert FULL.level == "host"
    assert FULL.level_reasons == ("ptrace refused",)
    assert Manifest(job="", created_ns=0, gputap="").level == "host"


def test_files_rows_and_window() -> None:
    assert (FULL.files("events"), FULL.rows("events")) == (2, 15)
    assert (FULL.files("stacks"), FULL.rows("stacks")) == (0, 0)
    assert RANK.window_ns == 5
    assert RankManifest(rank=0, host="h").window_ns == 0


def test_unknown_keys_are_ignored_and_absent_ones_take_defaults() -> None:
    text = json.dumps(
        {
            "version": 1,
            "job": "j",
            "created_ns": 5,
            "gputap": "9.9",
            "later": [1],
            "ranks": [{"rank": 0, "host": "h", "new": {}}],
        }
    )
    manifest = Manifest.from_json(text)
    assert manifest.state == "open"
    assert manifest.ranks == (RankManifest(rank=0, host="h"),)


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("job",), 5, r"manifest\.job is 5, not a string"),
        (("created_ns",), "now", r"manifest\.created_ns is 'now', not an integer"),
        (("created_ns",), True, r"manifest\.created_ns is True, not an integer"),
        (("state",), "half", r"manifest\.state is 'half', not one of open, closed, truncated"),
        (("ranks",), {}, r"manifest\.ranks is \{\}, not a list"),
        (("ranks", 0), 7, r"manifest\.ranks\[0\] is 7, not an object"),
        (("ranks", 0, "rank"), None, r"manifest\.ranks\[0\]\.rank is None, not an integer"),
        (("ranks", 0, "dropped"), {"a": "b"}, r"ranks\[0\]\.dropped\.a is 'b', not an integer"),
        (("ranks", 0, "clock", "samples"), 1.5, r"clock\.samples is 1\.5, not an integer"),
        (("parts", 1, "rows"), "x" * 99, r"rows is 'xxx.*\.\.\., not an integer"),
    ],
)
def test_a_wrong_type_is_named_with_its_place(path: tuple[Any, ...], value: Any, says: str) -> None:
    data = json.loads(FULL.to_json())
    at = data
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    with pytest.raises(CaptureUnreadable, match=says):
        Manifest.from_json(json.dumps(data))


def test_a_missing_key_is_named() -> None:
    with pytest.raises(CaptureUnreadable, match=r"manifest\.gputap is missing"):
        Manifest.from_json('{"version": 1, "job": "j", "created_ns": 0}')


def test_a_newer_version_is_refused_with_advice() -> None:
    text = json.dumps({"version": CAPTURE_VERSION + 1, "job": 5})
    with pytest.raises(CaptureUnreadable, match="reads up to") as caught:
        Manifest.from_json(text)
    assert "newer gputap" in caught.value.hint


@pytest.mark.parametrize(
    "text", ["", "[]", "{", "null", '{"version": "1"}', "{}", "\x00", "[" * 9999]
)
def test_what_is_no_manifest_is_refused(text: str) -> None:
    with pytest.raises(CaptureUnreadable):
        Manifest.from_json(text)


@settings(deadline=None)
@given(st.data())
def test_damage_anywhere_stays_in_the_error_tree(data: st.DataObject) -> None:
    raw = bytearray(FULL.to_json().encode())
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at : at + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=5))
    try:
        Manifest.from_json(bytes(raw))
    except CaptureUnreadable:
        pass
