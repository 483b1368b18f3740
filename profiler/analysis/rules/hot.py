"""What takes most of the time, by operator, by module and in the optimizer?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from gputap.profiler.analysis.facts import Facts, RankFacts
from gputap.profiler.analysis.model import Finding, Module, Operator
from gputap.profiler.analysis.rules.common import (
    Answer,
    ms,
    percent,
    records_missing,
    where,
    worst,
)

_WRAPPERS: Final = ("autograd::engine::", "Torch-Compiled Region", "CompiledFunction")


@dataclass(frozen=True, slots=True)
class HotPolicy:
    """When something is large enough to be named."""

    operator_share: float = 0.30
    module_share: float = 0.30
    optimizer_share: float = 0.15
    """Rule of thumb: a foreach or fused optimizer takes a few per cent."""


def hot_operator(facts: Facts, policy: HotPolicy = HotPolicy()) -> Answer:
    """The operator with most self time, with the module and the line that call it most."""
    yield from records_missing(facts, "hot_operator")
    found = [o for o in facts.operators if not o.name.startswith(_WRAPPERS)]
    if not facts.recorded_steps or not found or found[0].share < policy.operator_share:
        return
    top = found[0]
    per_step = top.self_ns // facts.recorded_steps
    module = f" in module {_named(top.top_module)}" if top.top_module is not None else ""
    yield Finding(
        rule="hot_operator",
        severity="info",
        claim=f"{top.name} takes {percent(top.share)} of the step by itself ({ms(per_step)}, "
        f"{top.count / facts.recorded_steps:.0f} calls){module}.",
        evidence=tuple(_operator_row(o) for o in found[:3]),
        ceiling_ns=per_step,
        advice=_operator_advice(top),
    )


def hot_module(facts: Facts, policy: HotPolicy = HotPolicy()) -> Answer:
    """The module whose own operators take most time, if it is one among several."""
    yield from records_missing(facts, "hot_module")
    if not facts.recorded_steps or not facts.operators:
        return
    if not facts.modules:
        return
    leaves = [m for m in facts.modules if m.self_forward_ns + m.self_backward_ns]
    base = facts.recorded_ns or 1
    top = max(leaves, key=_own, default=None)
    if top is None or len(leaves) < 2 or _own(top) < policy.module_share * base:
        return
    per_step = _own(top) // facts.recorded_steps
    yield Finding(
        rule="hot_module",
        severity="info",
        claim=f"Module {_named(top.name)} ({top.module_class}) takes {percent(_own(top) / base)} "
        f"of the step ({ms(per_step)}): forward {ms(top.self_forward_ns / facts.recorded_steps)}, "
        f"backward {ms(top.self_backward_ns / facts.recorded_steps)}.",
        evidence=tuple(
            {"module": m.name, "forward_ns": m.self_forward_ns, "backward_ns": m.self_backward_ns}
            for m in sorted(leaves, key=_own, reverse=True)[:3]
        ),
        ceiling_ns=per_step,
        advice="Work on this module first: its shapes, its dtype, or a cheaper layer in its place.",
    )


def optimizer_heavy(facts: Facts, policy: HotPolicy = HotPolicy()) -> Answer:
    """Share of the step in `Optimizer.step` and `zero_grad`. User scopes suffice."""
    rank = worst(facts, lambda r: r.share(r.phases.optimizer_ns, _measurable(r)))
    if rank is None or not rank.optimizers:
        return
    steps = _measurable(rank)
    share = rank.share(rank.phases.optimizer_ns, steps)
    if share < policy.optimizer_share:
        return
    spent = rank.mean(rank.phases.optimizer_ns, steps)
    yield Finding(
        rule="optimizer_heavy",
        severity="warning",
        claim=f"{' and '.join(rank.optimizers)} takes {percent(share)} of the step "
        f"({ms(spent)} of {ms(rank.mean(rank.duration_ns, steps))}){where(facts, rank)}.",
        evidence=({"rank": rank.rank, "optimizer_ns": spent, "optimizers": list(rank.optimizers)},),
        ceiling_ns=spent,
        advice=_optimizer_advice(rank),
        rank=rank.rank if len(facts.ranks) > 1 else None,
    )


def _measurable(rank: RankFacts) -> Any:
    """Recorded steps; a closure's forward pass looks like the optimizer in the others."""
    return rank.full if rank.full.any() else rank.whole


def _own(module: Module) -> int:
    return module.self_forward_ns + module.self_backward_ns


def _named(module: str) -> str:
    return module or "<root>"


def _operator_row(op: Operator) -> dict[str, Any]:
    return {
        "operator": op.name,
        "count": op.count,
        "self_ns": op.self_ns,
        "module": op.top_module,
        "source": op.top_source,
    }


def _operator_advice(op: Operator) -> str:
    place = f" ({op.top_source})" if op.top_source else ""
    if any(word in op.name for word in ("mm", "conv", "linear", "matmul", "attention")):
        return f"Real work{place}: a lower precision, fewer or better shapes, or more cores help."
    return f"See whether it is needed as often as it runs{place}, or can be fused (torch.compile)."


def _optimizer_advice(rank: RankFacts) -> str:
    known = rank.target.get("optimizers") or rank.target.get("optimizer") or ()
    known = (known,) if isinstance(known, dict) else known
    if any(o.get("fused") for o in known):
        return (
            "It is fused already; step less often (gradient accumulation) or with larger batches."
        )
    if any(o.get("foreach") for o in known):
        return "Use fused=True where the optimizer offers it, or step less often."
    return "Pass fused=True (or foreach=True) to the optimizer: one call for all parameters."
