"""Planted faults: each is found, with the right cause; a healthy job has none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gputap.profiler.analysis.model import Finding, Report
from gputap.profiler.analysis.report import analyse, analyse_rank, build_report
from gputap.profiler.store import RankManifest
from tests.analysis_cases import FrameRow, Tape
from tests.synthetic import capture

HEALTHY: dict[str, Any] = {"steps": 40, "data_wait_ns": 50_000, "mode": "full"}


def judged(folder: Path, **plan: Any) -> Report:
    return analyse(capture(folder / "capture", **{**HEALTHY, **plan}))


def found(report: Report, rule: str) -> Finding:
    (one,) = [f for f in report.findings if f.rule == rule]
    return one


def alarms(report: Report) -> list[str]:
    return [f.rule for f in report.findings if f.severity != "info"]


def test_a_healthy_job_raises_no_alarm(tmp_path: Path) -> None:
    report = judged(tmp_path)
    assert alarms(report) == []
    assert [f.rule for f in report.findings] == ["time_goes"]
    assert "backward 52 %" in found(report, "time_goes").claim


def test_healthy_ranks_raise_no_alarm(tmp_path: Path) -> None:
    assert alarms(judged(tmp_path, ranks=4, collective_ns=100_000)) == []


def test_bursts_of_a_healthy_job_raise_no_alarm(tmp_path: Path) -> None:
    report = judged(tmp_path, recorded_every=4, mode="bursts")
    assert alarms(report) == []
    assert (report.ranks[0].steps_found, report.ranks[0].steps_recorded) == (40, 10)


@pytest.mark.parametrize(
    ("wait_ns", "steps", "severity"),
    [(400_000, 40, "warning"), (900_000, 40, "critical"), (900_000, 12, "warning")],
)
def test_waiting_for_data(tmp_path: Path, wait_ns: int, steps: int, severity: str) -> None:
    report = judged(tmp_path, data_wait_ns=wait_ns, steps=steps)
    finding = found(report, "input_bound")
    assert (finding.severity, finding.ceiling_ns) == (severity, wait_ns)
    assert alarms(report) == ["input_bound"]


def test_slow_batches_now_and_then_are_jitter_of_the_loader(tmp_path: Path) -> None:
    report = judged(tmp_path, slow_steps=(7, 31), slow_data_wait_ns=4_000_000)
    assert found(report, "step_jitter").claim.endswith("100 % of the excess is in data wait.")
    assert {row["step"] for row in found(report, "step_jitter").evidence} == {7, 31}


def test_garbage_collection(tmp_path: Path) -> None:
    report = judged(tmp_path, gc_step=3, gc_ns=2_000_000, gap_ns=100_000, steps=20)
    finding = found(report, "gc_pauses")
    assert finding.evidence[0]["step"] == 3
    assert "2.0 ms at most" in finding.claim


def test_a_straggler_is_named_with_its_cause(tmp_path: Path) -> None:
    report = judged(tmp_path, ranks=4, slow_rank=2, slow_rank_ns=1_500_000, collective_ns=100_000)
    finding = found(report, "straggler")
    assert (finding.rank, finding.severity) == (2, "critical")
    assert "comes last to 100 %" in finding.claim
    assert "Python between the phases takes 1.5 ms longer" in finding.claim
    assert 1_400_000 < (finding.ceiling_ns or 0) < 1_600_000
    assert found(report, "rank_imbalance").rank == 2
    waits = {row["rank"]: row["wait_ns"] for row in finding.evidence}
    assert waits[2] == 0
    assert all(waits[r] > 0 for r in (0, 1, 3))


def test_collectives_that_nothing_hides(tmp_path: Path) -> None:
    report = judged(tmp_path, ranks=2, collective_ns=900_000)
    finding = found(report, "exposed_collectives")
    assert finding.ceiling_ns == 900_000
    assert "straggler" not in alarms(report)


def test_lost_events_are_said(tmp_path: Path) -> None:
    report = judged(tmp_path, dropped={"ring_full": 9_000, "no_ring": 0})
    assert found(report, "lossy_capture").severity == "warning"
    assert report.ranks[0].overhead.dropped == {"ring_full": 9_000}


def test_what_cannot_be_known_is_abstained(tmp_path: Path) -> None:
    report = judged(tmp_path, ranks=2, steps=4)
    reasons = {a.rule: a.reason for a in report.abstained}
    assert reasons["gpu_idle"] == "no device level: no CUDA device in the target"
    assert "10 comparable steps" in reasons["step_jitter"]
    assert "too few collectives" in reasons["straggler"]


def test_one_rank_of_several_abstains_from_stragglers(tmp_path: Path) -> None:
    whole = capture(tmp_path / "capture", ranks=2, steps=20)
    from gputap.profiler.analysis.report import load_rank

    results = [analyse_rank(load_rank(whole, r), r) for r in whole.ranks[:1]]
    reasons = {a.rule: a.reason for a in build_report(results).abstained}
    assert "one rank was captured" in reasons["straggler"]


# --------------------------------------------------------------------- faults made by hand

LAYER: tuple[FrameRow, ...] = (
    ("forward", "/app/net.py", 5, None, None),
    ("_call", "torch/nn/module.py", 9, "layer", "Linear"),
    ("_call", "torch/nn/module.py", 9, "", "Net"),
)


def loop(
    *,
    ops: int = 20,
    op_ns: int = 50_000,
    gap_ns: int = 1_000,
    optimizer_ns: int = 20_000,
    **more: Any,
) -> Tape:
    """25 steps of `ops` operators in a module, a backward node of the same length, an update."""
    tape, now = Tape(), 0
    for _ in range(25):
        for _ in range(ops):
            tape.add("aten::linear", now, now + op_ns, stack=LAYER)
            now += op_ns + gap_ns
        for name in more.get("extra", ()):
            tape.add(name, now, now + more["extra_ns"], stack=LAYER)
            now += more["extra_ns"] + gap_ns
        tape.add("autograd::engine::evaluate_function: X", now, now + ops * op_ns)
        now += ops * op_ns + gap_ns
        tape.add("Optimizer.step#AdamW.step", now, now + optimizer_ns, kind="user_scope")
        tape.add("aten::add_", now + 500, now + optimizer_ns - 500)
        now += optimizer_ns
    return tape


def said(tape: Tape, **target: Any) -> Report:
    manifest = RankManifest(rank=0, host="h", mode="full", target=target)
    return build_report([analyse_rank(tape.data(), manifest)])


def test_the_hand_made_loop_is_healthy() -> None:
    assert alarms(said(loop())) == []


def test_python_between_operators() -> None:
    finding = found(said(loop(ops=200, op_ns=3_000, gap_ns=8_000)), "python_bound")
    assert finding.severity == "critical"
    assert "torch.compile" in finding.advice


def test_slow_python_with_few_operators_gets_other_advice() -> None:
    finding = found(said(loop(ops=4, gap_ns=100_000)), "python_bound")
    assert "move it off the step's thread" in finding.advice


def test_small_operators_without_gaps() -> None:
    report = said(loop(ops=300, op_ns=3_000, gap_ns=100))
    assert found(report, "small_operators").severity == "info"


def test_heavy_optimizer() -> None:
    finding = found(
        said(loop(optimizer_ns=900_000), optimizers=[{"class": "AdamW", "foreach": True}]),
        "optimizer_heavy",
    )
    assert finding.claim.startswith("AdamW takes")
    assert finding.advice.startswith("Use fused=True")


def test_values_read_back_in_every_step() -> None:
    tape = loop(extra=["aten::item"] * 6, extra_ns=20_000)
    assert found(said(tape), "sync_calls").claim.startswith("6.0 values per step")


def test_what_the_optimizer_reads_for_itself_is_no_finding() -> None:
    tape = loop(optimizer_ns=100_000)
    for row in [r for r in tape.rows if r["name"].startswith("Optimizer.step")]:
        for k in range(6):
            at = row["start_ns"] + 1_000 * (k + 1)
            tape.add("aten::_local_scalar_dense", at, at + 500)
    assert "sync_calls" not in [f.rule for f in said(tape).findings]


def test_copies() -> None:
    finding = found(said(loop(extra=["aten::copy_"] * 10, extra_ns=60_000)), "data_copies")
    assert "/app/net.py:5 forward" in finding.claim


def test_hot_operator_and_module() -> None:
    finding = found(said(loop()), "hot_operator")
    assert finding.claim.startswith("aten::linear takes")
    assert "module layer" in finding.claim


def test_recompiles() -> None:
    tape = loop()
    for at in (100_000, 9_000_000):
        tape.add("entire_frame_compile", at + 10, at + 30_000, tid=5)
        tape.add("_compile.compile_inner (dynamo_timed)", at + 20, at + 29_000, tid=5)
        tape.add("entire_frame_compile_data: compile_id=0/1", at + 12, at + 15, tid=5)
    finding = found(said(tape), "recompiles")
    assert (finding.severity, len(finding.evidence)) == ("warning", 2)


@pytest.mark.parametrize(
    ("loaders", "words"),
    [
        ([{"num_workers": 0, "batch_size": 8}], "num_workers=0"),
        ([{"num_workers": 2, "batch_size": 8}], "persistent_workers=True"),
        ([], "Give the DataLoader worker processes"),
    ],
)
def test_advice_for_the_loader_knows_its_settings(loaders: list[Any], words: str) -> None:
    tape = Tape()
    for k in range(25):
        at = 1_000_000 * k
        tape.add("enumerate(DataLoader)#_X.__next__", at, at + 500_000, kind="user_scope")
        tape.add("Optimizer.step#SGD.step", at + 900_000, at + 1_000_000, kind="user_scope")
    finding = found(said(tape, loaders=loaders), "input_bound")
    assert words in finding.advice


def test_nothing_recorded_abstains_everywhere() -> None:
    report = build_report([analyse_rank(Tape().data(), RankManifest(rank=0, host="h"))])
    assert report.findings == ()
    rules = {a.rule for a in report.abstained}
    assert {"input_bound", "python_bound", "hot_operator", "step_jitter", "gpu_idle"} <= rules
    assert build_report([]).findings == ()
