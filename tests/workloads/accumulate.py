"""Gradient accumulation: one optimizer step for every `--micro` loader batches (default 4)."""

from __future__ import annotations

import torch
from common import Run, endless, parser
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--micro", type=int, default=4)
    with Run(options.parse_args()) as run:
        model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 8))
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        rows = TensorDataset(torch.randn(4096, 64), torch.randn(4096, 8))
        batches = endless(DataLoader(rows, 16, shuffle=True))
        for _ in run:
            optimizer.zero_grad()
            total = torch.zeros(())
            for _ in range(run.options.micro):
                x, y = next(batches)
                loss = nn.functional.mse_loss(model(x), y) / run.options.micro
                loss.backward()
                total += loss.detach()
            optimizer.step()
            run.record(total)


if __name__ == "__main__":
    main()
