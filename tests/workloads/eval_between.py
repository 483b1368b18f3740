"""Training with a validation pass of `--batches` forward calls after every 5 training steps."""

from __future__ import annotations

import torch
from common import Run, parser
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--every", type=int, default=5)
    options.add_argument("--batches", type=int, default=3)
    with Run(options.parse_args()) as run:
        model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.1), nn.Linear(128, 8))
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        held_out = TensorDataset(
            torch.randn(16 * run.options.batches, 64), torch.randn(16 * run.options.batches, 8)
        )
        for step in run:
            model.train()
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(torch.randn(16, 64)), torch.zeros(16, 8))
            loss.backward()
            optimizer.step()
            run.record(loss)
            if (step + 1) % run.options.every == 0:
                model.eval()
                with torch.no_grad():
                    for x, y in DataLoader(held_out, 16):
                        nn.functional.mse_loss(model(x), y).item()


if __name__ == "__main__":
    main()
