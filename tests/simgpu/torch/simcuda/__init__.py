"""PyTorch on the simulated CUDA stack: `import simcuda` makes the device type `simcuda`.

It is `torch.cuda` in small: operators do their maths on the CPU and launch, on the simulated
device, the kernels that CUDA would run. `torch.simcuda` is this module. Test-only.

Environment: SIMGPU_LIBRARIES (folder of the look-alike libraries; default build/simgpu),
SIMCUDA_MODULES (folder of the built modules; default: built on demand), SIMGPU_CUDA (12 or 13),
SIMCUDA_CUPTI=0 (do not map libcupti, which real PyTorch always does), SIMCUDA_SLOWDOWN
(multiplies the kernels' durations: a host that does the maths itself makes a real H100 idle),
SIMCUDA_TF32 (float matrix products at the speed of TF32).
"""

from __future__ import annotations

import atexit
import sys
from typing import Any

import torch

from simcuda import _load

backend = _load.backend()

torch.utils.rename_privateuse1_backend("simcuda")

from simcuda import distributed  # noqa: E402, F401  registers the process group
from simcuda.graphs import CUDAGraph, graph  # noqa: E402
from simcuda.memory import (  # noqa: E402
    empty_cache,
    max_memory_allocated,
    max_memory_reserved,
    mem_get_info,
    memory_allocated,
    memory_reserved,
    memory_stats,
    reset_accumulated_memory_stats,
    reset_peak_memory_stats,
)
from simcuda.streams import (  # noqa: E402
    Event,
    Stream,
    current_stream,
    default_stream,
    device,
    set_stream,
    stream,
    synchronize,
)

__all__ = [
    "CUDAGraph",
    "Event",
    "Stream",
    "current_device",
    "current_stream",
    "default_stream",
    "device",
    "device_count",
    "empty_cache",
    "graph",
    "is_available",
    "manual_seed",
    "max_memory_allocated",
    "max_memory_reserved",
    "mem_get_info",
    "memory_allocated",
    "memory_reserved",
    "memory_stats",
    "reset_accumulated_memory_stats",
    "reset_peak_memory_stats",
    "set_device",
    "set_stream",
    "stream",
    "synchronize",
]


def is_available() -> bool:
    """The stack has a device."""
    return backend.device_count() > 0


def is_initialized() -> bool:
    """Always: loading is initialising."""
    return True


def device_count() -> int:
    """Devices of the stack (SIMGPU_DEVICES)."""
    return int(backend.device_count())


def current_device() -> int:
    """Index of the calling thread's device."""
    return int(backend.current_device())


def set_device(which: int | str | torch.device) -> None:
    """Make `which` the calling thread's device."""
    index = which if isinstance(which, int) else torch.device(which).index
    if index is not None:
        backend.set_device(index)


def manual_seed(seed: int) -> None:
    """Nothing to do: random numbers are those of the CPU's default generator, which torch seeds."""


manual_seed_all = manual_seed


def get_rng_state(which: Any = None) -> torch.Tensor:
    """State of the generator, which is the CPU's."""
    return torch.get_rng_state()


def set_rng_state(state: torch.Tensor, which: Any = None) -> None:
    """Set the state of the generator, which is the CPU's."""
    torch.set_rng_state(state)


def get_amp_supported_dtype() -> list[torch.dtype]:
    """What torch.autocast("simcuda") may use."""
    return [torch.bfloat16, torch.float16]


def _is_in_bad_fork() -> bool:
    return False


torch._register_device_module("simcuda", sys.modules[__name__])
torch.utils.generate_methods_for_privateuse1_backend()
atexit.register(backend.finish_autograd)
