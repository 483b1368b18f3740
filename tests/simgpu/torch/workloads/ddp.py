"""Data-parallel training of a small GPT, one process a rank, each with a device of its own.

The first process starts the ranks, passes signals on, waits for them. `--straggler RANK MS` makes
one rank's host slow by so much in each step, before its forward pass. `--device cpu` is the same
over Gloo. With RANK in the environment already (torchrun) this process is a rank itself.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
from gpt import GPT, batch, loss_of
from simrun import SimRun, launch, parser
from torch.nn.parallel import DistributedDataParallel


def train(options: argparse.Namespace, rank: int) -> None:
    if options.losses is not None:
        options.losses = Path(f"{options.losses}.{rank}")
    late_rank, late_ms = options.straggler or (-1, 0)
    with SimRun(options, rank=rank, together=True) as run:
        on_device = run.device.type != "cpu"
        dist.init_process_group("cpu:gloo,simcuda:simnccl" if on_device else "gloo")
        if on_device:
            # torch finds the default backend of a mixed group only if it is NCCL, and warns.
            dist.group.WORLD._set_default_backend(dist.ProcessGroup.BackendType.CUSTOM)
        model = DistributedDataParallel(GPT().to(run.device), bucket_cap_mb=0.2)
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, foreach=True)
        generator = torch.Generator().manual_seed(1000 * options.seed + rank)
        stop = torch.zeros(1, device="cpu")
        for _ in run:
            tokens = batch(generator, 4).to(run.device)
            if rank == late_rank:
                time.sleep(late_ms / 1e3)
            optimizer.zero_grad()
            loss = loss_of(model, tokens)
            loss.backward()
            optimizer.step()
            run.record(loss)
            # All ranks end after the same step, or the last one would wait for ever.
            stop.fill_(run.stopped)
            dist.all_reduce(stop)
            if stop.item():
                run.steps += 1
                break
        # The model holds the group: only without it does the group end here, and with it Gloo's
        # thread, which may still hold Python objects and aborts the process if it outlives Python.
        del model, optimizer, loss
        gc.collect()
        dist.destroy_process_group()


def own_log(rank: int) -> dict[str, str]:
    """A log for each rank."""
    log = os.environ.get("SIMGPU_LOG", "%p")
    return {} if "%p" in log else {"SIMGPU_LOG": f"{log}.{rank}"}


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--ranks", type=int, default=2)
    options.add_argument("--straggler", type=int, nargs=2, metavar=("RANK", "MS"))
    chosen = options.parse_args()
    if "RANK" in os.environ:
        train(chosen, int(os.environ["RANK"]))
        return 0
    return launch(chosen.ranks, "ddp-simnccl", own_log)


if __name__ == "__main__":
    sys.exit(main())
