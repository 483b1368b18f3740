"""What interrupts the steps: garbage collection, compilation, outliers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from gputap.profiler.analysis.facts import Facts, RankFacts
from gputap.profiler.analysis.intervals import Mask
from gputap.profiler.analysis.model import Abstained, Finding, Severity
from gputap.profiler.analysis.rules.common import (
    Answer,
    ms,
    percent,
    steps_missing,
    where,
    worst,
)

_REST: Final = "Python between the phases"
_UNSEEN: Final = "forward, backward or Python"


@dataclass(frozen=True, slots=True)
class PausePolicy:
    """When a pause becomes a finding."""

    gc_share: float = 0.01
    gc_pause_share: float = 0.10
    """Of the median step, for a single collection."""
    gc_pause_ns: int = 1_000_000
    """Shorter single collections are no finding, however short the step."""
    outlier: float = 1.5
    """Times the median step."""
    outlier_share: float = 0.05
    """Time in outliers beyond the median, of all."""
    min_steps: int = 10
    recompiles: int = 2
    """A single compilation is a warm-up."""


def gc_pauses(facts: Facts, policy: PausePolicy = PausePolicy()) -> Answer:
    """Python's garbage collector stopping the job."""
    rank = worst(facts, _gc_share)
    if rank is None:
        return
    share, median = _gc_share(rank), rank.summary.median_step_ns
    longest = int(rank.gc_pauses_ns.max(initial=0))
    long = median is not None and longest >= policy.gc_pause_share * median
    long = long and longest >= policy.gc_pause_ns
    if share < policy.gc_share and not long:
        return
    count = len(rank.gc_pauses_ns)
    per_step = rank.mean(rank.phases.gc_ns, rank.whole)
    yield Finding(
        rule="gc_pauses",
        severity="warning",
        claim=f"Python's garbage collector stops the job {count} times for {ms(longest)} at most"
        f"{where(facts, rank)}, {percent(share)} of the time.",
        evidence=tuple(
            {"rank": rank.rank, "step": int(i), "gc_ns": int(rank.phases.gc_ns[i])}
            for i in np.argsort(-rank.phases.gc_ns)[:3]
            if rank.phases.gc_ns[i]
        ),
        ceiling_ns=per_step,
        advice="gc.freeze() after start-up, gc.disable(), and gc.collect(1) every few hundred "
        "steps" + (" on all ranks at the same step." if len(facts.ranks) > 1 else "."),
        rank=rank.rank if len(facts.ranks) > 1 else None,
    )


def step_jitter(facts: Facts, policy: PausePolicy = PausePolicy()) -> Answer:
    """Steps far longer than the median, and which phase made them so."""
    missing = list(steps_missing(facts, "step_jitter"))
    rank = worst(facts, lambda r: _excess(r, policy)[0])
    if missing or rank is None:
        yield from missing
        return
    if int(_alike(rank).sum()) < policy.min_steps:
        yield Abstained("step_jitter", f"fewer than {policy.min_steps} comparable steps")
        return
    share, slow = _excess(rank, policy)
    if share < policy.outlier_share:
        return
    duration = rank.duration_ns[_alike(rank)]
    median, p99 = float(np.median(duration)), float(np.percentile(duration, 99))
    cause, cause_share = _cause(rank, slow)
    yield Finding(
        rule="step_jitter",
        severity="warning",
        claim=f"{int(slow.sum())} of {len(duration)} steps take more than {policy.outlier:g} times "
        f"the median{where(facts, rank)} (median {ms(median)}, p99 {ms(p99)}); "
        f"{percent(cause_share)} of the excess is in {cause}.",
        evidence=tuple(
            {"rank": rank.rank, "step": int(i), "dur_ns": int(rank.duration_ns[i])}
            for i in np.argsort(-np.where(slow, rank.duration_ns, 0))[: min(3, int(slow.sum()))]
        ),
        ceiling_ns=int(share * duration.mean()),
        advice=_jitter_advice(cause),
        rank=rank.rank if len(facts.ranks) > 1 else None,
    )


