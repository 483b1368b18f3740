"""The claims of `behaviours*.py` on a real GPU; `tests/integration` has them on a simulated one."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

from tests.gpu.claims import DOES_NOT_APPLY, claims

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def device() -> None:
    """Skips without one. Asks NVIDIA's driver in this process: initialize nothing but it."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError as exc:
        pytest.skip(f"no GPU: {exc}")
    count = ctypes.c_int()
    if cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
        pytest.skip("no GPU: the driver finds none")


@pytest.mark.gpu
@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("name", list(claims()))
def test_conformance(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.gpu.claims", name],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode == DOES_NOT_APPLY:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stdout + done.stderr
