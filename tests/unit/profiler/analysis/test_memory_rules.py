"""Findings about memory: each speaks where its fault is planted, and only there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from gputap.profiler.analysis.memory import memory_readings
from gputap.profiler.analysis.model import Report
from gputap.profiler.analysis.report import analyse_rank, build_report
from gputap.profiler.manifest import RankManifest
from tests.analysis_cases import Tape
from tests.unit.profiler.analysis.test_memory import samples

MIB = 1 << 20
MS = 1_000_000


def report(*ranks: Sequence[tuple[int, int]]) -> Report:
    """Ranks of steps of 100 ms, with what is allocated and the retries so far at each end."""
    results = []
    for number, ends in enumerate(ranks):
        tape = Tape()
        for step in range(len(ends) + 1):
            at = step * 100 * MS
            tape.add("aten::mm", at + MS, at + 50 * MS)
            tape.add("Optimizer.step#SGD.step", at + 90 * MS, at + 100 * MS, kind="user_scope")
        # The step before the first reading is cut by the window's edge.
        at_ends = [(200 + 100 * i + 1, "cuda:0", a, r) for i, (a, r) in enumerate(ends)]
        data = replace(tape.data(), rank=number, memory=memory_readings(samples(*at_ends)))
        results.append(analyse_rank(data, RankManifest(rank=number, host="h")))
    return build_report(results)


def rules(found: Report) -> set[str]:
    return {f.rule for f in found.findings} & {"memory_creep", "alloc_retries"}


def test_what_grows_at_every_step_is_named_with_its_rate() -> None:
    found = report([(100 * MIB + 2 * MIB * step, 0) for step in range(12)])
    (creep,) = [f for f in found.findings if f.rule == "memory_creep"]
    assert "grows by 2 MiB a step: from 100 MiB to 122 MiB in 11 steps" in creep.claim
    assert creep.evidence[0] == {"step": 1, "memory_allocated": 100 * MIB}
    assert len(creep.evidence) == 5


@pytest.mark.parametrize(
    "sizes",
    [
        [100] * 12,
        [100, 120] * 6,  # two sorts of steps
        [100] * 6 + [140] * 6,  # one step up: something was made once
        [100, 110, 120, 130, 140, 150, 100, 110, 120, 130, 140, 150],  # freed in between
        [150 - step for step in range(12)],
        [2000 + step for step in range(12)],  # half a percent
    ],
)
def test_what_does_not_creep_is_not_said_to(sizes: list[int]) -> None:
    assert rules(report([(size * MIB, 0) for size in sizes])) == set()


def test_few_looks_are_no_trend_and_that_is_said() -> None:
    found = report([(100 * MIB * (1 + step), 0) for step in range(4)])
    assert rules(found) == set()
    (gap,) = [a for a in found.abstained if a.rule == "memory_creep"]
    assert "at the end of 4 steps only" in gap.reason


def test_a_job_without_a_device_is_not_asked() -> None:
    tape = Tape()
    tape.add("aten::mm", MS, 50 * MS)
    found = build_report([analyse_rank(tape.data(), RankManifest(rank=0, host="h"))])
    assert not {a.rule for a in found.abstained} & {"memory_creep", "alloc_retries"}


def test_a_full_gpu_is_named_by_the_rank_that_suffers_most() -> None:
    calm = [(100 * MIB, 3)] * 8
    full = [(100 * MIB, 3 + 2 * step) for step in range(8)]
    found = report(calm, full, calm)
    (retries,) = [f for f in found.findings if f.rule == "alloc_retries"]
    assert "was full 14 times in the window on rank 1" in retries.claim
    assert retries.evidence[0]["retries"] == 14
    assert retries.rank == 1
    assert rules(report(calm)) == set()
