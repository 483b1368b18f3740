"""A CPython 3.14, which takes scripts from others: the machine's, or one in a root of its own."""

from __future__ import annotations

import functools
import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1] / "build" / "roots" / "python3.14"


@functools.cache
def command() -> tuple[str, ...]:
    """How to start it; skips the test where there is none."""
    found = shutil.which(os.environ.get("GPUTAP_TEST_PYTHON314", "python3.14"))
    if found:
        return (found,)
    if not (ROOT / "usr/bin/python3.14").exists():
        pytest.skip("no CPython 3.14 (tools/setup_test.sh tries to install one, as root)")
    if os.geteuid() != 0:
        pytest.skip("CPython 3.14 is there in a root of its own: that takes root")
    return ("chroot", str(ROOT), "python3.14")
