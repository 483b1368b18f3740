"""Batch inference from a DataLoader: no optimizer, so the loader's scopes are the steps."""

from __future__ import annotations

import torch
from common import Run, endless, parser
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--workers", type=int, default=0)
    with Run(options.parse_args()) as run:
        model = nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 10)).eval()
        loader = DataLoader(
            TensorDataset(torch.randn(1 << 16, 64)), 16, num_workers=run.options.workers
        )
        batches = endless(loader)
        with torch.inference_mode():
            for _ in run:
                (x,) = next(batches)
                run.record(model(x).sum())
        batches.close()


if __name__ == "__main__":
    main()
