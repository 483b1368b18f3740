"""The target's own profiler comes first: it works while we are attached, and we come back after."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.simulated import Compared, capture, stack, until_recording
from tests.told import TARGETS, Told


@pytest.fixture(scope="module")
def profiler(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("profiler") / "own_profiler.so")


@pytest.fixture(scope="module")
def torchs_profiler(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, passing for torch's own."""
    return built(tmp_path_factory.mktemp("torchs") / "libtorch_profiler.so")


def built(out: Path) -> Path:
    libraries, _ = stack()
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    source = str(TARGETS / "own_profiler.c")
    link = ["-L", str(libraries), "-l:libcupti.so.13", f"-Wl,-rpath,{libraries}"]
    subprocess.run(
        ["cc", "-Wall", "-Werror", "-shared", "-fPIC", source, "-o", str(out), *link], check=True
    )
    return out


class Job(Told):
    """A job that can profile itself."""

    def profile(self, steps: int) -> None:
        """A whole profile: it must see exactly what the device does, and nothing else."""
        assert self("open") == 0
        assert self("start") == 0
        did = self.did(lambda: self(f"steps {steps}"))
        assert self("stop") == 0
        assert tuple(self("count")) == did
        assert did[0] > steps


@pytest.fixture
def job(profiler: Path, tmp_path: Path) -> Iterator[Job]:
    with Job("profiles_itself.py", profiler, log=tmp_path / "truth") as started:
        yield started


def batched(marks: list[int]) -> Iterator[tuple[int, int]]:
    return zip(marks[::2], marks[1::2], strict=True)


def test_the_targets_profiler_works_without_us(job: Job) -> None:
    job.profile(3)
    job.profile(2)
    assert job("close") == 0


@pytest.mark.parametrize("closes", [True, False])
def test_a_profile_in_mid_window_is_whole_and_we_come_back(
    closes: bool, job: Job, tmp_path: Path
) -> None:
    marks: list[int] = []

    def during() -> None:
        job("steps 20")
        for _ in range(2):
            marks.append(time.time_ns())
            job.profile(5)
            if closes:
                assert job("close") == 0
            marks.append(time.time_ns())
            until_recording(job.pid)
            job("steps 20")

    taken = capture([job.pid], tmp_path / "capture", during)
    rank = taken.manifest.ranks[0]
    assert (rank.level, rank.dropped) == ("device", {})
    assert rank.device is not None
    assert rank.device.yields == 2
    compared = Compared(taken, job.truth())
    assert not compared.invented()
    assert not compared.wrong()
    theirs = [
        key
        for key in compared.missing()
        if not any(a <= compared.did[key].start_ns <= b for a, b in batched(marks))
    ]
    assert not theirs, "lost outside of the target's own profiles"
    assert len(compared.captured) > 3 * 20 * 5
    # And after us it has CUPTI as before.
    job.profile(4)


def test_a_profile_that_began_before_us_is_left_alone(job: Job, tmp_path: Path) -> None:
    assert job("open") == 0
    assert job("start") == 0
    done: list[tuple[int, int]] = []
    taken = capture(
        [job.pid],
        tmp_path / "capture",
        lambda: done.append(job.did(lambda: job("steps 10"))),
    )
    assert job("stop") == 0
    assert tuple(job("count")) == done[0]
    rank = taken.manifest.ranks[0]
    assert rank.level == "framework"
    assert any("another profiler holds CUPTI" in reason for reason in rank.level_reasons)
    assert job("close") == 0


def test_we_take_our_turn_when_the_other_ends(job: Job, tmp_path: Path) -> None:
    assert job("open") == 0
    assert job("start") == 0

    def during() -> None:
        job("steps 5")
        assert job("stop") == 0
        assert job("close") == 0
        until_recording(job.pid)
        job("steps 20")

    taken = capture([job.pid], tmp_path / "capture", during)
    assert taken.manifest.level == "device"
    compared = Compared(taken, job.truth())
    assert not compared.invented()
    assert not compared.wrong()
    assert len(compared.captured) >= 20 * 5


def test_the_targets_calls_go_straight_to_cupti_after_us(job: Job, tmp_path: Path) -> None:
    for number in range(3):
        capture([job.pid], tmp_path / f"{number}", lambda: job("steps 3"))
        job.profile(2)
        assert job("close") == 0


def test_an_idle_profiler_of_torch_that_keeps_cupti_is_no_obstacle(
    torchs_profiler: Path, tmp_path: Path
) -> None:
    with Job("profiles_itself.py", torchs_profiler, log=tmp_path / "truth") as job:
        # As Kineto does: it never unsubscribes.
        job.profile(3)
        taken = capture([job.pid], tmp_path / "capture", lambda: job("steps 20"))
        assert (taken.manifest.level, taken.manifest.level_reasons) == ("device", ())
        Compared(taken, job.truth()).check()

        def during() -> None:
            job("steps 5")
            job.profile(5)
            until_recording(job.pid)
            job("steps 20")

        again = capture([job.pid], tmp_path / "again", during)
        rank = again.manifest.ranks[0]
        assert rank.device is not None
        assert rank.device.yields == 1
        compared = Compared(again, job.truth())
        assert not compared.invented()
        assert not compared.wrong()
        assert len(compared.captured) >= 25 * 5
        job.profile(4)


def test_a_profile_of_torch_that_has_not_ended_is_left_alone(
    torchs_profiler: Path, tmp_path: Path
) -> None:
    with Job("profiles_itself.py", torchs_profiler, log=tmp_path / "truth") as job:
        assert job("open") == 0
        assert job("start") == 0
        job("torch begin")
        done: list[tuple[int, int]] = []
        taken = capture(
            [job.pid],
            tmp_path / "capture",
            lambda: done.append(job.did(lambda: job("steps 10"))),
        )
        job("torch end")
        assert job("stop") == 0
        assert tuple(job("count")) == done[0]
        assert taken.manifest.level == "framework"
        reasons = taken.manifest.level_reasons
        assert any("another profiler holds CUPTI" in reason for reason in reasons)
