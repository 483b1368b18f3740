"""Starts a workload's ranks the way torchrun does: a process each, its rank in the environment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from types import FrameType

import torch.distributed as dist


def launch(world_size: int, run_id: str, more: Callable[[int], Mapping[str, str]]) -> int:
    """Run this very command once a rank, pass signals on, wait for all; the worst exit code.

    `more` has what a rank's environment needs besides.
    """
    # The store lives here, on a port that the system chose: two jobs at once cannot collide.
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)

    def environment(rank: int) -> dict[str, str]:
        ours = {
            "RANK": rank,
            "LOCAL_RANK": rank,
            "WORLD_SIZE": world_size,
            "LOCAL_WORLD_SIZE": world_size,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": store.port,
            "TORCHELASTIC_RUN_ID": run_id,
            "TORCHELASTIC_USE_AGENT_STORE": True,
        }
        return {**os.environ, **{key: str(value) for key, value in ours.items()}, **more(rank)}

    ranks = [
        subprocess.Popen([sys.executable, *sys.argv], env=environment(rank))
        for rank in range(world_size)
    ]

    def pass_on(number: int, frame: FrameType | None) -> None:
        for process in ranks:
            process.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, pass_on)
    return max(abs(process.wait()) for process in ranks)