def recompiles(facts: Facts, policy: PausePolicy = PausePolicy()) -> Answer:
    """torch.compile compiling while the job should be in its stride."""
    rank = worst(facts, lambda r: sum(c[2] for c in r.compiles))
    if rank is None or not rank.compiles:
        return
    total = sum(c[2] for c in rank.compiles)
    forward = [c for c in rank.compiles if c[0] == "forward"]
    share = total / rank.summary.window_ns if rank.summary.window_ns else 0.0
    severity: Severity = "warning" if len(forward) >= policy.recompiles else "info"
    yield Finding(
        rule="recompiles",
        severity=severity,
        claim=f"torch.compile compiled {len(forward)} times within the window"
        f"{where(facts, rank)}, {ms(total)} in all ({percent(share)} of it).",
        evidence=tuple(
            {"rank": rank.rank, "what": c[0], "start_ns": c[1], "dur_ns": c[2]}
            for c in rank.compiles[:5]
        ),
        ceiling_ns=total // max(int(rank.whole.sum()), 1),
        advice="TORCH_LOGS=recompiles names the guard that failed; mark changing sizes as dynamic "
        "(torch._dynamo.mark_dynamic) or pad them to a few sizes.",
        rank=rank.rank if len(facts.ranks) > 1 else None,
    )


def _gc_share(rank: RankFacts) -> float:
    window = rank.summary.window_ns
    return rank.summary.gc_ns / window if window else 0.0


def _alike(rank: RankFacts) -> Mask:
    """Whole steps of one sort, recorded or not: being recorded makes a step longer."""
    plain = rank.whole & ~rank.cuts.recorded
    return plain if plain.sum() > rank.full.sum() else rank.full


def _excess(rank: RankFacts, policy: PausePolicy) -> tuple[float, Mask]:
    """Share of time that slow steps take beyond the median, and which they are."""
    alike = _alike(rank)
    if int(alike.sum()) < policy.min_steps:
        return 0.0, np.zeros(len(alike), np.bool_)
    median = float(np.median(rank.duration_ns[alike]))
    slow = alike & (rank.duration_ns > policy.outlier * median)
    beyond = float((rank.duration_ns[slow] - median).sum())
    return beyond / float(rank.duration_ns[alike].sum()), slow


def _cause(rank: RankFacts, slow: Mask) -> tuple[str, float]:
    """The phase that grew most in the slow steps, and its part of the growth."""
    usual = _alike(rank) & ~slow
    recorded = bool(rank.cuts.recorded[slow].all())
    phases = {
        "data wait": rank.phases.data_wait_ns,
        "forward": rank.phases.forward_ns,
        "backward": rank.phases.backward_ns,
        "optimizer": rank.phases.optimizer_ns,
        _REST if recorded else _UNSEEN: rank.phases.other_ns,
    }
    growth = {
        name: float(np.mean(ns[slow])) - float(np.median(ns[usual])) for name, ns in phases.items()
    }
    cause = max(growth, key=lambda name: growth[name])
    total = float(np.mean(rank.duration_ns[slow])) - float(np.median(rank.duration_ns[usual]))
    gc = float(np.mean(rank.phases.gc_ns[slow])) - float(np.median(rank.phases.gc_ns[usual]))
    if total > 0 and gc >= 0.5 * total:
        return "garbage collection", min(gc / total, 1.0)
    return cause, min(max(growth[cause] / total, 0.0), 1.0) if total > 0 else 0.0


def _jitter_advice(cause: str) -> str:
    return {
        "data wait": "Raise num_workers or prefetch_factor: the loader is fast enough on average "
        "but not always.",
        "garbage collection": "Run gc.collect at fixed steps instead of whenever it comes.",
        _REST: "Look at what runs every n steps: logging, checkpoints, evaluation.",
        _UNSEEN: "Capture with --full to see which: the slow steps' operators were not recorded.",
    }.get(
        cause,
        "Compare a slow step with a usual one on the timeline; shapes that change are "
        "the usual reason.",
    )
