"""The caching allocator's statistics, in the shape of torch.cuda's."""

from __future__ import annotations

from typing import Any

import torch


def memory_stats(device: int | None = None) -> dict[str, Any]:
    """As torch.cuda.memory_stats: "allocated_bytes.all.current", "num_ooms", and so on."""
    return torch.accelerator.memory_stats(device)


def memory_allocated(device: int | None = None) -> int:
    """Bytes of live tensors, rounded to 512 each."""
    return torch.accelerator.memory_allocated(device)


def max_memory_allocated(device: int | None = None) -> int:
    """Peak of memory_allocated since the last reset."""
    return torch.accelerator.max_memory_allocated(device)


def memory_reserved(device: int | None = None) -> int:
    """Bytes that the allocator holds of the device."""
    return torch.accelerator.memory_reserved(device)


def max_memory_reserved(device: int | None = None) -> int:
    """Peak of memory_reserved since the last reset."""
    return torch.accelerator.max_memory_reserved(device)


def reset_peak_memory_stats(device: int | None = None) -> None:
    """Peaks begin again at what is current."""
    torch.accelerator.reset_peak_memory_stats(device)


def reset_accumulated_memory_stats(device: int | None = None) -> None:
    """Counters begin again at zero."""
    torch.accelerator.reset_accumulated_memory_stats(device)


def empty_cache() -> None:
    """Give what is cached back to the device."""
    torch.accelerator.empty_cache()


def mem_get_info(device: int | None = None) -> tuple[int, int]:
    """Free and total bytes of the device (cudaMemGetInfo)."""
    return torch.accelerator.get_memory_info(device)
