"""Level `device` where CUPTI is old, absent, held, lossy, slow or stuck: the target runs on."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from gputap.injectors.attach import inject
from gputap.injectors.built import AGENT, built
from gputap.injectors.library.client import AgentClient, WindowConfig
from gputap.injectors.library.device import DeviceConfig, state_of, switch_off, switch_on
from gputap.injectors.tap import AgentTap
from gputap.profiler.schema import DeviceState
from gputap.profiler.store import Capture
from tests.simulated import Compared, SimWorkload, capture, stack, until, until_recording
from tests.tapped import GPUTAP
from tests.told import Told

MUCH = 4000
"""Operations of the device."""

pytestmark = pytest.mark.usefixtures("simulated_gpu")


@pytest.fixture(scope="module")
def simulated_gpu() -> None:
    stack()


def with_faults(faults: str) -> dict[str, str]:
    return {"SIMGPU_FAULTS": faults}


def taken_with(faults: str, tmp_path: Path, device: DeviceConfig | None = None) -> Capture:
    """A capture of an MLP under faults; the job must go on and end well."""
    with SimWorkload("mlp", log=tmp_path / "truth", env=with_faults(faults)) as job:
        taken = capture([job.pid], tmp_path / "capture", lambda: job.more(MUCH), device=device)
        job.more(100)
        job.stop()
    return taken


@pytest.mark.parametrize(
    ("cuda", "version"),
    [
        ("12", "12.0"),
        ("12", "12.4"),
        ("12", "12.5"),
        ("12", "12.9"),
        ("13", "13.0"),
        ("13", "13.1"),
        ("13", "13.3"),
        ("13", "13.5"),
    ],
)
def test_every_version_of_the_records(cuda: str, version: str, tmp_path: Path) -> None:
    env = {"SIMGPU_CUDA": cuda, "SIMGPU_CUPTI_VERSION": version}
    with SimWorkload("mlp", log=tmp_path / "truth", env=env) as job:
        taken = capture([job.pid], tmp_path / "capture", lambda: job.more(MUCH))
        job.stop()
        compared = Compared(taken, job.truth())
    compared.check()
    device = taken.manifest.ranks[0].device
    assert device is not None
    # 11.8, 12.0 and 12.1 share a number, and their records' sizes from 12.0 on.
    assert device.cuda == {"12.0": "12.1"}.get(version, version)
    called = taken.query("SELECT name, count(*) AS n FROM cuda_api GROUP BY name").to_pylist()
    counts = {row["name"]: row["n"] for row in called}
    assert counts["cudaLaunchKernel"] > 100
    # Of a call at the very edge of the window the inner half alone may be there.
    inner = [name for name in counts if name.startswith("cu") and not name.startswith("cuda")]
    assert sum(counts[name] for name in inner) <= 2
    joined = taken.query("SELECT count(*) AS n FROM launches WHERE operator IS NOT NULL")
    assert joined.to_pylist()[0]["n"] > 100


def test_dropped_records_are_counted(tmp_path: Path) -> None:
    with SimWorkload("mlp", log=tmp_path / "truth", env=with_faults("drop=0.05")) as job:
        taken = capture([job.pid], tmp_path / "capture", lambda: job.more(MUCH))
        job.stop()
        compared = Compared(taken, job.truth())
    dropped = taken.manifest.ranks[0].dropped["device_by_cupti"]
    assert dropped >= len(compared.missing()) > 0
    assert not compared.invented()
    assert not compared.wrong()


def test_records_without_times_end_the_recording_and_are_not_kept(tmp_path: Path) -> None:
    taken = taken_with("zero_timestamps=500", tmp_path)
    rank = taken.manifest.ranks[0]
    assert rank.device is not None
    assert rank.device.left_out["zero_times"] >= 1000
    assert any("without times" in reason for reason in rank.level_reasons)
    assert not taken.query("SELECT * FROM device WHERE start_ns < 1e18").num_rows


def test_a_window_ends_with_its_number_of_records(tmp_path: Path) -> None:
    taken = taken_with("", tmp_path, DeviceConfig(record_limit=3000))
    rank = taken.manifest.ranks[0]
    assert rank.level == "device"
    assert any("used up" in reason for reason in rank.level_reasons)
    assert 3000 <= taken.table("device").num_rows + taken.table("cuda_api").num_rows < 60_000


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("refuse_subscribe=39", "another profiler holds CUPTI"),
        ("refuse_subscribe=999", "cuptiSubscribe returned 999"),
        ("refuse_subscribe=15", "NOT_INITIALIZED"),
        ("refuse_subscribe=7", "CUPTI failed"),
    ],
)
def test_a_refusal_leaves_level_framework_and_says_why(
    fault: str, words: str, tmp_path: Path
) -> None:
    taken = taken_with(fault, tmp_path)
    rank = taken.manifest.ranks[0]
    assert rank.level == "framework"
    assert any(words in reason for reason in rank.level_reasons)
    assert rank.events > 1000


def test_names_that_are_freed_after_their_buffer_are_right(tmp_path: Path) -> None:
    with SimWorkload("mlp", log=tmp_path / "truth", env=with_faults("names_freed")) as job:
        taken = capture([job.pid], tmp_path / "capture", lambda: job.more(MUCH))
        job.stop()
        compared = Compared(taken, job.truth())
    compared.check()


def test_buffers_that_come_late_are_still_in_the_capture(tmp_path: Path) -> None:
    with SimWorkload("mlp", log=tmp_path / "truth", env=with_faults("late_flush=100ms")) as job:
        taken = capture([job.pid], tmp_path / "capture", lambda: job.more(MUCH))
        job.stop()
        compared = Compared(taken, job.truth())
    compared.check()


def test_a_step_of_the_systems_clock_is_seen(tmp_path: Path) -> None:
    for delay in (8, 20, 60):
        began = time.monotonic()
        faults = f"clock_step=-5s,clock_step_after={delay}s"
        log = tmp_path / f"truth{delay}"
        with SimWorkload("mlp", log=log, env=with_faults(faults)) as job:
            if time.monotonic() - began > delay / 2:
                continue  # a busy machine: it might be over before we are in

            def during(job: SimWorkload = job) -> None:
                seen = [job.now_ns()]
                # Five seconds back, one of them at least is noticed whenever we look.
                until(lambda: seen.append(job.now_ns()) or seen[-1] < max(seen) - 10**9)
                until_recording(job.pid)
                job.more(MUCH)

            taken = capture([job.pid], tmp_path / "capture", during)
            job.stop()
            break
    rank = taken.manifest.ranks[0]
    assert rank.device is not None
    assert rank.device.clock_steps == 1
    assert rank.window_start_ns is not None and rank.window_end_ns is not None
    start, end = rank.window_start_ns, rank.window_end_ns
    rows = taken.query(
        f"SELECT count(*) AS n, count(*) FILTER (start_ns BETWEEN {start} AND {end}) AS inside"
        " FROM device"
    ).to_pylist()[0]
    assert rows["inside"] > 0.99 * rows["n"]


def test_a_slow_start_is_waited_for(tmp_path: Path) -> None:
    taken = taken_with("slow_enable=1s", tmp_path)
    assert taken.manifest.level == "device"


def test_a_cupti_that_hangs_costs_the_target_nothing(tmp_path: Path) -> None:
    with SimWorkload("mlp", log=tmp_path / "truth", env=with_faults("hang_disable")) as job:
        taken = capture([job.pid], tmp_path / "capture", lambda: job.more(MUCH))
        assert taken.table("device").num_rows > 100
        assert any("not" in reason for reason in taken.manifest.level_reasons)
        job.more(1000)
        # The next one is told, and has its operators all the same.
        again = capture([job.pid], tmp_path / "again", lambda: job.more(MUCH))
        assert again.manifest.level == "framework"
        assert any("does not return" in reason for reason in again.manifest.level_reasons)
        assert again.manifest.ranks[0].events > 1000
        job.stop()


def test_a_cupti_that_dies_in_mid_window(tmp_path: Path) -> None:
    taken = taken_with("fail_after=500", tmp_path)
    assert taken.manifest.ranks[0].events > 1000


def test_a_target_that_exits_in_mid_window_leaves_its_kernels(tmp_path: Path) -> None:
    with SimWorkload("mlp", log=tmp_path / "truth") as job:

        def during() -> None:
            job.more(MUCH)
            job.process.terminate()  # it ends as a program does that is done
            assert job.process.wait(60) == 0

        taken = capture([job.pid], tmp_path / "capture", during)
        compared = Compared(taken, job.truth())
    assert taken.manifest.state == "closed"
    assert len(compared.captured) > 1000
    assert not compared.invented()
    assert not compared.wrong()


def test_a_target_that_is_killed_in_mid_window_leaves_what_had_come(tmp_path: Path) -> None:
    with SimWorkload("mlp", log=tmp_path / "truth") as job:

        def kill() -> None:
            job.more(MUCH)
            os.kill(job.pid, signal.SIGKILL)
            job.process.wait(60)

        taken = capture([job.pid], tmp_path / "capture", kill)
        compared = Compared(taken, job.truth())
    assert len(compared.captured) > 100
    assert not compared.invented()
    assert not compared.wrong()


def test_a_killed_gputap_leaves_cupti_to_others(tmp_path: Path) -> None:
    with SimWorkload("mlp", log=tmp_path / "truth") as job:
        for _ in range(3):
            out = tmp_path / "killed"
            command = [*GPUTAP, "attach", str(job.pid), "-d", "60s", "-o", str(out), "--overwrite"]
            with subprocess.Popen(command, stderr=subprocess.DEVNULL) as gputap:
                until(lambda out=out: any(out.glob("events/**/*.parquet")) or _is_on(job.pid))
                gputap.kill()
        until(lambda: not _is_tapped(job.pid))
        taken = capture([job.pid], tmp_path / "capture", lambda: job.more(MUCH))
        assert (taken.manifest.level, taken.manifest.level_reasons) == ("device", ())
        job.stop()


def _threads(pid: int) -> list[str]:
    names = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):  # it has just ended
            names.append((task / "comm").read_text().strip())
    return names


def _is_tapped(pid: int) -> bool:
    return any(name.startswith("gputap") for name in _threads(pid))


def _is_on(pid: int) -> bool:
    return "gputap-device" in _threads(pid)


def test_attach_and_detach_again_and_again(tmp_path: Path) -> None:
    with SimWorkload("mlp", log=tmp_path / "truth") as job:
        for cycle in range(10):
            taken = capture([job.pid], tmp_path / f"{cycle}", lambda: job.more(500))
            assert taken.manifest.level == "device", taken.manifest.level_reasons
        assert not _is_tapped(job.pid)
        job.stop()


def test_nothing_of_the_gpu_is_touched_at_level_framework(tmp_path: Path) -> None:
    with SimWorkload("mlp", log=tmp_path / "truth") as job:
        tap = AgentTap(job.pid, WindowConfig())
        try:
            tap.prepare()
            assert not tap.wants_device
            assert state_of(tap.memory) is DeviceState.OFF
            assert not _is_on(job.pid)
        finally:
            tap.detach()
        job.stop()


def test_cuda_that_is_loaded_in_mid_window_is_recorded(tmp_path: Path) -> None:
    with Told("late_cuda.py", log=tmp_path / "truth") as job:
        job("load")

        def during() -> None:
            job("init")
            until_recording(job.pid)
            job("steps 50")

        taken = capture([job.pid], tmp_path / "capture", during)
        compared = Compared(taken, job.truth())
    assert taken.manifest.level == "device"
    assert not compared.invented()
    assert not compared.wrong()
    assert len(compared.captured) >= 50


def test_cuda_is_never_initialised_in_the_targets_place(tmp_path: Path) -> None:
    with Told("late_cuda.py", log=tmp_path / "truth") as job:
        job("load")
        taken = capture([job.pid], tmp_path / "capture", lambda: time.sleep(0.5))
        rank = taken.manifest.ranks[0]
        assert rank.level == "framework"
        assert any("not initialised CUDA" in reason for reason in rank.level_reasons)
        # A process that had CUDA initialised for it could not hand it to its children.
        assert job("fork") == 0
        job("init")
        job("steps 3")


def test_a_process_without_cuda_is_not_asked_again_and_again(tmp_path: Path) -> None:
    with Told("late_cuda.py", log=tmp_path / "truth") as job:
        tap = AgentTap(job.pid, WindowConfig(), device=DeviceConfig())
        try:
            assert not tap.wants_device
            assert tap.reasons == ("the process uses no CUDA device",)
        finally:
            tap.detach()


def test_a_child_forked_in_mid_window_is_no_part_of_it(tmp_path: Path) -> None:
    with Told("late_cuda.py", log=tmp_path / "truth") as job:
        job("load")
        job("init")

        def during() -> None:
            for _ in range(20):
                job("steps 3")
                assert job("fork") == 0

        taken = capture([job.pid], tmp_path / "capture", during)
        compared = Compared(taken, job.truth())
    compared.check()


def test_the_gpu_can_be_let_alone_for_a_while_within_a_session(tmp_path: Path) -> None:
    with SimWorkload("mlp", log=tmp_path / "truth") as job:
        client = AgentClient(job.pid, inject(job.pid, agent=built(AGENT)).control_fd)
        try:
            client.configure(None, None)
            for _ in range(3):
                assert switch_on(client, DeviceConfig()) is DeviceState.ON
                before = client.memory.get("device_records")
                until(lambda before=before: client.memory.get("device_records") > before + 1000)
                assert switch_off(client) is DeviceState.OFF
                after = client.memory.get("device_records")
                job.more(1000)
                assert client.memory.get("device_records") == after
        finally:
            client.detach()
        job.stop()
