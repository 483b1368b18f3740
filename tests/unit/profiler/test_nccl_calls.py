"""Arguments of NCCL's calls as the agent hands them over, and what they might be instead."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from gputap.profiler import schema
from gputap.profiler.nccl_calls import OPS, nccl_rows
from gputap.profiler.schema import EventKind
from tests.fake_agent import unix_clock

GOOD = {
    "count": 8, "type": 7, "reduction": 0, "peer": -1, "comm": 0x55AA, "stream": 0x10,
    "rank": 1, "size": 4, "device": 2, "result": 0,
}  # fmt: skip


def rows(*calls: tuple[str, str], tid: int = 7) -> list[dict[str, Any]]:
    """Calls of one thread, given latest first: a part is not in order."""
    strings = ["", *dict.fromkeys(text for call in calls for text in call)]
    records = np.zeros(len(calls), schema.dtype(schema.EVENT_RECORD))
    for at, (name, arguments) in enumerate(calls):
        start = 1000 * (len(calls) - at)
        records[at]["start_ticks"], records[at]["end_ticks"] = start, start + 10
        records[at]["name_id"] = strings.index(name)
        records[at]["shape_id"] = strings.index(arguments)
        records[at]["kind"] = EventKind.NCCL_API
    return nccl_rows({tid: [records], 5: []}, unix_clock(), strings).to_pylist()


def test_numbers_become_words_and_sizes() -> None:
    (row,) = rows(("ncclReduceScatter", json.dumps({**GOOD, "type": 9, "reduction": 4})))
    assert row == {
        "start_ns": 1000, "duration_ns": 10, "tid": 7, "name": "ncclReduceScatter",
        "op": "reduce_scatter", "count": 8, "dtype": "bfloat16", "bytes": 8 * 2 * 4,
        "reduction": "avg", "peer": None, "communicator": "0x55aa", "comm_rank": 1,
        "comm_size": 4, "device_id": 2, "stream": "0x10", "return_value": 0,
    }  # fmt: skip


def test_calls_are_sorted_by_start_and_ends_of_groups_have_no_arguments() -> None:
    found = rows(("ncclGroupEnd", ""), ("ncclSend", json.dumps({**GOOD, "peer": 3})))
    assert [(r["name"], r["peer"], r["bytes"]) for r in found] == [
        ("ncclSend", 3, 32), ("ncclGroupEnd", None, None),
    ]  # fmt: skip


@pytest.mark.parametrize("name", OPS)
def test_every_call_has_the_bytes_of_one_ranks_input(name: str) -> None:
    (row,) = rows((name, json.dumps(GOOD)))
    per_rank = name in ("ncclReduceScatter", "ncclAlltoAll", "ncclScatter")
    assert row["bytes"] == 32 * (4 if per_rank else 1)


def test_what_is_not_known_is_null() -> None:
    (row,) = rows(("ncclAlltoAll", json.dumps({**GOOD, "size": -1, "rank": -1, "type": 99})))
    assert (row["bytes"], row["comm_size"], row["comm_rank"], row["dtype"]) == (None,) * 4
    (row,) = rows(("ncclAllReduce", json.dumps({**GOOD, "reduction": 77, "comm": -1})))
    assert (row["reduction"], row["communicator"]) == ("custom", "0xffffffffffffffff")


@pytest.mark.parametrize(
    "text",
    [
        "", "null", "5", "[]", "{", '{"count": 1}', json.dumps({**GOOD, "more": 1}),
        json.dumps({**GOOD, "count": -1}), json.dumps({**GOOD, "count": 2**63}),
        json.dumps({**GOOD, "count": 2**62}), json.dumps({**GOOD, "count": "8"}),
        json.dumps({**GOOD, "count": True}), json.dumps({**GOOD, "size": 2**31}),
        json.dumps({**GOOD, "comm": 1.5}), json.dumps(GOOD)[:-1], "[" * 5000,
    ],
)  # fmt: skip
def test_nonsense_leaves_a_call_with_a_name_and_its_times(text: str) -> None:
    (row,) = rows(("ncclAllReduce", text))
    assert (row["name"], row["op"], row["start_ns"]) == ("ncclAllReduce", "all_reduce", 1000)
    assert row["bytes"] is None
