"""Long proof: gputap may be killed at any moment; the target runs on, the next attach works."""

from __future__ import annotations

import os
import random
from dataclasses import asdict
from pathlib import Path

import pytest

from tests import cycles

pytestmark = pytest.mark.soak

KILLS = int(os.environ.get("GPUTAP_SOAK_KILLS", "40"))
INJECTOR_LIFE_S = 0.012


def test_gputap_killed_anywhere_in_its_life(tmp_path: Path) -> None:
    """Points over the whole life of gputap, and as many within that of gputap-inject."""
    chance = random.Random(7)
    path, after_kill = tmp_path / "killed", tmp_path / "next"
    inside, lives, pauses = 0, 0, []
    with cycles.training() as workload:
        life_s = cycles.whole_life_s(workload.pid, path)
        cycles.cycle(workload.pid, after_kill, 10_000_000)
        before = cycles.resources(workload.pid)
        while lives < KILLS:
            cycles.clear(path)
            delay_s = life_s * chance.random()
            if cycles.kill_after(workload.pid, path, delay_s):
                lives += 1
            else:  # the machine was less busy than when the life was measured
                life_s = delay_s
            pauses.append(cycles.cycle(workload.pid, after_kill, 10_000_000).pause_ns)
        for number in range(KILLS):
            cycles.clear(path)
            delay_s = INJECTOR_LIFE_S * (number // 2 + chance.random()) / (KILLS / 2)
            inside += cycles.kill_inside_the_injector(
                workload.pid, path, delay_s, helper=number % 2 == 1
            )
            pauses.append(cycles.cycle(workload.pid, after_kill, 10_000_000).pause_ns)
        # A thread that lost its injector before it had a task sleeps for 30 s and ends.
        after = cycles.resources(workload.pid, looks=800)
        rounds = cycles.assert_losses_unchanged(workload)
    cycles.keep(
        "kill_cycles",
        {
            "killed": lives,
            "killed_inside_injector": inside,
            "attaches_after": len(pauses),
            "pause_ms": cycles.spread([pause / 1e6 for pause in pauses]),
            "rounds_compared": rounds,
            "before": asdict(before),
            "after": asdict(after),
        },
    )
    assert inside >= KILLS // 4
    assert after.descriptors == before.descriptors
    assert after.threads == before.threads
    assert after.mappings <= before.mappings + 2 * KILLS
