"""Sizes of process groups: of a collective's own group, not of the job."""

from __future__ import annotations

from typing import Any

import pytest

from gputap.profiler.analysis.collectives import collective_rows
from gputap.profiler.analysis.groups import groups_of
from gputap.profiler.analysis.recorder import Entry
from gputap.profiler.analysis.steps import cut_steps
from gputap.profiler.manifest import RankManifest
from tests.analysis_cases import Tape

DATA_PARALLEL = {"name": "3", "backend": "nccl", "size": 2, "ranks": [1, 5]}
WORLD = {"name": "0", "backend": "nccl", "size": 8, "ranks": list(range(8))}


def manifest(*groups: Any, rank: int = 5, world_size: int | None = 8) -> RankManifest:
    target = {"process_groups": list(groups)}
    return RankManifest(rank=rank, host="h", world_size=world_size, target=target)


def entry(name: str) -> Entry:
    return Entry("nccl:all_reduce", 0, "mesh_dp", 1, name)


def test_a_collective_has_the_size_of_its_own_group() -> None:
    groups = groups_of(manifest(WORLD, DATA_PARALLEL))
    assert groups.of(entry("3")) == (2, 1)
    assert groups.of(entry("0")) == (8, 5)


def test_without_its_group_a_size_is_known_only_where_there_is_one_group() -> None:
    assert groups_of(manifest(WORLD)).of(None) == (8, 5)
    assert groups_of(manifest()).of(None) == (8, 5)
    assert groups_of(manifest(WORLD, DATA_PARALLEL)).of(None) == (None, None)
    assert groups_of(manifest(WORLD, DATA_PARALLEL)).of(entry("9")) == (None, None)
    assert groups_of(manifest(world_size=None)).of(None) == (None, None)


def test_a_list_that_the_target_cut_leaves_the_place_open() -> None:
    huge = {"name": "0", "size": 4096, "ranks": list(range(1024))}
    groups = groups_of(manifest(huge, DATA_PARALLEL, rank=2000, world_size=4096))
    assert groups.of(entry("0")) == (4096, None)


@pytest.mark.parametrize(
    "group",
    [None, 5, {}, {"name": 3, "size": 2, "ranks": []}, {"name": "3", "size": "2", "ranks": []},
     {"name": "3", "size": 0, "ranks": []}, {"name": "3", "size": True, "ranks": []},
     {"name": "3", "size": 2, "ranks": None}],
)  # fmt: skip
def test_nonsense_is_left_out(group: Any) -> None:
    assert groups_of(manifest(WORLD, group)).named == {"0": (8, 5)}


def test_rows_have_the_groups_size_and_place() -> None:
    tape = Tape()
    tape.add("gloo:all_reduce", 1000, 2000, kind="collective", shapes='[[[20],"float"]]')
    tape.add("gloo:all_gather", 3000, 4000, kind="collective", shapes='[[[20],"float"]]')
    data = tape.data()
    columns = ["profiling_name", "process_group", "collective_seq_id", "time_created_ns"]
    said = [["gloo:all_reduce", ["3", "mesh_dp"], 7, 900], ["gloo:all_gather", ["0", "w"], 8, 2900]]
    rows = collective_rows(
        data,
        cut_steps(data)[0],
        groups=groups_of(manifest(WORLD, DATA_PARALLEL)),
        recorder={"columns": columns, "rows": said},
    ).to_pylist()
    assert [(r["world_size"], r["group_rank"]) for r in rows] == [(2, 1), (8, 5)]
    assert [(r["algbw"], r["communicator"]) for r in rows] == [(None, None)] * 2
