"""Input bound: the model takes about 1 ms a step, the loader `--sample-ms` for every sample."""

from __future__ import annotations

import time

import torch
from common import Run, endless, parser
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset


class SlowRows(Dataset[tuple[Tensor, Tensor]]):
    def __init__(self, sample_ms: float) -> None:
        self._sample_s = sample_ms / 1e3

    def __len__(self) -> int:
        return 1 << 20

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        time.sleep(self._sample_s)  # the planted culprit
        generator = torch.Generator().manual_seed(index)
        return torch.randn(256, generator=generator), torch.randn(8, generator=generator)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--sample-ms", type=float, default=1.0)
    options.add_argument("--workers", type=int, default=0)
    with Run(options.parse_args()) as run:
        model = nn.Sequential(nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 8))
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        rows = SlowRows(run.options.sample_ms)
        batches = endless(DataLoader(rows, 8, num_workers=run.options.workers))
        for _ in run:
            x, y = next(batches)
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(x), y)
            loss.backward()
            optimizer.step()
            run.record(loss)
        batches.close()


if __name__ == "__main__":
    main()
