"""Training with torch.compile (needs a C++ compiler). Ready once the graphs are compiled.

`--recompile-every N` changes the batch size every N steps, which makes Dynamo look again.
"""

from __future__ import annotations

import torch
from common import Run, parser
from torch import nn


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--backend", default="inductor")
    options.add_argument("--recompile-every", type=int, default=0)
    with Run(options.parse_args()) as run:
        model = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 8))
        compiled = torch.compile(model, backend=run.options.backend, dynamic=False)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        every = run.options.recompile_every
        for step in run:
            rows = 8 + (step // every) % 8 if every else 8
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(compiled(torch.randn(rows, 32)), torch.zeros(rows, 8))
            loss.backward()
            optimizer.step()
            run.record(loss)


if __name__ == "__main__":
    main()
