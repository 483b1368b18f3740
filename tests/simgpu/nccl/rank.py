"""One rank of a job of `tests.simgpu.nccl.job`: runs one scenario and prints what it gives.

python -m tests.simgpu.nccl.rank MODULE:SCENARIO RANK RANKS FOLDER ARGUMENTS: FOLDER holds the
libraries ("" is for the loader's own search), ARGUMENTS are the scenario's, as JSON. Rank 0 prints
the communicator's id, the others read it. Lines `said ...` and `hear ...` are handshakes.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.simgpu.nccl.library import Cuda, Nccl, UniqueId


class World:
    """What a scenario works with."""

    def __init__(self, rank: int, ranks: int, folder: Path | None) -> None:
        self.rank, self.ranks = rank, ranks
        self.cuda, self.nccl = Cuda(folder), Nccl(folder)
        self.stream = ctypes.c_void_p()
        self.comm = ctypes.c_void_p()

    def connect(self, *, device: int | None = None) -> None:
        """Chooses the device, makes a stream and the communicator of all ranks."""
        count = self.cuda.device_count()
        self.cuda.set_device(self.rank % count if device is None else device)
        self.stream = self.cuda.stream()
        self.comm = self.nccl.init_rank(self.ranks, self.share_id(), self.rank)

    def share_id(self) -> UniqueId:
        if self.rank == 0:
            own = self.nccl.unique_id()
            print("id", bytes(own).hex(), flush=True)
            return own
        return UniqueId.from_buffer_copy(bytes.fromhex(sys.stdin.readline().split()[1]))

    def say(self, what: str) -> None:
        print("said", what, flush=True)

    def hear(self, what: str) -> None:
        line = sys.stdin.readline().split()
        if line != ["hear", what]:
            raise RuntimeError(f"expected {what}, heard {line}")


def main() -> None:
    name, rank, ranks, folder, arguments = sys.argv[1:]
    module, _, function = name.partition(":")
    scenario: Callable[..., Any] = getattr(importlib.import_module(module), function)
    world = World(int(rank), int(ranks), Path(folder) if folder else None)
    print("result", json.dumps(scenario(world, *json.loads(arguments))), flush=True)


if __name__ == "__main__":
    main()
