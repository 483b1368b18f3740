"""How long an attach stops the target: the distribution over 200 attaches, each to a busy loop.

    python benchmarks/pause.py [--attaches 200] [--first 10]

`pause` is one thread's, from asking it to stop to letting it go; the other threads are not stopped.
`attach` is the whole of `AgentTap`: look at the target, injector, agent's memory. `prepare` is
what follows with the target running: describe, layouts, self-test. First attaches load the library,
later ones find it. Each attach is let go before the next.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from common import PATIENT, WORKLOADS, Trainer, emit, tail

from gputap.injectors import attach
from gputap.injectors.attach import Injection
from gputap.injectors.built import AGENT, built
from gputap.injectors.library.client import AgentClient, WindowConfig
from gputap.injectors.tap import AgentTap

PREPARED = 30
"""Attaches that go on to the self-test."""


@contextmanager
def three_threads() -> Iterator[int]:
    """Three Python threads that train, with DataLoader workers forked every two seconds."""
    process = subprocess.Popen(
        [sys.executable, str(WORKLOADS / "threads.py")], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("ready ")
        yield process.pid
    finally:
        process.kill()
        process.communicate()


@contextmanager
def one_thread(name: str) -> Iterator[int]:
    with Trainer(name) as trainer:
        yield trainer.pid


def inject(pid: int) -> Injection:
    """Attach, and let go as gputap does."""
    injection = attach.inject(pid, agent=built(AGENT), timeout_s=60)
    AgentClient(pid, injection.control_fd).detach()
    return injection


def measure(workload: str, pid: int, attaches: int) -> None:
    first = inject(pid)
    done = [inject(pid) for _ in range(attaches)]
    attach_ms, prepare_ms = [], []
    for _ in range(PREPARED):
        began = time.perf_counter()
        tap = AgentTap(pid, WindowConfig(), PATIENT)
        attached = time.perf_counter()
        tap.prepare()
        prepare_ms.append(1e3 * (time.perf_counter() - attached))
        attach_ms.append(1e3 * (attached - began))
        tap.detach()
    emit(
        "pause",
        workload=workload,
        pause_ms=tail([i.pause_ns / 1e6 for i in done]),
        stops=tail([i.stops for i in done]),
        injector_ms=tail([i.total_ns / 1e6 for i in done]),
        first_ms={"pause": first.pause_ns / 1e6, "injector": first.total_ns / 1e6},
        attach_ms=tail(attach_ms),
        prepare_ms=tail(prepare_ms),
    )


def measure_first(processes: int) -> None:
    """The first attach of a process resolves, loads and starts everything."""
    done = []
    for _ in range(processes):
        with one_thread("mlp") as pid:
            done.append(inject(pid))
    emit(
        "pause",
        workload="mlp, first attach of a process",
        pause_ms=tail([i.pause_ns / 1e6 for i in done]),
        stops=tail([i.stops for i in done]),
        injector_ms=tail([i.total_ns / 1e6 for i in done]),
    )


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    options.add_argument("--attaches", type=int, default=200)
    options.add_argument("--first", type=int, default=10)
    chosen = options.parse_args()
    for name in ("mlp", "transformer"):
        with one_thread(name) as pid:
            measure(name, pid, chosen.attaches)
    with three_threads() as pid:
        measure("threads", pid, chosen.attaches)
    measure_first(chosen.first)


if __name__ == "__main__":
    main()
