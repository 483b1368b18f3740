"""Data-parallel training over Gloo: two ranks, each with two DataLoader workers.

`--launch env` (the default) starts the ranks the way torchrun does: one process each, with RANK and
its friends in the environment. `--launch spawn` uses torch.multiprocessing, where nothing in /proc
tells the rank. With RANK in the environment already (torchrun) this process is a rank itself.
Rank r writes its losses to `FILE.r`.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from common import Run, endless, parser
from ranks import launch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, DistributedSampler


class Rows(Dataset[tuple[Tensor, Tensor]]):
    def __len__(self) -> int:
        return 1 << 16

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(index)
        return torch.randn(64, generator=generator), torch.randn(8, generator=generator)


def train(options: argparse.Namespace, rank: int, world_size: int) -> None:
    if options.losses is not None:
        options.losses = Path(f"{options.losses}.{rank}")
    with Run(options, rank=rank, together=True) as run:
        model = DistributedDataParallel(
            nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 8))
        )
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        sampler = DistributedSampler(Rows(), world_size, rank, seed=options.seed)
        loader = DataLoader(Rows(), 16, sampler=sampler, num_workers=options.workers)
        batches = endless(loader)
        stop = torch.zeros(1)
        for _ in run:
            x, y = next(batches)
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(x), y)
            loss.backward()
            optimizer.step()
            run.record(loss)
            # All ranks end after the same step, or the last one would wait for ever.
            stop.fill_(run.stopped)
            dist.all_reduce(stop)
            if stop.item():
                run.steps += 1
                break
        batches.close()
    dist.destroy_process_group()


def rank_from_environment(options: argparse.Namespace) -> None:
    dist.init_process_group("gloo")
    train(options, dist.get_rank(), dist.get_world_size())


def spawned_rank(rank: int, world_size: int, meeting: str, options: argparse.Namespace) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=world_size
    )
    train(options, rank, world_size)


def launch_spawn(options: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory() as folder:
        arguments = (options.ranks, f"{folder}/meeting", options)
        context = mp.spawn(spawned_rank, arguments, options.ranks, join=False)

        def pass_on(number: int, frame: FrameType | None) -> None:
            for pid in context.pids():
                os.kill(pid, number)

        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, pass_on)
        while not context.join():
            pass
    return 0


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--launch", choices=["env", "spawn"], default="env")
    options.add_argument("--ranks", type=int, default=2)
    options.add_argument("--workers", type=int, default=2)
    chosen = options.parse_args()
    if "RANK" in os.environ:
        rank_from_environment(chosen)
        return 0
    if chosen.launch == "spawn":
        return launch_spawn(chosen)
    return launch(chosen.ranks, "ddp-gloo", lambda rank: {})


if __name__ == "__main__":
    sys.exit(main())
