"""A planted fault: `tokenise`, pure Python, keeps the host busy for a known time in each step.

The device waits for it: its queue is empty, because the loss of the step before has been read.
"""

from __future__ import annotations

import time

import torch
from gpt import GPT, batch, loss_of
from simrun import SimRun, parser


def tokenise(generator: torch.Generator, size: int, busy_ms: float) -> torch.Tensor:
    """A batch, after `busy_ms` of work of this thread's own."""
    until = time.perf_counter() + busy_ms / 1e3
    while time.perf_counter() < until:
        sum(ord(letter) for letter in "the planted gap")
    return batch(generator, size)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--gap-ms", type=float, default=20.0)
    chosen = options.parse_args()
    with SimRun(chosen) as run:
        model = GPT().to(run.device)
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        generator = torch.Generator().manual_seed(chosen.seed)
        for _ in run:
            tokens = tokenise(generator, 8, chosen.gap_ms).to(run.device)
            optimizer.zero_grad()
            loss = loss_of(model, tokens)
            loss.backward()
            optimizer.step()
            run.record(loss)


if __name__ == "__main__":
    main()
