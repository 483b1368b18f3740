"""Attach to real training and inference loops: steps and operators are counted exactly."""

from __future__ import annotations

import sysconfig
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gputap.injectors.library import selftest
from gputap.profiler.analysis.report import analyse
from gputap.profiler.schema import CaptureMode
from tests.tapped import capture, names_per_step, profiler_counts, run_all, whole
from tests.workload import Workload

STEPS = 20


@pytest.mark.parametrize("name", ["mlp", "transformer", "accumulate", "gan", "infer_loader"])
def test_operators_and_steps_equal_torch_profiler_s(name: str, tmp_path: Path) -> None:
    with Workload(name, "--steps", str(STEPS), "--hold", "--linger") as workload:
        taken = capture([workload.pid], tmp_path / "capture", lambda: run_all(workload))
        workload.stop()
    assert len(whole(taken)) == STEPS
    assert taken.manifest.ranks[0].dropped == {}
    tables, trace = profiler_counts(name)
    # The first steps create optimizer state; the window's edge cuts the last loader call off.
    for counts in names_per_step(taken)[3:-1]:
        assert counts == tables
    for counts in names_per_step(taken, raw=True)[3:-1]:
        assert counts == trace
    counted = {
        row["name"]: row["n"]
        for row in taken.query(
            "SELECT e.name, count(*) AS n FROM events e JOIN steps s"
            " ON e.start_ns >= s.start_ns AND e.start_ns < s.start_ns + s.duration_ns"
            " WHERE s.step = 10 AND e.kind <> 'gc' GROUP BY 1"
        ).to_pylist()
    }
    assert counted == tables


@pytest.mark.parametrize("name", ["slow_loader", "infer", "eval_between"])
def test_steps_found_are_steps_run(name: str, tmp_path: Path) -> None:
    with Workload(name, "--steps", str(STEPS), "--hold", "--linger") as workload:
        taken = capture([workload.pid], tmp_path / "capture", lambda: run_all(workload))
        workload.stop()
    assert len(whole(taken)) == STEPS
    assert all(step["recorded"] for step in whole(taken))


def test_two_ranks_of_one_job_with_loader_workers(tmp_path: Path) -> None:
    arguments = ("--steps", str(STEPS), "--hold", "--linger")
    with Workload("ddp_gloo", *arguments, ranks=2) as workload:
        taken = capture(workload.pids, tmp_path / "capture", lambda: run_all(workload))
        workload.stop()
    assert [(r.rank, r.world_size) for r in taken.ranks] == [(0, 2), (1, 2)]
    assert taken.manifest.job == "ddp-gloo"
    for rank in (0, 1):
        assert len(whole(taken, rank)) == STEPS
        collectives = taken.table("collectives", rank=rank).to_pylist()
        reduced = [c for c in collectives if c["op"] == "all_reduce"]
        assert len(reduced) >= 2 * STEPS
        assert {(c["backend"], c["group_name"]) for c in reduced} == {("gloo", "default_pg")}
        assert all(c["bytes"] and c["dtype"] == "float" for c in reduced)
    # The same collective has the same number on both ranks, and overlaps itself in time.
    pairs = taken.query(
        "SELECT count(*) AS n, bool_and(a.op = b.op AND a.bytes = b.bytes"
        " AND a.start_ns < b.start_ns + b.duration_ns AND b.start_ns < a.start_ns + a.duration_ns)"
        " AS same FROM collectives a JOIN collectives b USING (group_name, seq)"
        " WHERE a.rank = 0 AND b.rank = 1 AND a.op = 'all_reduce'"
    ).to_pylist()
    assert pairs[0]["n"] >= 2 * STEPS
    assert pairs[0]["same"]
    assert analyse(taken).ranks[1].steps_found == STEPS


def test_the_price_of_forked_workers_is_nothing(tmp_path: Path) -> None:
    """Workers forked while the window is open record nothing into the parent's rings."""
    arguments = ("--steps", str(STEPS), "--hold", "--linger", "--workers", "2")
    with Workload("slow_loader", *arguments) as workload:
        taken = capture([workload.pid], tmp_path / "capture", lambda: run_all(workload))
        workload.stop()
    tids = set(taken.table("events", ["tid"]).column("tid").to_pylist())
    threads = {t["tid"] for t in taken.table("threads").to_pylist()}
    assert workload.pid in tids
    assert tids <= threads


