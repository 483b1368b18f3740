"""A plain inference loop: no loader, no optimizer. A step is one call of the outermost module."""

from __future__ import annotations

import torch
from common import Run, parser
from torch import nn


def main() -> None:
    with Run(parser(__doc__).parse_args()) as run:
        model = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Linear(128, 10),
        ).eval()
        with torch.inference_mode():
            for _ in run:
                run.record(model(torch.randn(2, 3, 32, 32)).sum())


if __name__ == "__main__":
    main()
