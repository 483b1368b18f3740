"""Several Python threads train at once while workers of a DataLoader are forked now and then.

Every thread trains the same 16 rounds over and over, each from its own seed. What is recorded is
the sum of the losses of each round, thread by thread (`--losses FILE` writes `FILE.0`, `FILE.1`,
...): round k of a tapped run must equal round k mod 16 of an untapped one, bit for bit, however
long either runs.
"""

from __future__ import annotations

import threading

import torch
from common import Run, parser
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

ROUNDS, STEPS = 16, 50


class Rows(Dataset[Tensor]):
    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> Tensor:
        return torch.full((64,), float(index)).sin()


def parameters(width: int, depth: int, generator: torch.Generator) -> nn.Sequential:
    """A model whose weights come from `generator`: threads share torch's own."""
    model = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, depth))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 8)
    return model


def one_round(seed: int) -> float:
    """The sum of the losses of `STEPS` steps, exact and the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    model = parameters(64, 8, generator)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9)
    total = 0.0
    for _ in range(STEPS):
        x = torch.randn(8, 64, generator=generator)
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        total += loss.item()
    return total


class Trainer(threading.Thread):
    """One training thread."""

    def __init__(self, run: Run, number: int) -> None:
        super().__init__(name=f"trainer-{number}")
        self.sums: list[float] = []
        self._run_state = run
        self._number = number

    def run(self) -> None:
        torch.set_num_threads(1)  # OpenMP counts for every thread of its own
        limit = self._run_state.options.rounds
        while not self._run_state.stopped and not (limit and len(self.sums) >= limit):
            k = len(self.sums) % ROUNDS
            self.sums.append(one_round(self._number * 1000 + k + self._run_state.options.seed))


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--threads", type=int, default=3)
    options.add_argument("--rounds", type=int, default=0, help="of every thread; 0: until SIGTERM")
    options.add_argument("--fork-every", type=float, default=2.0, help="seconds; 0: never")
    run = Run(options.parse_args())
    one_round(0)
    trainers = [Trainer(run, number) for number in range(run.options.threads)]
    for trainer in trainers:
        trainer.start()
    run.say_ready()
    loader = DataLoader(Rows(), 8, num_workers=1, timeout=60, multiprocessing_context="fork")
    pause = threading.Event()
    while any(trainer.is_alive() for trainer in trainers):
        pause.wait(run.options.fork_every or 0.2)
        if run.options.fork_every and not run.stopped:
            for _ in loader:
                run.steps += 1
    if run.options.losses is not None:
        for number, trainer in enumerate(trainers):
            text = "".join(f"{value.hex()}\n" for value in trainer.sums)
            run.options.losses.with_suffix(f".{number}").write_text(text)
        run.options.losses = None  # they are written, in files of their own
    run.finish()


if __name__ == "__main__":
    main()
