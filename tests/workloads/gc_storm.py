"""Training beside code that makes cyclic garbage: long collections show up as pauses."""

from __future__ import annotations

import gc

import torch
from common import Run, parser
from torch import nn


class Node:
    """Points at itself through a list, so that only the cycle collector can free it."""

    def __init__(self) -> None:
        self.me = [self]


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--nodes", type=int, default=2000, help="cycles made in every step")
    options.add_argument("--full-every", type=int, default=5, help="full collection every N steps")
    options.add_argument("--live", type=int, default=100_000, help="live objects to be scanned")
    with Run(options.parse_args()) as run:
        keep = [[index] for index in range(run.options.live)]
        model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 8))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        x, y = torch.randn(8, 32), torch.randn(8, 8)
        for step in run:
            for _ in range(run.options.nodes):
                Node()
            if step % run.options.full_every == 0:
                gc.collect()
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(x), y)
            loss.backward()
            optimizer.step()
            run.record(loss)
        del keep


if __name__ == "__main__":
    main()
