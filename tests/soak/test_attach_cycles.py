"""Long proof: full attach, capture, detach cycles on a busy target leave it as it was."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path

import pytest

from tests import cycles

pytestmark = pytest.mark.soak

CYCLES = int(os.environ.get("GPUTAP_SOAK_CYCLES", "1000"))
WARM_UP = 20
RSS_GROWTH_KB = 32 * 1024


def test_full_cycles_change_nothing_in_a_busy_target(tmp_path: Path) -> None:
    with cycles.training() as workload:
        cycles.run_cycles(workload, tmp_path, WARM_UP, seed=1)
        before, ours = cycles.resources(workload.pid), cycles.resources("self", looks=1)
        done = cycles.run_cycles(workload, tmp_path, CYCLES)
        after, ours_after = cycles.resources(workload.pid), cycles.resources("self", looks=1)
        rounds = cycles.assert_losses_unchanged(workload)
    cycles.keep(
        "attach_cycles",
        {
            "cycles": len(done) + WARM_UP,
            "operators": sum(one.events for one in done),
            "empty_windows": sum(one.events == 0 for one in done),
            "rounds_compared": rounds,
            "pause_ms": cycles.spread([one.pause_ns / 1e6 for one in done]),
            "attach_ms": cycles.spread([one.attach_ns / 1e6 for one in done]),
            "cycle_ms": cycles.spread([one.total_ns / 1e6 for one in done]),
            "before": asdict(before),
            "after": asdict(after),
            "gputap_before": asdict(ours),
            "gputap_after": asdict(ours_after),
        },
    )
    assert all(one.reused for one in done)
    assert after.descriptors == before.descriptors
    assert after.threads == before.threads
    assert after.mappings <= before.mappings + 20
    assert after.rss_kb <= before.rss_kb + RSS_GROWTH_KB
    assert ours_after.descriptors <= ours.descriptors
