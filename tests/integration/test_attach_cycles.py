"""The short form of tests/soak/test_attach_cycles.py and test_kill_cycles.py."""

from __future__ import annotations

from pathlib import Path

from tests import cycles


def test_cycles_change_nothing_in_a_busy_target(tmp_path: Path) -> None:
    with cycles.training(fork_every_s=0.5) as workload:
        cycles.run_cycles(workload, tmp_path, 2)
        before = cycles.resources(workload.pid, looks=20)
        done = cycles.run_cycles(workload, tmp_path, 12, seed=1)
        after = cycles.resources(workload.pid, looks=20)
        cycles.assert_losses_unchanged(workload)
    assert all(one.reused for one in done)
    assert sum(one.events for one in done) > 12 * 100
    assert after.descriptors == before.descriptors
    assert after.threads == before.threads
    assert after.mappings <= before.mappings + 20


def test_the_next_attach_works_after_kills_inside_the_injector(tmp_path: Path) -> None:
    with cycles.training(fork_every_s=0) as workload:
        for number, helper in enumerate((False, True)):
            path = tmp_path / f"killed-{number}"
            cycles.kill_inside_the_injector(workload.pid, path, 0.002, helper=helper)
            cycles.cycle(workload.pid, tmp_path / "next", 10_000_000)
        cycles.assert_losses_unchanged(workload)
