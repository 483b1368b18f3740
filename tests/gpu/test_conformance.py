"""The claims of `behaviours*.py` on a real GPU; `tests/integration` has them on a simulated one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.gpu.claims import DOES_NOT_APPLY, claims

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.gpu
@pytest.mark.usefixtures("devices")
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
