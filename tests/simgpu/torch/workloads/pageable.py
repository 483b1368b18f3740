"""A planted fault: each step copies one batch of `--mib` MiB from pageable host memory.

With `--pinned` the same batch is page-locked and copied without blocking, as it should be.
"""

from __future__ import annotations

import torch
from simrun import SimRun, parser
from torch import nn

WIDTH = 1024


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--mib", type=int, default=8)
    options.add_argument("--pinned", action="store_true")
    chosen = options.parse_args()
    with SimRun(chosen) as run:
        model = nn.Linear(WIDTH, 16).to(run.device)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        rows = torch.randn(chosen.mib * (1 << 20) // (4 * WIDTH), WIDTH)
        if chosen.pinned:
            rows = rows.pin_memory()
        for _ in run:
            x = rows.to(run.device, non_blocking=chosen.pinned)
            optimizer.zero_grad()
            loss = model(x).square().mean()
            loss.backward()
            optimizer.step()
            run.record(loss)


if __name__ == "__main__":
    main()
