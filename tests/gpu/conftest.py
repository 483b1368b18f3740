"""What the tests on a real GPU share."""

from __future__ import annotations

import ctypes

import pytest


@pytest.fixture(scope="module")
def devices() -> int:
    """How many there are; skips without one.

    Asks NVIDIA's driver in this process: initialize nothing but it.
    """
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError as exc:
        pytest.skip(f"no GPU: {exc}")
    count = ctypes.c_int()
    if cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
        pytest.skip("no GPU: the driver finds none")
    return count.value
