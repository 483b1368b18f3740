"""The caching allocator's statistics, in the shape of torch.cuda's."""

from __future__ import annotations

import sys
from typing import Any

import torch

from simcuda import _load

_SMALL = 1 << 20
_backend = _load.backend()
# As torch._C._cuda_isHistoryEnabled.
torch._C._simcuda_isHistoryEnabled = _backend.memory_events_are_recorded  # type: ignore[attr-defined]


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


def _record_memory_history(
    enabled: str | None = "all",
    context: str | None = "all",
    stacks: str = "all",
    max_entries: int = sys.maxsize,
) -> None:
    """As torch.cuda.memory._record_memory_history, without the stacks."""
    _backend.record_memory_events(max_entries if enabled else 0)


def _snapshot(device: int | None = None) -> dict[str, Any]:
    """As torch.cuda.memory._snapshot: each block is a segment of its own, frames are empty."""
    traces: list[list[dict[str, Any]]] = [[] for _ in range(_backend.device_count())]
    for action, address, size, stream, on, time_us in _backend.memory_events():
        entry = {"action": action, "addr": address, "size": size, "stream": stream, "frames": []}
        traces[on].append({**entry, "time_us": time_us, "pool_id": (0, 0)})
    segments = [_segment(*block) for block in sorted(_backend.held_blocks())]
    return {"segments": segments, "device_traces": traces}


def _segment(
    address: int, size: int, allocated: int, requested: int, stream: int, device: int, state: str
) -> dict[str, Any]:
    block = {"address": address, "size": size, "requested_size": requested, "state": state}
    return {
        "device": device,
        "address": address,
        "total_size": size,
        "allocated_size": allocated if state == "active_allocated" else 0,
        "active_size": allocated,
        "requested_size": requested,
        "stream": stream,
        "segment_type": "small" if size <= _SMALL else "large",
        "segment_pool_id": (0, 0),
        "is_expandable": False,
        "frames": [],
        "blocks": [{**block, "frames": []}],
    }
