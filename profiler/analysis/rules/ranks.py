"""What the ranks of a job cost each other: exposed collectives, stragglers, uneven work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from gputap.profiler.analysis.facts import Facts, RankFacts
from gputap.profiler.analysis.matching import Matched, match
from gputap.profiler.analysis.model import Abstained, Finding, Severity
from gputap.profiler.analysis.rules.common import (
    NOT_RECORDED,
    Answer,
    ms,
    percent,
    where,
    worst,
)

_ONE_RANK: Final = "one rank was captured; capture all ranks of the job (--all)"


@dataclass(frozen=True, slots=True)
class RankPolicy:
    """When waiting for others becomes a finding."""

    exposed_share: float = 0.05
    straggler_share: float = 0.05
    """Of the step, that the others wait on average."""
    critical_straggler_share: float = 0.20
    last_share: float = 0.6
    """Of the collectives, to which the same rank comes last."""
    min_collectives: int = 5
    imbalance: float = 0.10
    """Busiest rank's work above the mean."""


def exposed_collectives(facts: Facts, policy: RankPolicy = RankPolicy()) -> Answer:
    """A collective in flight while the step's thread has nothing else to do."""
    if not facts.collectives:
        return
    rank = worst(facts, lambda r: r.share(r.exposed_ns, r.full))
    if rank is None or not rank.full.any():
        yield Abstained("exposed_collectives", NOT_RECORDED)
        return
    share = rank.share(rank.exposed_ns, rank.full)
    if share < policy.exposed_share:
        return
    exposed = rank.mean(rank.exposed_ns, rank.full)
    total = rank.mean(rank.phases.collective_ns, rank.full)
    yield Finding(
        rule="exposed_collectives",
        severity="warning",
        claim=f"{ms(exposed)} of each step ({percent(share)}) pass with a collective in flight and "
        f"nothing else at work{where(facts, rank)}; collectives take {ms(total)} per step in all.",
        evidence=tuple(
            {"op": c.op, "bytes": c.bytes, "count": c.count, "mean_ns": c.mean_ns}
            for c in facts.collectives[:3]
        ),
        ceiling_ns=exposed,
        advice="Overlap it with the backward pass (DDP's bucket_cap_mb, static_graph=True), send "
        "less (gradient accumulation, bf16 compression hook), or see who comes late.",
        rank=rank.rank if len(facts.ranks) > 1 else None,
    )


def straggler(facts: Facts, policy: RankPolicy = RankPolicy()) -> Answer:
    """Whether the same rank always comes last to the collectives, and what that costs."""
    if not facts.collectives:
        return
    reason = _cannot_match(facts)
    matched = None if reason else match([r.collectives for r in facts.ranks])
    if matched is None or matched.start.shape[1] < policy.min_collectives:
        yield Abstained("straggler", reason or "too few collectives could be matched across ranks")
        return
    yield from _late(facts, matched, policy)


def rank_imbalance(facts: Facts, policy: RankPolicy = RankPolicy()) -> Answer:
    """Whether ranks have unequal work, waiting for each other left out."""
    if len(facts.ranks) < 2:
        return
    busy = {r.rank: _busy(r) for r in facts.ranks if r.full.any()}
    if len(busy) < 2:
        yield Abstained("rank_imbalance", NOT_RECORDED)
        return
    mean = sum(busy.values()) / len(busy)
    top = max(busy, key=lambda r: busy[r])
    if mean <= 0 or busy[top] < (1 + policy.imbalance) * mean:
        return
    yield Finding(
        rule="rank_imbalance",
        severity="warning",
        claim=f"Rank {top} works {ms(busy[top])} per step, the ranks' mean is {ms(mean)} "
        f"({percent(busy[top] / mean - 1)} more).",
        evidence=tuple({"rank": r, "busy_ns": int(ns)} for r, ns in sorted(busy.items())),
        ceiling_ns=int(busy[top] - mean),
        advice="Even out the shards (sequence lengths, batch sizes, layers per stage), or look for "
        "other load on that rank's CPU cores.",
        rank=top,
    )


def _cannot_match(facts: Facts) -> str:
    if len(facts.ranks) < 2:
        return _ONE_RANK
    if len({r.summary.host for r in facts.ranks}) > 1:
        return "the ranks run on several hosts, whose clocks are not aligned"
    size = facts.ranks[0].summary.world_size
    if size is not None and size > len(facts.ranks):
        return f"{size - len(facts.ranks)} of {size} ranks are not in the capture"
    return ""


def _late(facts: Facts, matched: Matched, policy: RankPolicy) -> Answer:
    count = matched.start.shape[1]
    times_last = np.bincount(matched.last, minlength=len(facts.ranks))
    row = int(np.argmax(times_last))
    rank = facts.ranks[row]
    others = np.delete(matched.wait.sum(axis=1), row)
    span = matched.start[row].max() + matched.duration[row, -1] - matched.start[row].min()
    share = float(others.mean() / span) if span else 0.0
    if times_last[row] < policy.last_share * count or share < policy.straggler_share:
        return
    critical = share >= policy.critical_straggler_share
    severity: Severity = "critical" if critical else "warning"
    steps = max(int(rank.whole.sum()), 1)
    wait = int(others.mean() / steps)
    phase, longer = _cause(facts, row)
    yield Finding(
        rule="straggler",
        severity=severity,
        claim=f"Rank {rank.rank} comes last to {percent(times_last[row] / count)} of {count} "
        f"collectives; the others wait {ms(wait)} per step for it ({percent(share)}). "
        f"Its {phase} takes {ms(longer)} longer than theirs.",
        evidence=tuple(
            {
                "rank": r.rank,
                "last": int(times_last[i]),
                "wait_ns": int(matched.wait[i].sum()),
                "transfer_ns": int(matched.duration.min(axis=0).sum()),
            }
            for i, r in enumerate(facts.ranks)
        ),
        ceiling_ns=wait,
        advice=f"Look at rank {rank.rank}'s {phase}: its share of the data, its CPU cores, and "
        "what else runs there. The network is not the cause.",
        rank=rank.rank,
    )


def _cause(facts: Facts, row: int) -> tuple[str, int]:
    """The phase in which the late rank exceeds the median of the others most, per step."""
    means = [_phase_means(r) for r in facts.ranks]
    usual = {
        name: float(np.median([m[name] for i, m in enumerate(means) if i != row]))
        for name in means[row]
    }
    longer = {name: means[row][name] - usual[name] for name in usual}
    phase = max(longer, key=lambda name: longer[name])
    return phase, max(int(longer[phase]), 0)


def _phase_means(rank: RankFacts) -> dict[str, float]:
    """Mean of each phase, less the time that the rank itself waited for others in it."""
    steps = rank.full if rank.full.any() else rank.whole
    waited = rank.mean(rank.exposed_ns, steps)
    means = {
        "data wait": float(rank.mean(rank.phases.data_wait_ns, steps)),
        "forward": float(rank.mean(rank.phases.forward_ns, steps)),
        "backward": float(rank.mean(rank.phases.backward_ns, steps)),
        "optimizer": float(rank.mean(rank.phases.optimizer_ns, steps)),
    }
    other = float(rank.mean(rank.phases.other_ns, steps))
    return {**means, "Python between the phases": other - min(waited, other)}


def _busy(rank: RankFacts) -> float:
    return float(rank.mean(rank.duration_ns - rank.exposed_ns, rank.full))
