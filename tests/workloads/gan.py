"""Two models, two optimizers of different classes, both stepped in every step."""

from __future__ import annotations

import torch
from common import Run, parser
from torch import Tensor, nn


def score(logits: Tensor, target: float) -> Tensor:
    wanted = torch.full_like(logits, target)
    return nn.functional.binary_cross_entropy_with_logits(logits, wanted)


def main() -> None:
    with Run(parser(__doc__).parse_args()) as run:
        generator = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 32))
        critic = nn.Sequential(nn.Linear(32, 64), nn.LeakyReLU(0.2), nn.Linear(64, 1))
        generator_optimizer = torch.optim.Adam(generator.parameters(), lr=2e-4)
        critic_optimizer = torch.optim.RMSprop(critic.parameters(), lr=2e-4)
        for _ in run:
            fake = generator(torch.randn(16, 16))
            critic_optimizer.zero_grad()
            critic_loss = score(critic(torch.randn(16, 32)), 1.0) + score(
                critic(fake.detach()), 0.0
            )
            critic_loss.backward()
            critic_optimizer.step()

            generator_optimizer.zero_grad()
            generator_loss = score(critic(fake), 1.0)
            generator_loss.backward()
            generator_optimizer.step()
            run.record(critic_loss.detach() + generator_loss.detach())


if __name__ == "__main__":
    main()
