"""The claims of `behaviours_nccl.py` on two real GPUs; tests/integration proves them simulated."""

from __future__ import annotations

import ctypes

import pytest

from tests.gpu.behaviours_nccl import CLAIMS
from tests.simgpu.nccl.job import Job


@pytest.fixture(scope="module")
def two_devices() -> None:
    """Asks NVIDIA's driver in this process: initialize nothing but it."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
        ctypes.CDLL("libnccl.so.2")
    except OSError as exc:
        pytest.skip(f"no GPU, or no NCCL: {exc}")
    count = ctypes.c_int()
    if cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count)) or count.value < 2:
        pytest.skip(f"NCCL wants a device for each of two ranks; there are {count.value}")


@pytest.mark.gpu
@pytest.mark.usefixtures("two_devices")
@pytest.mark.parametrize("name", list(CLAIMS))
def test_conformance(name: str) -> None:
    with Job(f"tests.gpu.behaviours_nccl:{name}", 2, None) as job:
        job.share_id()
        job.relay()
