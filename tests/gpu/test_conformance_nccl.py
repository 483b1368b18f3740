"""The claims of `behaviours_nccl.py` on real GPUs; tests/integration proves them simulated."""

from __future__ import annotations

import ctypes

import pytest

from tests.gpu.behaviours_nccl import ALONE, CLAIMS
from tests.simgpu.nccl.job import Job

RANKS_MAY_SHARE = 23000
"""From NCCL 2.30 on, if asked to."""


@pytest.fixture(scope="module")
def most_ranks(devices: int) -> int:
    try:
        nccl = ctypes.CDLL("libnccl.so.2")
    except OSError as exc:
        pytest.skip(f"no NCCL (LD_LIBRARY_PATH?): {exc}")
    version = ctypes.c_int()
    nccl.ncclGetVersion(ctypes.byref(version))
    return max(devices, 2) if version.value >= RANKS_MAY_SHARE else devices


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("name", "ranks"), [*((name, 2) for name in CLAIMS), *((name, 1) for name in ALONE)]
)
def test_conformance(name: str, ranks: int, most_ranks: int) -> None:
    if ranks > most_ranks:
        pytest.skip("this NCCL wants a device for each of two ranks, and there is one")
    env = {"NCCL_MULTI_RANK_GPU_ENABLE": "1"}
    with Job(f"tests.gpu.behaviours_nccl:{name}", ranks, None, env=env) as job:
        job.share_id()
        job.relay()
