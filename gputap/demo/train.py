"""The workload of `gputap demo`: a small language model, trained with a planted fault.

Each sample is tokenised in pure Python inside the DataLoader, in the training process itself
(`num_workers=0`): the model waits for its data. `gputap attach` should say so. Nothing here knows
of gputap. Prints `ready PID` once the loop runs.

    python train.py [SECONDS [DEVICE]]

`DEVICE` is cpu, cuda or simcuda (gputap's simulated GPU, whose backend must be importable).
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import time

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

VOCABULARY = 512
LENGTH = 32
WASTE = 600
"""Characters looked at for one token: the planted fault."""


class Corpus(Dataset[torch.Tensor]):
    """Endless text, tokenised one character at a time."""

    def __len__(self) -> int:
        """Samples in an epoch."""
        return 1_000_000

    def __getitem__(self, index: int) -> torch.Tensor:
        """One sequence of token ids, shape [LENGTH + 1]."""
        state, tokens = index + 1, []
        for _ in range((LENGTH + 1) * WASTE):
            state = (state * 1103515245 + 12345) & 0x7FFFFFFF
            tokens.append((state >> 15) % VOCABULARY)
        return torch.tensor(tokens[::WASTE])


class Block(nn.Module):
    """One transformer block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [batch, LENGTH, width] to the same."""
        h = self.norm1(x)
        x = x + self.attention(h, h, h, need_weights=False)[0]
        y: torch.Tensor = x + self.mlp(self.norm2(x))
        return y


class LanguageModel(nn.Module):
    """Token ids in, logits out."""

    def __init__(self, width: int = 128, layers: int = 4) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(layers))
        self.head = nn.Linear(width, VOCABULARY)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Map [batch, LENGTH] to [batch, LENGTH, VOCABULARY]."""
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        logits: torch.Tensor = self.head(x)
        return logits


def main() -> None:
    """Train until SIGTERM, or for as many seconds as the first argument says."""
    seconds, name = [*sys.argv[1:], *("inf", "cpu")[len(sys.argv) - 1 :]]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    until = time.monotonic() + float(seconds)
    if name == "simcuda":
        importlib.import_module(name)
    device = torch.device(name)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = LanguageModel().to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
    loss_function = nn.CrossEntropyLoss()
    ready = False
    for batch in DataLoader(Corpus(), batch_size=8):
        tokens = batch.to(device)
        optimizer.zero_grad()
        logits = model(tokens[:, :-1])
        loss = loss_function(logits.flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        if not ready:
            print("ready", os.getpid(), flush=True)
            ready = True
        if time.monotonic() > until:
            break


if __name__ == "__main__":
    main()
