"""Long proof: gputap killed at any moment of a capture at level `device`; the job's losses stay."""

from __future__ import annotations

import os
import random
import subprocess
import time
from pathlib import Path

import pytest

from tests import cycles
from tests.simulated import Compared, SimWorkload, capture, stack
from tests.tapped import GPUTAP

pytestmark = pytest.mark.soak

KILLS = int(os.environ.get("GPUTAP_SOAK_KILLS", "40"))
LIFE_S = 2.5
"""From the start of gputap to well within its window."""


def test_gputap_killed_anywhere_while_it_has_cupti(tmp_path: Path) -> None:
    stack()
    chance, out = random.Random(5), tmp_path / "killed"
    command = [*GPUTAP, "attach", "-d", "60s", "-o", str(out), "--overwrite"]
    captured = 0
    with SimWorkload("mlp", log=tmp_path / "truth", record_losses=True) as job:
        for number in range(KILLS):
            with subprocess.Popen([*command, str(job.pid)], stderr=subprocess.DEVNULL) as gputap:
                time.sleep(LIFE_S * chance.random())
                gputap.kill()
            if number % 5 == 4:
                taken = capture([job.pid], tmp_path / f"{number}", lambda: job.more(2000))
                compared = Compared(taken, job.truth())
                compared.check()
                captured += len(compared.captured)
        losses = job.stop()
    with SimWorkload(
        "mlp", "--steps", str(len(losses)), log=tmp_path / "alone", record_losses=True
    ) as job:
        assert losses == job.wait(timeout_s=1800)
    cycles.keep(
        "device_kills",
        {"simulated": True, "killed": KILLS, "captured_after": captured, "steps": len(losses)},
    )
