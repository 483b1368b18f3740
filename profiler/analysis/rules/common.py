"""What rules share: how they speak, and what they need before they speak."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from gputap.profiler.analysis.facts import Facts, RankFacts
from gputap.profiler.analysis.model import Abstained, Finding

Answer = Iterator[Finding | Abstained]
NOT_RECORDED = "no whole step was recorded with all its operators; capture longer, or with --full"
NO_STEPS = "no step was found: neither optimizer, DataLoader nor module calls that repeat"


def ms(ns: float) -> str:
    """A time for people."""
    if ns >= 1e9:
        return f"{ns / 1e9:.2f} s"
    if ns >= 1e6:
        return f"{ns / 1e6:.1f} ms" if ns < 1e8 else f"{ns / 1e6:.0f} ms"
    return f"{ns / 1e3:.0f} us" if ns >= 1e3 else f"{ns:.0f} ns"


def percent(share: float) -> str:
    """A share for people."""
    return f"{100 * share:.0f} %" if share >= 0.095 else f"{100 * share:.1f} %"


def size(number: float) -> str:
    """Bytes for people."""
    for scale, unit in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if number >= scale:
            return f"{number / scale:.3g} {unit}"
    return f"{number:.0f} bytes"


def worst(facts: Facts, figure: Callable[[RankFacts], float]) -> RankFacts | None:
    """The rank with the highest figure; None without ranks."""
    return max(facts.ranks, key=figure, default=None)


def where(facts: Facts, rank: RankFacts) -> str:
    """` on rank 3`, if there is more than one."""
    return f" on rank {rank.rank}" if len(facts.ranks) > 1 else ""


def steps_missing(facts: Facts, rule: str) -> Answer:
    """Abstain if no rank has a whole step."""
    if not any(r.whole.any() for r in facts.ranks):
        yield Abstained(rule, NO_STEPS)


def records_missing(facts: Facts, rule: str) -> Answer:
    """Abstain if no rank has a whole recorded step."""
    if not facts.recorded_steps:
        have_steps = any(r.whole.any() for r in facts.ranks)
        yield Abstained(rule, NOT_RECORDED if have_steps else NO_STEPS)
