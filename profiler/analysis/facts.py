"""What the rules may ask: figures per rank, small enough to keep for thousands of ranks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from gputap.profiler.analysis.compiles import Compilation
from gputap.profiler.analysis.device_time import DeviceTime
from gputap.profiler.analysis.intervals import Ints, Mask
from gputap.profiler.analysis.model import Collective, Module, Operator, Rank
from gputap.profiler.analysis.operators import OpTotal
from gputap.profiler.analysis.phases import StepPhases
from gputap.profiler.analysis.steps import Cuts

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class RankFacts:
    """One rank after its events were looked at."""

    summary: Rank
    target: Mapping[str, Any]
    cuts: Cuts
    phases: StepPhases
    operators: list[OpTotal]
    """Over recorded whole steps; over all that was recorded where there are no steps."""
    gc_pauses_ns: Ints
    """Every garbage collection of the window."""
    exposed_ns: Ints
    """Per step: a collective in flight and nothing else at work on the step's thread."""
    compiles: tuple[Compilation, ...]
    """Compilations by torch.compile in the window: what, when, how long."""
    optimizers: tuple[str, ...]
    """Classes of the optimizers seen."""
    collectives: pa.Table
    device: DeviceTime | None
    """The GPUs over whole steps; None below level `device`."""
    reads: tuple[int, int]
    """Values that the program read back in whole recorded steps (`.item()`), and the time it took.
    What the optimizer and the DataLoader read for themselves is left out."""

    memory_steps: Ints
    """Steps at whose end torch's allocator was looked at."""
    memory_allocated: Ints
    """What was in tensors then, on all its GPUs, in bytes."""

    @property
    def rank(self) -> int:
        """Its number."""
        return self.summary.rank

    @cached_property
    def duration_ns(self) -> Ints:
        """Length of each step."""
        return self.cuts.end - self.cuts.start

    @cached_property
    def whole(self) -> Mask:
        """Steps that no edge of the window cut."""
        return self.cuts.whole

    @cached_property
    def full(self) -> Mask:
        """Whole steps with every operator recorded."""
        return self.cuts.whole & self.cuts.recorded

    def mean(self, values: Ints, steps: Mask) -> int:
        """Mean of a per-step figure over some steps; 0 if there are none."""
        return int(np.mean(values[steps])) if steps.any() else 0

    def share(self, values: Ints, steps: Mask) -> float:
        """Part of the time of some steps."""
        total = int(self.duration_ns[steps].sum())
        return int(values[steps].sum()) / total if total else 0.0


@dataclass(frozen=True)
class Facts:
    """The capture."""

    level: str
    level_reasons: tuple[str, ...]
    ranks: tuple[RankFacts, ...]
    operators: tuple[Operator, ...]
    modules: tuple[Module, ...]
    collectives: tuple[Collective, ...]

    @property
    def recorded_steps(self) -> int:
        """Whole recorded steps of all ranks."""
        return sum(int(r.full.sum()) for r in self.ranks)

    @property
    def recorded_ns(self) -> int:
        """Their time."""
        return sum(int(r.duration_ns[r.full].sum()) for r in self.ranks)
