"""Does the job wait for its data?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gputap.profiler.analysis.facts import Facts, RankFacts
from gputap.profiler.analysis.model import Abstained, Finding, Severity
from gputap.profiler.analysis.rules.common import (
    Answer,
    ms,
    percent,
    steps_missing,
    where,
    worst,
)

RULE: Final = "input_bound"


@dataclass(frozen=True, slots=True)
class InputPolicy:
    """When waiting for data becomes a finding."""

    warn_share: float = 0.10
    critical_share: float = 0.20
    min_critical_steps: int = 20


def input_bound(facts: Facts, policy: InputPolicy = InputPolicy()) -> Answer:
    """Share of the steps' time inside the DataLoader's `__next__`. User scopes suffice."""
    missing = list(steps_missing(facts, RULE))
    rank = worst(facts, lambda r: r.share(r.phases.data_wait_ns, r.whole))
    if missing or rank is None:
        yield from missing
        return
    share = rank.share(rank.phases.data_wait_ns, rank.whole)
    if share == 0.0 and not _loaders(rank.target):
        yield Abstained(RULE, "no torch DataLoader was seen; a loader of one's own is not visible")
        return
    if share < policy.warn_share:
        return
    steps = int(rank.whole.sum())
    enough = steps >= policy.min_critical_steps and share >= policy.critical_share
    severity: Severity = "critical" if enough else "warning"
    wait = rank.mean(rank.phases.data_wait_ns, rank.whole)
    step = rank.mean(rank.duration_ns, rank.whole)
    yield Finding(
        rule=RULE,
        severity=severity,
        claim=f"Each step waits {ms(wait)} of its {ms(step)} ({percent(share)}) for the next batch"
        f"{where(facts, rank)}, over {steps} steps.",
        evidence=_evidence(rank, wait, step),
        ceiling_ns=wait,
        advice=_advice(_loaders(rank.target)),
        rank=rank.rank if len(facts.ranks) > 1 else None,
    )


def _loaders(target: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    found = target.get("loaders") or target.get("dataloader") or ()
    return (found,) if isinstance(found, Mapping) else found


def _evidence(rank: RankFacts, wait: int, step: int) -> tuple[dict[str, Any], ...]:
    rows: list[dict[str, Any]] = [
        {"rank": rank.rank, "data_wait_ns": wait, "step_ns": step, "steps": int(rank.whole.sum())}
    ]
    longest = rank.phases.data_wait_ns * rank.whole
    top = longest.argsort()[::-1][:3]
    rows += [{"step": int(i), "data_wait_ns": int(longest[i])} for i in top if longest[i]]
    return tuple(rows + [dict(loader) for loader in _loaders(rank.target)[:3]])


def _advice(loaders: Sequence[Mapping[str, Any]]) -> str:
    if not loaders:
        return (
            "Give the DataLoader worker processes (num_workers), or find what is slow in "
            "`__getitem__` and `collate_fn`."
        )
    loader = max(loaders, key=lambda x: x.get("batch_size") or 0)
    workers = loader.get("num_workers")
    if workers == 0:
        return (
            "The DataLoader has num_workers=0: batches are made on the training thread. Set "
            "num_workers=2 or more and persistent_workers=True."
        )
    words = [f"{workers} workers do not keep up: raise num_workers"]
    if not loader.get("persistent_workers"):
        words.append("set persistent_workers=True (workers restart at every epoch)")
    words.append("or make `__getitem__` cheaper (decode ahead of time, cache, larger reads)")
    return ", ".join(words) + "."
