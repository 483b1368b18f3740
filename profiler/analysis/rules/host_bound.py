"""Is the CPU busy with Python, small operators, synchronisation or copies instead of with work?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from gputap.profiler.analysis.facts import Facts, RankFacts
from gputap.profiler.analysis.model import Finding, Severity
from gputap.profiler.analysis.operators import OpTotal
from gputap.profiler.analysis.reads import AROUND, READ
from gputap.profiler.analysis.rules.common import (
    Answer,
    ms,
    percent,
    records_missing,
    where,
    worst,
)

SYNCS: Final = AROUND | {READ}
COPIES: Final = frozenset({"aten::copy_", "aten::_to_copy", "aten::contiguous", "aten::clone"})


@dataclass(frozen=True, slots=True)
class HostPolicy:
    """When host work becomes a finding."""

    gap_share: float = 0.20
    critical_gap_share: float = 0.50
    small_op_ns: int = 10_000
    """Below this mean self time per operator, calling costs more than computing."""
    min_ops_per_step: int = 100
    sync_share: float = 0.02
    min_syncs_per_step: float = 4.0
    copy_share: float = 0.15


def python_bound(facts: Facts, policy: HostPolicy = HostPolicy()) -> Answer:
    """Time between operators, with nothing of torch running on the step's thread."""
    yield from records_missing(facts, "python_bound")
    rank = worst(facts, lambda r: r.share(r.phases.gap_ns, r.full))
    if rank is None or not rank.full.any():
        return
    share = rank.share(rank.phases.gap_ns, rank.full)
    # What another rank makes us wait for is no Python of ours.
    exposed = rank.share(rank.exposed_ns, rank.full)
    share = max(share - exposed, 0.0)
    if share < policy.gap_share:
        return
    step = rank.mean(rank.duration_ns, rank.full)
    gap = int(share * step)
    count, mean_ns = _per_step(rank)
    severity: Severity = "critical" if share >= policy.critical_gap_share else "warning"
    yield Finding(
        rule="python_bound",
        severity=severity,
        claim=f"The CPU spends {percent(share)} of each step ({ms(gap)} of {ms(step)}) outside "
        f"torch operators{where(facts, rank)}; it runs {count:,.0f} of them, {ms(mean_ns)} each.",
        evidence=(
            {
                "rank": rank.rank,
                "gap_ns": gap,
                "step_ns": step,
                "operators_per_step": round(count),
                "mean_operator_self_ns": round(mean_ns),
                "steps": int(rank.full.sum()),
            },
        ),
        ceiling_ns=gap,
        advice=_python_advice(rank, count, mean_ns, policy),
        rank=rank.rank if len(facts.ranks) > 1 else None,
    )


def small_operators(facts: Facts, policy: HostPolicy = HostPolicy()) -> Answer:
    """Very many very short operators: the dispatcher is the work."""
    yield from records_missing(facts, "small_operators")
    rank = worst(facts, lambda r: _per_step(r)[0])
    if rank is None or not rank.full.any():
        return
    count, mean_ns = _per_step(rank)
    gap = rank.share(rank.phases.gap_ns, rank.full)
    if count < policy.min_ops_per_step or mean_ns >= policy.small_op_ns or gap >= policy.gap_share:
        return
    top = sorted(rank.operators, key=lambda o: -o.count)[:3]
    yield Finding(
        rule="small_operators",
        severity="info",
        claim=f"A step runs {count:,.0f} operators of {ms(mean_ns)} on average"
        f"{where(facts, rank)}: calling them costs about as much as what they compute.",
        evidence=tuple(_row(o, rank) for o in top),
        ceiling_ns=None,
        advice="Larger batches, torch.compile, or fused operators make fewer and longer ones.",
        rank=rank.rank if len(facts.ranks) > 1 else None,
    )


def sync_calls(facts: Facts, policy: HostPolicy = HostPolicy()) -> Answer:
    """`.item()` and its like: the CPU waits for a value."""
    yield from records_missing(facts, "sync_calls")
    for rank in _first(facts):
        found = [o for o in rank.operators if o.name in SYNCS]
        steps = int(rank.full.sum())
        count, spent = rank.reads[0] / steps, rank.reads[1] // steps
        step = rank.mean(rank.duration_ns, rank.full)
        if count < policy.min_syncs_per_step and spent < policy.sync_share * step:
            continue
        yield Finding(
            rule="sync_calls",
            severity="warning" if spent >= policy.sync_share * step else "info",
            claim=f"{count:.1f} values per step are read back with .item() or the like"
            f"{where(facts, rank)}, {ms(spent)} per step on the CPU; on a GPU each one would "
            "drain its queue.",
            evidence=tuple(_row(o, rank) for o in found),
            ceiling_ns=spent,
            advice="Keep metrics as tensors and read them every n steps.",
            rank=rank.rank if len(facts.ranks) > 1 else None,
        )


def data_copies(facts: Facts, policy: HostPolicy = HostPolicy()) -> Answer:
    """Conversions and copies that take a large part of the step."""
    yield from records_missing(facts, "data_copies")
    for rank in _first(facts):
        found = [o for o in rank.operators if o.name in COPIES]
        spent = sum(o.self_ns for o in found)
        total = int(rank.duration_ns[rank.full].sum())
        if spent < policy.copy_share * total:
            continue
        per_step = spent // int(rank.full.sum())
        top = max(found, key=lambda o: o.self_ns)
        place = f", most from {top.top_source}" if top.top_source else ""
        yield Finding(
            rule="data_copies",
            severity="warning",
            claim=f"Copies and conversions of tensors take {ms(per_step)} of each step "
            f"({percent(spent / total)}){where(facts, rank)}{place}.",
            evidence=tuple(_row(o, rank) for o in found),
            ceiling_ns=per_step,
            advice="Keep one dtype and memory format through the model, and convert batches in the "
            "DataLoader's workers.",
            rank=rank.rank if len(facts.ranks) > 1 else None,
        )


def _first(facts: Facts) -> Iterable[RankFacts]:
    """The lowest rank with recorded steps: what it says of code holds for all."""
    return [r for r in facts.ranks if r.full.any()][:1]


def _per_step(rank: RankFacts) -> tuple[float, float]:
    """Operators per recorded step and their mean self time."""
    steps = int(rank.full.sum())
    count = sum(o.count for o in rank.operators)
    if not steps or not count:
        return 0.0, 0.0
    return count / steps, float(np.sum([o.self_ns for o in rank.operators])) / count


def _python_advice(rank: RankFacts, count: float, mean_ns: float, policy: HostPolicy) -> str:
    if count >= policy.min_ops_per_step and mean_ns < policy.small_op_ns:
        device = str(rank.target.get("device", "cpu"))
        graphs = ", CUDA graphs" if device.startswith("cuda") else ""
        return f"Use torch.compile{graphs} or larger batches: fewer, longer operators."
    return (
        "Look at what the loop does between torch calls (data preparation, logging, Python loops "
        "over tensors) and move it off the step's thread."
    )


def _row(op: OpTotal, rank: RankFacts) -> dict[str, Any]:
    return {
        "operator": op.name,
        "count": op.count,
        "self_ns": op.self_ns,
        "module": op.top_module,
        "source": op.top_source,
        "rank": rank.rank,
    }
