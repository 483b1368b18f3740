from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from gputap.profiler import schema
from gputap.profiler.analysis.collectives import collective_rows, merge_collectives, parse_name
from gputap.profiler.analysis.groups import Groups
from gputap.profiler.analysis.matching import match
from gputap.profiler.analysis.steps import cut_steps
from gputap.profiler.schema import EventFlag
from tests.analysis_cases import Tape


@pytest.mark.parametrize(
    ("name", "backend", "op"),
    [
        ("gloo:all_reduce", "gloo", "all_reduce"),
        ("nccl:_all_gather_base", "nccl", "_all_gather_base"),
        ("c10d::allreduce_", None, "all_reduce"),
        ("c10d::_allgather_base_", None, "all_gather"),
        ("c10d::barrier", None, "barrier"),
        ("_c10d_functional::all_reduce", None, "all_reduce"),
        ("record_param_comms", None, "record_param_comms"),
    ],
)
def test_names(name: str, backend: str | None, op: str) -> None:
    assert parse_name(name) == (backend, op)


def rows(tape: Tape) -> pa.Table:
    data = tape.data()
    return collective_rows(data, cut_steps(data)[0], groups=Groups(2))


def ddp(shift: int = 0, late: int = 0, count: int = 6, skip: int = 0) -> Tape:
    """One call and one work per step; the work ends at the same time on all ranks."""
    tape = Tape()
    for k in range(skip, count):
        begin = 10_000 * k
        tape.add("aten::mm", begin + 100, begin + 200)
        tape.add("c10d::allreduce_", begin + 300, begin + 320, kind="collective")
        tape.add(
            "gloo:all_reduce",
            begin + 400 + late,
            begin + 2000 + shift,
            kind="collective",
            tid=9,
            flags=int(EventFlag.ASYNC_END),
            shapes='[[[20],"float"]]',
        )
        tape.add("Optimizer.step#SGD.step", begin + 5000, begin + 6000, kind="user_scope")
    return tape


def test_works_are_the_collectives_where_there_are_any() -> None:
    table = rows(ddp())
    assert table.schema.equals(schema.arrow_schema(schema.COLLECTIVES))
    assert table.num_rows == 6
    first = table.to_pylist()[0]
    assert (first["op"], first["backend"], first["bytes"], first["dtype"]) == (
        "all_reduce",
        "gloo",
        80,
        "float",
    )
    assert (first["duration_ns"], first["timing_source"], first["step"]) == (1600, "host_work", 0)
    assert first["world_size"] == 2


def test_calls_stand_in_where_there_are_no_works() -> None:
    tape = ddp()
    tape.rows = [r for r in tape.rows if not r["name"].startswith("gloo")]
    tape.add("c10d::allreduce_", 305, 310, kind="collective")
    table = rows(tape)
    assert table.num_rows == 6
    assert set(table.column("timing_source").to_pylist()) == {"host_call"}


def test_sums_by_kind() -> None:
    (one,) = merge_collectives([rows(ddp()), rows(ddp())])
    assert (one.count, one.total_ns, one.mean_ns, one.max_ns) == (12, 12 * 1600, 1600, 1600)


def test_no_collectives_give_an_empty_table() -> None:
    tape = Tape()
    tape.add("aten::mm", 0, 10)
    assert rows(tape).num_rows == 0


def test_ranks_are_matched_though_one_capture_begins_later() -> None:
    tables = [rows(ddp(count=9)), rows(ddp(count=9, late=500, skip=2, shift=7))]
    found = match(tables)
    assert found is not None
    assert found.start.shape == (2, 7)
    assert found.last.tolist() == [1] * 7
    assert found.wait[0].tolist() == [500] * 7
    assert found.wait[1].tolist() == [0] * 7


def test_nothing_matches_one_rank_or_other_operations() -> None:
    one = rows(ddp())
    assert match([one]) is None
    other = ddp()
    for row in other.rows:
        row["name"] = row["name"].replace("gloo:all_reduce", "gloo:barrier")
    assert match([one, rows(other)]) is None
    assert match([one, rows(Tape())]) is None


def test_collective_time_is_a_union() -> None:
    from gputap.profiler.analysis.collectives import collective_union

    tape = ddp(count=2)
    tape.add("gloo:all_reduce", 1500, 2500, kind="collective", tid=8, flags=1)
    covered = collective_union(tape.data()).covered(np.array([0]), np.array([100_000]))
    assert covered.tolist() == [1600 + 500 + 1600]
