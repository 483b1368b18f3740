"""A small GPT in bf16 autocast: flash attention, fused layer norms, AdamW's foreach kernels."""

from __future__ import annotations

import torch
from gpt import GPT, batch, loss_of
from simrun import SimRun, parser


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--fp32", action="store_true", help="no autocast")
    options.add_argument("--batch", type=int, default=8)
    options.add_argument("--layers", type=int, default=2)
    chosen = options.parse_args()
    with SimRun(chosen) as run:
        model = GPT(chosen.layers).to(run.device)
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, foreach=True)
        generator = torch.Generator().manual_seed(chosen.seed)
        for _ in run:
            tokens = batch(generator, chosen.batch).to(run.device)
            optimizer.zero_grad()
            with torch.autocast(run.device.type, torch.bfloat16, enabled=not chosen.fp32):
                loss = loss_of(model, tokens)
            loss.backward()
            optimizer.step()
            run.record(loss)


if __name__ == "__main__":
    main()
