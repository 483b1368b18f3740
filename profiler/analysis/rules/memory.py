"""Questions to torch's allocator: does the job keep ever more, does it go without a full cache."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gputap.profiler.analysis.facts import Facts
from gputap.profiler.analysis.intervals import Ints
from gputap.profiler.analysis.model import Abstained, Finding
from gputap.profiler.analysis.rules.common import Answer, size, where, worst


@dataclass(frozen=True, slots=True)
class MemoryPolicy:
    """When memory becomes a finding."""

    readings: int = 6
    """Ends of steps that were looked at: with fewer a growth is no trend."""
    growth: float = 0.02
    """Of what was allocated first, over the window."""
    growth_bytes: int = 4 << 20


def memory_creep(facts: Facts, policy: MemoryPolicy = MemoryPolicy()) -> Answer:
    """What is allocated at the ends of steps grows, without ever falling back."""
    looks = max((len(r.memory_steps) for r in facts.ranks if r.summary.memory), default=None)
    if looks is not None and looks < policy.readings:
        reason = f"torch's allocator was looked at at the end of {looks} steps only; capture longer"
        yield Abstained("memory_creep", reason)
        return
    rank = worst(facts, lambda r: _growth(r.memory_allocated))
    if rank is None or not _creeps(rank.memory_allocated, policy):
        return
    steps, held = rank.memory_steps, rank.memory_allocated
    per_step = _growth(held) / max(int(steps[-1] - steps[0]), 1)
    yield Finding(
        rule="memory_creep",
        severity="warning",
        claim=f"Memory in tensors grows by {size(per_step)} a step{where(facts, rank)}: from"
        f" {size(int(held[0]))} to {size(int(held[-1]))} in {int(steps[-1] - steps[0]):,} steps.",
        evidence=tuple(
            {"step": int(step), "memory_allocated": int(allocated)}
            for step, allocated in zip(steps[_spread(held)], held[_spread(held)], strict=True)
        ),
        ceiling_ns=None,
        advice="Something keeps tensors from step to step: losses or outputs in a list (keep "
        ".item() or .detach().cpu()), a cache, retained graphs. `gputap snapshot PID --record 5s` "
        "shows what was allocated, and where.",
        rank=rank.rank if len(facts.ranks) > 1 else None,
    )


def alloc_retries(facts: Facts) -> Answer:
    """The driver had no memory left: the allocator gave its whole cache back and asked again."""
    rank = worst(facts, lambda r: sum(m.retries for m in r.summary.memory))
    retries = sum(m.retries for m in rank.summary.memory) if rank else 0
    if rank is None or not retries:
        return
    yield Finding(
        rule="alloc_retries",
        severity="warning",
        claim=f"The GPU's memory was full {retries:,} time{'s' if retries > 1 else ''} in the "
        f"window{where(facts, rank)}: torch's allocator waited for the GPU, gave its whole cache "
        "back and asked the driver again.",
        evidence=tuple(
            {
                "device": memory.device,
                "retries": memory.retries,
                "allocated_peak": memory.allocated_peak,
                "reserved_peak": memory.reserved_peak,
            }
            for memory in rank.summary.memory
            if memory.retries
        ),
        ceiling_ns=None,
        advice="Leave some memory free: smaller batches, activation checkpointing, fewer distinct "
        "shapes, PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True against fragmentation.",
        rank=rank.rank if len(facts.ranks) > 1 else None,
    )


def _growth(held: Ints) -> int:
    return int(held[-1] - held[0]) if len(held) else 0


def _creeps(held: Ints, policy: MemoryPolicy) -> bool:
    """Grows in every third of the window, and by more than a little."""
    if len(held) < policy.readings:
        return False
    first, middle, last = np.array_split(held, 3)
    rises = first.max() < middle.min() and middle.max() < last.min()
    return bool(rises and _growth(held) >= max(policy.growth * held[0], policy.growth_bytes))


def _spread(held: Ints) -> Ints:
    """Five readings at most, evenly."""
    return np.unique(np.linspace(0, len(held) - 1, 5).astype(np.int64))
