"""A small encoder language model trained with Adam (about 2 ms a step)."""

from __future__ import annotations

import torch
from common import Run, parser
from torch import Tensor, nn

VOCABULARY, WIDTH, LENGTH, BATCH = 128, 32, 16, 4


class LanguageModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, 2, 64, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, VOCABULARY)

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.head(self.encoder(self.embed(tokens)))
        return logits


def main() -> None:
    with Run(parser(__doc__).parse_args()) as run:
        model = LanguageModel()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        for _ in run:
            tokens = torch.randint(VOCABULARY, (BATCH, LENGTH + 1))
            optimizer.zero_grad()
            logits = model(tokens[:, :-1])
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
            loss.backward()
            optimizer.step()
            run.record(loss)


if __name__ == "__main__":
    main()
