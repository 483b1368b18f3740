"""The nn.Module tree with the time of its operators, forward and backward."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gputap.profiler.analysis.attribution import Attribution
from gputap.profiler.analysis.intervals import Mask
from gputap.profiler.analysis.load import RankData
from gputap.profiler.analysis.model import Module
from gputap.profiler.analysis.operators import KINDS, total_known


@dataclass(frozen=True, slots=True)
class ModuleTotal:
    """Operators that ran directly in one module."""

    name: str
    module_class: str
    count: int
    forward_ns: int
    backward_ns: int
    device_ns: int | None = None


def module_totals(
    data: RankData,
    place: Attribution,
    chosen: Mask,
    device: Mapping[str, tuple[int, int]] | None = None,
) -> list[ModuleTotal]:
    """Self time of the chosen events by innermost module; modules around them with none.

    `device` is the GPU time of each module, forward and backward.
    """
    events = data.events
    rows = np.flatnonzero(chosen & events.of_kind(*KINDS) & (place.module >= 0))
    module, own, backward = place.module[rows], data.nesting.self_ns[rows], place.backward[rows]
    size = len(events.modules)
    count = np.bincount(module, minlength=size)
    back = np.bincount(module, weights=np.where(backward, own, 0), minlength=size).astype(np.int64)
    both = np.bincount(module, weights=own, minlength=size).astype(np.int64)
    classes = np.full(size, -1, np.int32)
    known = (events.module >= 0) & (events.module_class >= 0)
    classes[events.module[known]] = events.module_class[known]
    totals = [
        ModuleTotal(
            name=events.modules[code],
            module_class=events.module_classes[classes[code]] if classes[code] >= 0 else "",
            count=int(count[code]),
            forward_ns=int(both[code] - back[code]),
            backward_ns=int(back[code]),
            device_ns=None if device is None else sum(device.get(events.modules[code], (0, 0))),
        )
        for code in np.flatnonzero(count).tolist()
    ]
    seen = {t.name for t in totals}
    above = {a for name in seen for a in _ancestors(name)} - seen
    named = data.stacks.module_classes()
    return totals + [ModuleTotal(name, named[name], 0, 0, 0) for name in above & named.keys()]


def merge_modules(ranks: Sequence[Sequence[ModuleTotal]], base_ns: int) -> tuple[Module, ...]:
    """The tree over all ranks: each module's own time, and with all below it. Sorted by name."""
    tree: dict[str, Module] = {}
    for total in (t for totals in ranks for t in totals):
        for name in _ancestors(total.name):
            node = tree.get(name, Module(name, "", 0, 0, 0, 0, 0, 0, 0.0))
            tree[name] = _add(node, total, own=name == total.name)
    return tuple(
        replace(node, share=node.total_ns / base_ns if base_ns else 0.0)
        for _, node in sorted(tree.items(), key=lambda pair: pair[0].split("."))
    )


def _add(node: Module, total: ModuleTotal, *, own: bool) -> Module:
    return replace(
        node,
        module_class=total.module_class or node.module_class if own else node.module_class,
        count=node.count + total.count,
        forward_ns=node.forward_ns + total.forward_ns,
        backward_ns=node.backward_ns + total.backward_ns,
        self_forward_ns=node.self_forward_ns + (total.forward_ns if own else 0),
        self_backward_ns=node.self_backward_ns + (total.backward_ns if own else 0),
        total_ns=node.total_ns + total.forward_ns + total.backward_ns,
        device_ns=total_known([node.device_ns, total.device_ns]),
        self_device_ns=total_known([node.self_device_ns, total.device_ns if own else None]),
    )


def _ancestors(name: str) -> Iterator[str]:
    """The module itself and all around it, up to the root ''."""
    yield name
    while name:
        name = name.rpartition(".")[0]
        yield name
