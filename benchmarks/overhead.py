"""What gputap costs a whole training step, from outside, on a real process, mode by mode.

    python benchmarks/overhead.py [--rounds 8] [--pairs 10] [--seconds 0.1] [mlp] [transformer]

Every round goes through all modes in another order. A mode is one attach, self-test and all, and
then stretches with the window open and closed in turn; each open one is compared with the closed
ones before and after it, in CPU time of the training thread as it measures it itself. `wall` is
the same in wall time, which the load of the machine disturbs. "Attached, window closed" is compared
with stretches before the attach and after the detach, torch.profiler with stretches without it.
`ns_per_event` divides by the RecordFunctions of a step, as counted in full mode.
"""

from __future__ import annotations

import argparse
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from common import PATIENT, Count, Trainer, attached, emit, middle

from gputap.injectors.library.client import WindowConfig
from gputap.injectors.tap import AgentTap
from gputap.profiler.agent_memory import AgentMemory
from gputap.profiler.schema import CaptureMode

BURSTS_SECONDS = 2.0
"""Bursts come far apart: a shorter stretch would see one or none."""

CLOSED, PROFILER, FULL = "attached, window closed", "torch.profiler", "full"

MODES = {
    "always on": WindowConfig(mode=CaptureMode.ALWAYS_ON),
    "bursts, 1 %": WindowConfig(),
    FULL: WindowConfig(mode=CaptureMode.FULL, want_stacks=False),
    "full, stacks and modules": WindowConfig(mode=CaptureMode.FULL),
}


@contextmanager
def emptied(memory: AgentMemory) -> Iterator[None]:
    """The rings are read and thrown away meanwhile."""
    done = threading.Event()

    def drain() -> None:
        while not done.wait(0.01):
            for ring in memory.pending():
                memory.drain(ring)

    thread = threading.Thread(target=drain)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


class Pairs:
    """Stretches in one mode, each with what lay before and after it."""

    def __init__(self) -> None:
        self.bare: list[Count] = []
        self.added_us: list[float] = []
        self.percent: list[float] = []
        self.wall_percent: list[float] = []

    def add(self, before: Count, count: Count, after: Count) -> None:
        """One stretch."""
        self.bare.append(before)
        cpu_us = (before.cpu_us + after.cpu_us) / 2
        wall_us = (before.wall_us + after.wall_us) / 2
        self.added_us.append(count.cpu_us - cpu_us)
        self.percent.append(100 * (count.cpu_us / cpu_us - 1))
        self.wall_percent.append(100 * (count.wall_us / wall_us - 1))

    def alternate(self, bare: Callable[[], Count], mode: Callable[[], Count], pairs: int) -> None:
        """Bare, mode, bare, mode, ..., bare."""
        stretches = []
        for _ in range(pairs):
            stretches += [bare(), mode()]
        stretches.append(bare())
        for at in range(0, 2 * pairs, 2):
            self.add(*stretches[at : at + 3])

    def figures(self, events_per_step: float) -> dict[str, object]:
        """What they come to."""
        added = middle(self.added_us)
        return {
            "us_per_step": added,
            "ns_per_event": round(1e3 * added["median"] / events_per_step, 1),
            "percent": middle(self.percent),
            "wall_percent": middle(self.wall_percent),
        }


class Bench:
    """All modes on one training process."""

    def __init__(self, trainer: Trainer, pairs: int, seconds: float) -> None:
        """Measure stretches of `seconds`, `pairs` of them for each mode in a round."""
        self._trainer = trainer
        self._pairs = pairs
        self._seconds = seconds
        self.modes = {name: Pairs() for name in (CLOSED, *MODES, PROFILER)}
        self.events = self.steps = 0

    def round(self, name: str) -> None:
        """One mode, once."""
        trainer, pairs, seconds = self._trainer, self.modes[name], self._seconds
        if name == CLOSED:
            longer = seconds * 5
            pairs.alternate(
                lambda: trainer.during(longer),
                lambda: attached(trainer.pid, lambda: trainer.during(longer)),
                max(1, self._pairs // 5),
            )
        elif name == PROFILER:
            pairs.alternate(
                lambda: trainer.during(seconds), lambda: trainer.profiled(seconds), self._pairs
            )
        else:
            self._tapped(name, pairs)

    def _tapped(self, name: str, pairs: Pairs) -> None:
        bursts = MODES[name].mode is CaptureMode.BURSTS
        seconds = BURSTS_SECONDS if bursts else self._seconds
        tap = AgentTap(self._trainer.pid, MODES[name], PATIENT)

        def opened() -> Count:
            tap.start(0)
            try:
                return self._trainer.during(seconds)
            finally:
                tap.stop()

        try:
            tap.prepare()
            with emptied(tap.memory):
                before = [tap.memory.get(word) for word in ("events", "boundaries")]
                pairs.alternate(
                    lambda: self._trainer.during(seconds),
                    opened,
                    max(1, self._pairs // 5) if bursts else self._pairs,
                )
                after = [tap.memory.get(word) for word in ("events", "boundaries")]
            lost = {cause.name: n for cause, n in tap.memory.dropped().items() if n}
            assert "RING_FULL" not in lost, lost
        finally:
            tap.detach()
        if name == FULL:
            self.events += after[0] - before[0]
            self.steps += after[1] - before[1]


def measure(name: str, rounds: int, pairs: int, seconds: float) -> None:
    chance = random.Random(0)
    with Trainer(name) as trainer:
        bench = Bench(trainer, pairs, seconds)
        for _ in range(rounds):
            for mode in chance.sample(list(bench.modes), len(bench.modes)):
                bench.round(mode)
    events = bench.events / bench.steps
    bare = [count for one in bench.modes.values() for count in one.bare]
    emit(
        "overhead",
        workload=name,
        bare_step_us={
            "cpu": middle([c.cpu_us for c in bare]),
            "wall": middle([c.wall_us for c in bare]),
        },
        events_per_step=round(events, 1),
        modes={mode: found.figures(events) for mode, found in bench.modes.items()},
    )


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    options.add_argument("loops", nargs="*", default=["mlp", "transformer"])
    options.add_argument("--rounds", type=int, default=8)
    options.add_argument("--pairs", type=int, default=10)
    options.add_argument("--seconds", type=float, default=0.1)
    chosen = options.parse_args()
    for name in chosen.loops:
        measure(name, chosen.rounds, chosen.pairs, chosen.seconds)


if __name__ == "__main__":
    main()