def test_modules_and_source_lines_of_operators(tmp_path: Path) -> None:
    with Workload("transformer", "--steps", str(STEPS), "--hold", "--linger") as workload:
        taken = capture([workload.pid], tmp_path / "capture", lambda: run_all(workload))
        workload.stop()
    rows = taken.query(
        """
        SELECT e.name, e.module, e.module_class, any_value(s.file) AS file
        FROM events e JOIN stacks s ON s.stack_id = e.stack_id
        WHERE e.kind = 'operator' AND s.module IS NULL AND s.file LIKE '%transformer.py'
        GROUP BY ALL
        """
    ).to_pylist()
    by_name = {(row["name"], row["module_class"]) for row in rows}
    assert ("aten::linear", "Linear") in by_name
    assert ("aten::embedding", "Embedding") in by_name
    assert ("aten::layer_norm", "LayerNorm") in by_name
    assert all(row["file"] for row in rows)
    report = analyse(taken)
    names = {module.name for module in report.modules}
    assert all(
        module.backward_ns > 0 for module in report.modules if module.module_class == "Linear"
    )
    assert "" in names


def test_modules_are_named_where_the_self_test_does_not_prove_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CUDA builds run no backward pass in the test, so the agent is configured a second time."""
    plain = selftest.judge

    def without_forward_threads(*arguments: Any) -> selftest.SelfTest:
        tested = plain(*arguments)
        return replace(tested, torch=replace(tested.torch, forward_thread_id=-1))

    monkeypatch.setattr(selftest, "judge", without_forward_threads)
    with Workload("transformer", "--steps", str(STEPS), "--hold", "--linger") as workload:
        taken = capture([workload.pid], tmp_path / "capture", lambda: run_all(workload))
        workload.stop()
    classes = set(taken.table("events", ["module_class"]).column("module_class").to_pylist())
    assert {"Embedding", "Linear", "LayerNorm"} <= classes


def test_bursts_record_whole_steps_within_the_budget(tmp_path: Path) -> None:
    with Workload("mlp") as workload:
        taken = capture(
            [workload.pid],
            tmp_path / "capture",
            lambda: threading.Event().wait(3.0),  # the length of the window, not a wait for luck
            mode=CaptureMode.BURSTS,
        )
        workload.stop()
    rank = taken.manifest.ranks[0]
    recorded = [s for s in whole(taken) if s["recorded"]]
    unrecorded = [s for s in whole(taken) if not s["recorded"]]
    assert recorded and unrecorded
    assert rank.bursts >= 1
    # Every step of this loop has the same operators: a burst that cut one would show.
    assert len({tuple(sorted(counts.items())) for counts in names_per_step(taken)}) == 1
    assert rank.recorded_ns is not None and rank.recorded_ns < rank.window_ns / 2


def test_losses_are_those_of_an_untapped_run_bit_for_bit(tmp_path: Path) -> None:
    arguments = ("--steps", "400", "--hold", "--linger", "--seed", "3")
    losses = []
    for tapped in (False, True):
        with Workload("mlp", *arguments, record_losses=True) as workload:
            if tapped:
                capture([workload.pid], tmp_path / "capture", lambda w=workload: run_all(w))
            else:
                run_all(workload)
            losses.append(workload.stop())
    assert len(losses[0]) == 400
    assert losses[0] == losses[1]


@pytest.mark.skipif(
    not (Path(sysconfig.get_paths()["include"]) / "Python.h").exists(),
    reason="torch.compile needs Python's headers; `make test` tries to install them",
)
def test_compiled_code_stays_visible_and_recompiles_are_counted(tmp_path: Path) -> None:
    arguments = ("--steps", "24", "--recompile-every", "8", "--hold", "--linger")
    with Workload("compiled", *arguments, timeout_s=170) as workload:

        def run() -> None:
            workload.begin()
            workload.wait_done(150)

        taken = capture([workload.pid], tmp_path / "capture", run, limit_s=170)
        workload.stop()
    assert len(whole(taken)) == 24
    regions = taken.query(
        "SELECT count(*) AS n FROM events WHERE name LIKE 'Torch-Compiled Region%'"
    ).to_pylist()
    assert regions[0]["n"] == 24
    found = {finding.rule: finding for finding in analyse(taken).findings}
    assert "compiled 3 times" in found["recompiles"].claim
