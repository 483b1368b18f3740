"""A two-layer MLP on batches of 8: the worst case for overhead (about 115 us a step)."""

from __future__ import annotations

import torch
from common import Run, parser
from torch import nn


def main() -> None:
    with Run(parser(__doc__).parse_args()) as run:
        model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 8))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        x, y = torch.randn(8, 32), torch.randn(8, 8)
        for _ in run:
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(x), y)
            loss.backward()
            optimizer.step()
            run.record(loss)


if __name__ == "__main__":
    main()
