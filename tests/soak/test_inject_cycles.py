"""Long proofs of the injector: thousands of attaches without a failure, and nothing that grows."""

from __future__ import annotations

import json
import random
import struct
import subprocess
import time
from pathlib import Path

import pytest

from gputap.injectors import attach
from tests.injection import Target, compiled, payload, python_target

pytestmark = pytest.mark.soak


def report(name: str, pauses_ns: list[int], stops: list[int]) -> None:
    """One JSON line: what docs/overhead.md quotes."""
    ordered = sorted(pauses_ns)
    at = {f"p{p}": ordered[min(len(ordered) - 1, len(ordered) * p // 100)] for p in (50, 90, 99)}
    print(
        json.dumps(
            {
                "soak": name,
                "attaches": len(ordered),
                "pause_ns": at | {"max": ordered[-1]},
                "stops_mean": sum(stops) / len(stops),
                "stops_max": max(stops),
            }
        )
    )


def cycle(name: str, target: Target, count: int) -> None:
    answers = []
    for _ in range(count):
        answers.append(attach.inject(target.pid, agent=payload(), timeout_s=60))
        assert target.process.poll() is None
    report(name, [a.pause_ns for a in answers], [a.stops for a in answers])
    assert [a.control_fd for a in answers] == list(range(1001, 1001 + count))
    target.assert_unharmed()


def resources(target: Target) -> dict[str, int]:
    return {
        "threads": target.threads(),
        "descriptors": target.descriptors(),
        "mappings": len(target.mappings()),
        "rss_kb": int(target.status("VmRSS").split()[0]),
    }


def test_thousand_attaches_to_training_threads() -> None:
    with python_target("train_threads.py", "3") as target:
        cycle_start = attach.inject(target.pid, agent=payload())
        assert not cycle_start.reused
        for _ in range(20):
            attach.inject(target.pid, agent=payload())
        before = resources(target)
        answers = []
        for _ in range(1000):
            answers.append(attach.inject(target.pid, agent=payload(), timeout_s=60))
            assert target.process.poll() is None
        time.sleep(1)
        after = resources(target)
        report("training, 3 threads", [a.pause_ns for a in answers], [a.stops for a in answers])
        print(json.dumps({"before": before, "after": after}))
        target.assert_unharmed()
        assert after["threads"] <= before["threads"]
        assert after["descriptors"] == before["descriptors"]
        assert after["mappings"] <= before["mappings"] + 20
        assert after["rss_kb"] <= before["rss_kb"] + 8192


def test_two_hundred_attaches_to_single_threaded_training() -> None:
    with python_target("train.py", "0") as target:
        cycle("training, 1 thread", target, 200)


@pytest.mark.parametrize("threads", ["0", "3"])
def test_two_hundred_attaches_inside_malloc(threads: str) -> None:
    with Target(compiled("mallocer"), threads) as target:
        cycle(f"malloc, {threads} more threads", target, 200)


def test_two_hundred_attaches_inside_the_loader() -> None:
    libraries = [payload(f"-DBUILD_ID={n}") for n in (900, 901)]
    with Target(compiled("dlopener"), *libraries) as target:
        cycle("dlopen", target, 200)


def test_two_hundred_first_loads(tmp_path: Path) -> None:
    library = payload().read_bytes()
    stamp = struct.pack("<QQ", 1, 77)
    assert library.count(stamp) == 1
    with python_target("train_threads.py", "2") as target:
        for build in range(200):
            other = tmp_path / "agent.so"
            other.write_bytes(library.replace(stamp, struct.pack("<QQ", 1, 1000 + build)))
            assert not attach.inject(target.pid, agent=other, timeout_s=60).reused
        target.assert_unharmed()
        assert target.descriptors() < 50


def test_injector_killed_at_random() -> None:
    killed = 0
    with python_target("train_threads.py", "2") as target:
        for _ in range(400):
            process = subprocess.Popen(
                [attach.binary(), "--pid", str(target.pid), "--agent", str(payload())],
                stdout=subprocess.DEVNULL,
            )
            time.sleep(random.uniform(0, 0.012))
            process.kill()
            killed += process.wait() < 0
            assert target.process.poll() is None
        assert killed > 50
        target.assert_unharmed()
        assert attach.inject(target.pid, agent=payload()).control_fd > 1000
