"""What the capture itself cannot say: losses, the missing device level, the price of looking."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gputap.profiler.analysis.facts import Facts
from gputap.profiler.analysis.model import Abstained, Finding
from gputap.profiler.analysis.rules.common import (
    NOT_RECORDED,
    Answer,
    ms,
    percent,
    where,
    worst,
)

DEVICE_RULES: Final = (
    "gpu_idle",
    "exposed_communication",
    "exposed_memcpy",
    "small_kernels",
    "sync_stalls",
    "tensor_cores",
)


@dataclass(frozen=True, slots=True)
class QualityPolicy:
    """When the capture's own flaws are said first."""

    critical_loss: float = 0.01
    overhead: float = 0.05


def lossy_capture(facts: Facts, policy: QualityPolicy = QualityPolicy()) -> Answer:
    """Events that were lost: counts and times are then lower bounds."""
    for rank in facts.ranks:
        dropped = rank.summary.overhead.dropped
        lost = sum(dropped.values())
        if not lost:
            continue
        share = lost / (lost + rank.summary.overhead.events)
        causes = ", ".join(f"{count:,} {cause}" for cause, count in sorted(dropped.items()))
        yield Finding(
            rule="lossy_capture",
            severity="warning" if share >= policy.critical_loss else "info",
            claim=f"{lost:,} events were lost{where(facts, rank)} ({causes}): counts and times are "
            "lower bounds.",
            evidence=({"rank": rank.rank, **dropped},),
            ceiling_ns=None,
            advice="Record less at once (bursts instead of --full, no --shapes).",
            rank=rank.rank if len(facts.ranks) > 1 else None,
        )


def looking_costs(facts: Facts, policy: QualityPolicy = QualityPolicy()) -> Answer:
    """Recorded steps are slower than the others; what that means for the job."""
    for rank in facts.ranks:
        cost = rank.summary.overhead.slowdown_window
        if cost is None or cost < policy.overhead:
            continue
        slower = rank.summary.overhead.slowdown_recorded or 0.0
        yield Finding(
            rule="looking_costs",
            severity="info",
            claim=f"Recorded steps are {percent(slower)} slower than the others"
            f"{where(facts, rank)}; the job paid {percent(cost)} over the window.",
            evidence=({"rank": rank.rank, "slowdown_recorded": slower, "slowdown_window": cost},),
            ceiling_ns=None,
            advice="Phases are those of recorded steps; a lower budget disturbs less.",
            rank=rank.rank if len(facts.ranks) > 1 else None,
        )


def no_device_level(facts: Facts) -> Answer:
    """Questions about the GPU that this capture cannot answer."""
    if facts.level == "device":
        return
    reason = "; ".join(facts.level_reasons) or f"the capture has level {facts.level!r}"
    for rule in DEVICE_RULES:
        yield Abstained(rule, f"no device level: {reason}")


def time_goes(facts: Facts) -> Answer:
    """Where the time goes, said in any case."""
    rank = worst(facts, lambda r: int(r.full.sum()))
    if rank is None or not rank.full.any():
        if any(r.whole.any() for r in facts.ranks):
            yield Abstained("time_goes", NOT_RECORDED)
        return
    shares = {
        "data wait": rank.share(rank.phases.data_wait_ns, rank.full),
        "forward": rank.share(rank.phases.forward_ns, rank.full),
        "backward": rank.share(rank.phases.backward_ns, rank.full),
        "optimizer": rank.share(rank.phases.optimizer_ns, rank.full),
        "other": rank.share(rank.phases.other_ns, rank.full),
    }
    order = sorted(shares, key=lambda name: -shares[name])
    parts = ", ".join(f"{name} {percent(shares[name])}" for name in order if shares[name] >= 0.005)
    step = rank.mean(rank.duration_ns, rank.full)
    yield Finding(
        rule="time_goes",
        severity="info",
        claim=f"A step takes {ms(step)}{where(facts, rank)}: {parts}.",
        evidence=({"rank": rank.rank, "step_ns": step, "steps": int(rank.full.sum()), **shares},),
        ceiling_ns=None,
        advice=f"Begin with the largest part: {order[0]}.",
    )
