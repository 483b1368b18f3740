"""A training loop that writes its own step count and times where others can read them.

    steps.py mlp|transformer FILE

FILE holds `WORDS` 64-bit words. The loop writes steps, CPU time of the training thread and wall
time every few steps (version odd: being written), and runs under torch.profiler while `REQUEST` is
1. It knows nothing of gputap.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "workloads"))

WORDS = 8
REQUEST, STATE, VERSION, STEPS, CPU_NS, WALL_NS = range(6)

Step = Callable[[], None]


def mlp() -> Step:
    """About 115 us a step: the worst case."""
    model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 8))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    x, y = torch.randn(8, 32), torch.randn(8, 8)

    def step() -> None:
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        loss.item()

    return step


def transformer() -> Step:
    """About 2 ms a step, with Adam."""
    from transformer import BATCH, LENGTH, VOCABULARY, LanguageModel

    model = LanguageModel()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def step() -> None:
        tokens = torch.randint(VOCABULARY, (BATCH, LENGTH + 1))
        optimizer.zero_grad()
        logits = model(tokens[:, :-1])
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        loss.item()

    return step


def main() -> None:
    name, file = sys.argv[1:3]
    torch.set_num_threads(1)
    torch.manual_seed(0)
    step, every = (mlp(), 20) if name == "mlp" else (transformer(), 4)
    words = np.memmap(file, np.int64, "r+", shape=(WORDS,))
    for _ in range(50):
        step()
    print("ready", flush=True)
    profiler = None
    while True:
        for _ in range(every):
            step()
        words[VERSION] += 1
        words[STEPS] += every
        words[CPU_NS] = time.thread_time_ns()
        words[WALL_NS] = time.perf_counter_ns()
        words[VERSION] += 1
        if words[REQUEST] == words[STATE]:
            continue
        if profiler is None:
            profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU])
            profiler.start()
        else:
            profiler.stop()
            profiler = None
        words[STATE] = words[REQUEST]


if __name__ == "__main__":
    main()
