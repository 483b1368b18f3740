"""Statistics of torch's device allocator: a row of COLUMNS for each device that has memory of it.

Runs again and again, in the same namespace, between two steps: it reads counters and nothing else.
"""

import json
import sys

MOST = 16  # devices
COLUMNS = (
    ("allocated_bytes", "current"),
    ("allocated_bytes", "peak"),
    ("reserved_bytes", "current"),
    ("reserved_bytes", "peak"),
    ("inactive_split_bytes", "current"),
    ("allocation", "allocated"),
    ("segment", "allocated"),
    ("num_alloc_retries", ""),
    ("num_ooms", ""),
)


def allocator():
    """Device type, number of devices, statistics by index; None while there is no allocator."""
    torch = sys.modules.get("torch")
    core = getattr(torch, "_C", None)
    cuda = sys.modules.get("torch.cuda")
    if cuda is not None and cuda.is_initialized():
        return "cuda", cuda.device_count(), core._cuda_memoryStats
    version = getattr(torch, "version", None)
    if getattr(version, "cuda", None) or getattr(version, "hip", None):
        return None  # asking for the accelerator would start the driver
    other = sys.modules.get("torch.accelerator")
    stats = getattr(core, "_accelerator_getDeviceStats", None)
    if other is None or stats is None or not other.is_available():
        return None
    if not core._accelerator_isAllocatorInitialized():
        return None
    return str(other.current_accelerator().type), other.device_count(), stats


def number(stats, group, what):
    value = stats.get(group, 0)
    return int(value["all"][what]) if what else int(value)


def run():
    found = allocator()
    if found is None:
        return json.dumps({"rows": []})
    kind, count, stats_of = found
    rows = []
    for index in range(min(count, MOST)):
        stats = stats_of(index)
        if number(stats, "reserved_bytes", "peak"):
            rows.append(["%s:%d" % (kind, index)] + [number(stats, *c) for c in COLUMNS])
    return json.dumps({"rows": rows})


result = run()
