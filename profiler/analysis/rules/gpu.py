"""Questions to the GPU: is it kept busy, by what, and does what keeps it busy suit it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from gputap.profiler.analysis.device_time import DeviceTime, KernelTotal
from gputap.profiler.analysis.facts import Facts, RankFacts
from gputap.profiler.analysis.model import Finding
from gputap.profiler.analysis.rules.common import Answer, ms, percent, where, worst


@dataclass(frozen=True, slots=True)
class GpuPolicy:
    """When a GPU's time becomes a finding. Shares are of its time, unless said otherwise."""

    idle: float = 0.20
    exposed_communication: float = 0.05
    exposed_memcpy: float = 0.05
    sync: float = 0.10
    small_ns: int = 10_000
    small_count: int = 100
    """Kernels per step, below which nobody waits for launches."""
    small_share: float = 0.30
    """Of the busy time."""
    matrix_share: float = 0.20
    """Of the busy time, that products without tensor cores take."""


_ADVICE: Final = {
    "idle": "See what the CPU does meanwhile: the step's phases and gaps, and the findings beside "
    "this one.",
    "exposed_comm": "Overlap it with the backward pass (DDP's bucket_cap_mb), send less "
    "(accumulation, bf16), or see who comes late.",
    "exposed_memcpy": "Copy from pinned memory without blocking (pin_memory=True, "
    "non_blocking=True), ahead of the step that needs it.",
}


def gpu_idle(facts: Facts, policy: GpuPolicy = GpuPolicy()) -> Answer:
    """Nothing runs on the GPU."""
    yield from _part(facts, "gpu_idle", "idle", policy.idle, "The GPU has nothing to do for")


def exposed_communication(facts: Facts, policy: GpuPolicy = GpuPolicy()) -> Answer:
    """Communication that no compute hides."""
    share, words = policy.exposed_communication, "The GPU only communicates for"
    yield from _part(facts, "exposed_communication", "exposed_comm", share, words)


def exposed_memcpy(facts: Facts, policy: GpuPolicy = GpuPolicy()) -> Answer:
    """Copies that no kernel hides."""
    share, words = policy.exposed_memcpy, "The GPU only copies or fills memory for"
    yield from _part(facts, "exposed_memcpy", "exposed_memcpy", share, words)


def small_kernels(facts: Facts, policy: GpuPolicy = GpuPolicy()) -> Answer:
    """Kernels so short that launching them takes as long as running them."""
    rank = _worst(facts, lambda t: _small(t, policy)[1] / max(t.busy_ns, 1))
    if rank is None or rank.device is None:
        return
    count, total = _small(rank.device, policy)
    steps = max(int(rank.whole.sum()), 1)
    share = total / max(rank.device.busy_ns, 1)
    if share < policy.small_share or count / steps < policy.small_count:
        return
    yield Finding(
        rule="small_kernels",
        severity="warning",
        claim=f"{count / steps:,.0f} kernels per step are shorter than {ms(policy.small_ns)} on "
        f"average{where(facts, rank)}; they are {percent(share)} of the GPU's busy time.",
        evidence=tuple(
            {"kernel": k.name, "count": k.count, "mean_ns": k.total_ns // k.count}
            for k in rank.device.kernels
            if _is_small(k, policy)
        )[:5],
        ceiling_ns=None,
        advice="torch.compile fuses them, CUDA graphs launch them at once, larger batches make "
        "them longer.",
        rank=rank.rank if len(facts.ranks) > 1 else None,
    )


def sync_stalls(facts: Facts, policy: GpuPolicy = GpuPolicy()) -> Answer:
    """The CPU waits for the GPU to have done everything."""
    rank = _worst(facts, lambda t: t.sync_ns / max(t.span_ns, 1))
    if rank is None or rank.device is None or not rank.device.span_ns:
        return
    found = rank.device
    share = found.sync_ns / found.span_ns
    if share < policy.sync:
        return
    steps = max(int(rank.whole.sum()), 1)
    calls = f"{found.sync_calls / steps:.3g} call{'' if found.sync_calls == steps else 's'}"
    yield Finding(
        rule="sync_stalls",
        severity="info",
        claim=f"The CPU waits {ms(found.sync_ns / steps)} of each step ({percent(share)}) in "
        f"{calls} for the GPU{where(facts, rank)}.",
        evidence=({"sync_ns": found.sync_ns, "calls": found.sync_calls, "steps": steps},),
        ceiling_ns=None,
        advice="Read values back less often (.item(), .cpu(), print), and look where: "
        "`cuda_api` has every call with its thread and time.",
        rank=rank.rank if len(facts.ranks) > 1 else None,
    )


def tensor_cores(facts: Facts, policy: GpuPolicy = GpuPolicy()) -> Answer:
    """Matrix products on the ordinary cores."""
    rank = _worst(facts, lambda t: _slow_products(t) / max(t.busy_ns, 1))
    if rank is None or rank.device is None:
        return
    total = _slow_products(rank.device)
    share = total / max(rank.device.busy_ns, 1)
    if share < policy.matrix_share:
        return
    products = [k for k in rank.device.kernels if k.tensor_cores is False]
    yield Finding(
        rule="tensor_cores",
        severity="warning",
        claim=f"Matrix products without tensor cores take {percent(share)} of the GPU's busy time"
        f"{where(facts, rank)}, {products[0].name} most.",
        evidence=tuple({"kernel": k.name, "total_ns": k.total_ns} for k in products[:5]),
        ceiling_ns=None,
        advice="Use bf16 autocast, or TF32 for float32: "
        "torch.set_float32_matmul_precision('high').",
        rank=rank.rank if len(facts.ranks) > 1 else None,
    )


# ---------------------------------------------------------------------------------- parts of it


def _part(facts: Facts, rule: str, part: str, most: float, words: str) -> Answer:
    rank = _worst(facts, lambda t: _share(t, part))
    if rank is None or rank.device is None:
        return
    share = _share(rank.device, part)
    if share < most:
        return
    devices = max(len(rank.device.devices), 1)
    steps = int(rank.whole.sum())
    per = rank.device.breakdown[part] / devices / (steps or 1)
    yield Finding(
        rule=rule,
        severity="warning",
        claim=f"{words} {ms(per)} of each step ({percent(share)}){where(facts, rank)}."
        if steps
        else f"{words} {percent(share)} of the window{where(facts, rank)}.",
        evidence=({"rank": rank.rank, **rank.device.breakdown},),
        ceiling_ns=round(per) if steps else None,
        advice=_ADVICE[part],
        rank=rank.rank if len(facts.ranks) > 1 else None,
    )


def _worst(facts: Facts, figure: Callable[[DeviceTime], float]) -> RankFacts | None:
    rank = worst(facts, lambda r: figure(r.device) if r.device else -1.0)
    return rank if rank is not None and rank.device is not None else None


def _share(time: DeviceTime, part: str) -> float:
    total = sum(time.breakdown.values())
    return time.breakdown[part] / total if total else 0.0


def _is_small(kernel: KernelTotal, policy: GpuPolicy) -> bool:
    return kernel.kind == "kernel" and kernel.total_ns < policy.small_ns * kernel.count


def _small(time: DeviceTime, policy: GpuPolicy) -> tuple[int, int]:
    small = [kernel for kernel in time.kernels if _is_small(kernel, policy)]
    return sum(k.count for k in small), sum(k.total_ns for k in small)


def _slow_products(time: DeviceTime) -> int:
    return sum(k.total_ns for k in time.kernels if k.tensor_cores is False)
