"""Long proof: one capture of ten minutes in default mode stays small, whole and in its budget."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from gputap.injectors.library.client import WindowConfig
from gputap.profiler.store import Capture
from tests import cycles
from tests.tapped import GPUTAP
from tests.workload import Workload

pytestmark = pytest.mark.soak

SECONDS = int(os.environ.get("GPUTAP_SOAK_SECONDS", "600"))
USER_COST_NS = 1500
"""The agent's own price of a user scope."""


def rss_kb(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("VmRSS:")), 0)


def capture_of(pid: int, path: Path) -> list[int]:
    """gputap's resident memory, second by second, until its window ends."""
    seen = []
    command = [*GPUTAP, "attach", str(pid), "-d", f"{SECONDS}s", "-o", str(path)]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as gputap:
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            assert gputap.poll() is None
            seen.append(rss_kb(gputap.pid))
            time.sleep(1)
        _, talk = gputap.communicate(timeout=600)
    assert gputap.returncode == 0, talk
    return seen


def price_ns(taken: Capture) -> int:
    """What the recorded events cost by the prices that the budget is kept with."""
    prices = WindowConfig()
    rows = taken.query("SELECT kind, count(*) AS n FROM events GROUP BY kind").to_pylist()
    counts: dict[str, int] = {row["kind"]: row["n"] for row in rows}
    user = counts.pop("user_scope", 0)
    counts.pop("gc", 0)
    armed = taken.manifest.ranks[0].armed_events
    operators = sum(counts.values())
    return operators * prices.event_cost_ns + armed * prices.armed_cost_ns + user * USER_COST_NS


def test_ten_minutes_in_default_mode(tmp_path: Path) -> None:
    path = tmp_path / "capture"
    with Workload("mlp") as workload:
        seen = capture_of(workload.pid, path)
        workload.stop()
    taken = Capture.open(path)
    rank = taken.manifest.ranks[0]
    spent = price_ns(taken) / rank.window_ns
    early, late = max(seen[: len(seen) // 4]), max(seen[len(seen) // 2 :])
    cycles.keep(
        "long_capture",
        {
            "seconds": SECONDS,
            "events": rank.events,
            "bursts": rank.bursts,
            "steps_seen": rank.boundaries,
            "dropped": rank.dropped,
            "rss_mb": {"first_quarter": early / 1024, "second_half": late / 1024},
            "spent_percent_by_price": 100 * spent,
            "bytes": sum(part.bytes for part in taken.manifest.parts),
        },
    )
    assert set(rank.dropped) <= {"late_end"}
    assert rank.bursts > SECONDS / 30
    assert late <= early + 16 * 1024
    assert late <= 250 * 1024
    assert spent <= 1.1 * WindowConfig().budget_ppm / 1e6
