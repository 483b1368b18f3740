"""Data-parallel training of a small GPT, one process a rank, each with a device of its own.

The first process starts the ranks, passes signals on, waits for them. `--straggler RANK MS` makes
one rank's host slow by so much in each step, before its forward pass. `--device cpu` is the same
over Gloo. With RANK in the environment already (torchrun) this process is a rank itself.
"""

from __future__ import annotations

import argparse
import gc
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

import torch
import torch.distributed as dist
from gpt import GPT, batch, loss_of
from simrun import SimRun, parser
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


def environment(rank: int, world_size: int, port: int) -> dict[str, str]:
    ours = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": world_size,
        "LOCAL_WORLD_SIZE": world_size,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "TORCHELASTIC_RUN_ID": "ddp-simnccl",
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }
    env = {**os.environ, **{key: str(value) for key, value in ours.items()}}
    if "%p" not in env.get("SIMGPU_LOG", "%p"):  # a log for each rank
        env["SIMGPU_LOG"] += f".{rank}"
    return env


def launch(options: argparse.Namespace) -> int:
    # The store lives here, on a port that the system chose: two jobs at once cannot collide.
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    ranks = [
        subprocess.Popen(
            [sys.executable, *sys.argv], env=environment(rank, options.ranks, store.port)
        )
        for rank in range(options.ranks)
    ]

    def pass_on(number: int, frame: FrameType | None) -> None:
        for process in ranks:
            process.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, pass_on)
    return max(abs(process.wait()) for process in ranks)


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--ranks", type=int, default=2)
    options.add_argument("--straggler", type=int, nargs=2, metavar=("RANK", "MS"))
    chosen = options.parse_args()
    if "RANK" in os.environ:
        train(chosen, int(os.environ["RANK"]))
        return 0
    return launch(chosen)


if __name__ == "__main__":
    sys.exit(main())
