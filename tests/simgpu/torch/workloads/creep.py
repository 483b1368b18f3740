"""Planted faults of memory: each step keeps `--keep` MiB more, or asks for another size.

With `--vary` N the k-th step holds a block of `k mod N + 1` times 8 MiB while it runs: on a small
device (SIMGPU_MEMORY) the blocks that are cached for other sizes have to be given back again and
again. Between two steps the loop waits `--pause` seconds, as for a batch.
"""

from __future__ import annotations

import time

import torch
from simrun import SimRun, parser
from torch import nn

MIB = 1 << 20
BLOCK = 8 * MIB


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--keep", type=int, default=1)
    options.add_argument("--vary", type=int, default=0)
    options.add_argument("--pause", type=float, default=0.05)
    chosen = options.parse_args()
    kept = []
    with SimRun(chosen) as run:
        model = nn.Linear(64, 64).to(run.device)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        x = torch.randn(16, 64).to(run.device)
        for step in run:
            if chosen.keep:
                kept.append(torch.empty(chosen.keep * MIB, dtype=torch.uint8, device=run.device))
            if chosen.vary:
                size = (step % chosen.vary + 1) * BLOCK
                torch.empty(size, dtype=torch.uint8, device=run.device)
            optimizer.zero_grad()
            loss = model(x).square().mean()
            loss.backward()
            optimizer.step()
            time.sleep(chosen.pause)
            run.record(loss)


if __name__ == "__main__":
    main()
