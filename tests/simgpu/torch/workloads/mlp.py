"""A three-layer MLP with SGD: float kernels, one copy to the device and one loss read a step."""

from __future__ import annotations

import torch
from simrun import SimRun, parser
from torch import nn


def main() -> None:
    with SimRun(parser(__doc__).parse_args()) as run:
        model = nn.Sequential(
            nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10)
        ).to(run.device)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        x, y = torch.randn(64, 64), torch.randint(0, 10, (64,))
        for _ in run:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x.to(run.device)), y.to(run.device))
            loss.backward()
            optimizer.step()
            run.record(loss)


if __name__ == "__main__":
    main()
