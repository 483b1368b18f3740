"""NCCL's calls by others than torch as collectives: whose they are, and that none counts twice."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gputap.profiler import schema
from gputap.profiler.analysis.collectives import collective_rows
from gputap.profiler.analysis.nccl import nccl_calls
from gputap.profiler.analysis.steps import cut_steps
from gputap.profiler.columns import table
from tests.analysis_cases import Tape

US = 1000


def call(at: int, **more: Any) -> dict[str, Any]:
    """An accepted all-reduce of 10 us, `at` us after the start, on the main thread."""
    return {
        "start_ns": at * US, "duration_ns": 10 * US, "tid": 1, "name": "ncclAllReduce",
        "op": "all_reduce", "dtype": "float32", "bytes": 400, "comm_size": 2, "comm_rank": 1,
        "communicator": "0xa", "device_id": 0, "return_value": 0, **more,
    }  # fmt: skip


def rows(tape: Tape, *calls: dict[str, Any]) -> list[dict[str, Any]]:
    names = [column.name for column in schema.NCCL_CALLS.columns]
    columns = {name: [one.get(name) for one in calls] for name in names}
    data = replace(tape.data(), nccl=nccl_calls(table(schema.NCCL_CALLS, columns)))
    found: list[dict[str, Any]] = collective_rows(data, cut_steps(data)[0]).to_pylist()
    return [row for row in found if row["backend"] == "nccl"]


def work() -> Tape:
    tape = Tape()
    tape.add("aten::mm", 0, 10_000 * US)
    return tape


def test_calls_become_collectives_in_order_of_time() -> None:
    found = rows(work(), call(300, tid=2), call(100), call(200, op="send", comm_size=None))
    assert [(r["op"], r["enqueued_ns"], r["seq"]) for r in found] == [
        ("all_reduce", 100 * US, 0), ("send", 200 * US, 1), ("all_reduce", 300 * US, 2),
    ]  # fmt: skip
    first = found[0]
    assert (first["world_size"], first["group_rank"], first["communicator"]) == (2, 1, "0xa")
    assert (first["timing_source"], first["algbw"], found[1]["world_size"]) == (
        "host_call", None, None,
    )  # fmt: skip


def test_refusals_and_ends_of_groups_are_no_collectives() -> None:
    end = call(200, op=None, name="ncclGroupEnd", communicator=None, return_value=None)
    assert rows(work(), call(100, return_value=4), end) == []
    assert len(rows(work(), call(100, return_value=7))) == 1  # ncclInProgress


def test_what_torch_tells_of_is_not_counted_twice() -> None:
    """A process group of another package: torch's call is around NCCL's in recorded stretches."""
    tape = work()
    tape.add("c10d::allreduce_", 95 * US, 150 * US, kind="collective")
    inside, later, other = call(100), call(20_000), call(20_100, communicator="0xb")
    assert [r["enqueued_ns"] for r in rows(tape, inside, later, other)] == [20_100 * US]


def test_a_call_inside_an_ordinary_operator_is_one_of_its_own() -> None:
    tape = work()
    tape.add("my::exchange", 95 * US, 150 * US)
    assert [r["enqueued_ns"] for r in rows(tape, call(100))] == [100 * US]
