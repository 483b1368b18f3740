"""NVIDIA's own NCCL, from PyPI: of use without a GPU, too."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
WHEEL = "nvidia-nccl-cu13==2.28.9"
PARTS = ("nvidia/nccl/include/nccl.h", "nvidia/nccl/lib/libnccl.so.2")


def real_nccl() -> Path:
    """Where the wheel's header and library are; 200 MB once. Skips where it cannot be had."""
    place = ROOT / "build" / "nccl-2.28.9"
    if not all((place / part).exists() for part in PARTS):
        place.mkdir(parents=True, exist_ok=True)
        download = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", WHEEL, "-d"]
        try:
            subprocess.run([*download, str(place)], check=True, capture_output=True, timeout=150)
        except (subprocess.SubprocessError, OSError) as exc:
            pytest.skip(f"{WHEEL} cannot be had: {exc}")
        (wheel,) = place.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(place, [*PARTS])
        wheel.unlink()
    return place
