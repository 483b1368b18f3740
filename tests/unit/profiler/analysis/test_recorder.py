"""Collectives and torch's flight recorder are joined by name and order."""

from __future__ import annotations

import numpy as np
import pytest

from gputap.profiler.analysis.recorder import Entry, entries, match

COLUMNS = ["process_group", "collective_seq_id", "p2p_seq_id", "profiling_name", "is_p2p"]
COLUMNS += ["time_created_ns"]


def answer(*rows: list[object]) -> dict[str, object]:
    return {"columns": COLUMNS, "rows": list(rows)}


def test_entries_have_group_and_sequence_number() -> None:
    found = entries(
        answer(
            [["0", "default_pg"], 8, 0, "gloo:all_reduce", False, 200],
            [["1", ""], 0, 3, "gloo:send", True, 100],
        )
    )
    assert found == [
        Entry("gloo:send", 100, "1", 3, "1"),
        Entry("gloo:all_reduce", 200, "default_pg", 8, "0"),
    ]


@pytest.mark.parametrize(
    "nonsense",
    [
        None,
        {},
        {"rows": 1},
        answer([1]),
        answer([[], "x", None, 5, None, "t"]),
        "text",
        {"columns": []},
    ],
)
def test_nonsense_gives_no_entries(nonsense: object) -> None:
    assert entries(nonsense) == []


def reduce(created: int, seq: int) -> Entry:
    return Entry("gloo:all_reduce", created, "0", seq)


def test_works_belong_to_what_was_enqueued_before_them() -> None:
    recorded = [reduce(10, 1), reduce(20, 2), reduce(30, 3), reduce(90, 4)]
    names = ["gloo:all_reduce"] * 2
    # Enqueued at 20 and 30, begun late: the entry of 10 was before the window.
    assert match(recorded, names, np.array([31, 33])) == [reduce(20, 2), reduce(30, 3)]


def test_names_do_not_mix_and_strangers_have_no_entry() -> None:
    send = Entry("gloo:send", 11, "0", 7)
    names = ["gloo:all_reduce", "gloo:send", "gloo:barrier"]
    found = match([reduce(10, 1), send], names, np.array([12, 13, 14]))
    assert found == [reduce(10, 1), send, None]


def test_a_work_before_every_entry_has_none() -> None:
    assert match([reduce(10, 1)], ["gloo:all_reduce"], np.array([5])) == [None]
