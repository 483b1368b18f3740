"""The c10d backend `simnccl`: `init_process_group("cpu:gloo,simcuda:simnccl")`, or `"simnccl"`."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from simcuda import _load


def _create(options: Any, backend_options: Any) -> Any:
    return _load.backend().create_process_group(
        options.store, options.group_rank, options.group_size, list(options.global_ranks_in_group)
    )


if dist.is_available():
    # As in a build with NCCL: what the flight recorder kept.
    torch._C._distributed_c10d._dump_nccl_trace_json = _load.backend().dump_nccl_trace_json
    dist.Backend.register_backend("simnccl", _create, extended_api=True, devices=["simcuda"])
