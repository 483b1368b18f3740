"""What must not happen: a hurt target, a lost capture, a traceback, a wrong exit code."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gputap.profiler.store import Capture
from tests import simulated
from tests.agent_driver import maps_of_agent
from tests.tapped import GPUTAP, capture, gputap
from tests.workload import Workload

TARGETS = Path(__file__).resolve().parents[1] / "targets"

root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@contextmanager
def started(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A gputap that runs beside the test and is ended with it."""
    process = subprocess.Popen(
        [*GPUTAP, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_until(condition: object, timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def window_is_open(pid: int, path: Path) -> bool:
    """The capture has begun: its manifest names the rank, and the agent is in the target."""
    manifest = path / "manifest.json"
    return manifest.exists() and bool(json.loads(manifest.read_text())["ranks"])


def no_traceback(done: subprocess.CompletedProcess[str]) -> bool:
    return "Traceback" not in done.stderr and "internal error" not in done.stderr


def test_attach_prints_json_and_leaves_a_capture(tmp_path: Path) -> None:
    path = tmp_path / "capture"
    with Workload("mlp") as workload:
        done = gputap("attach", workload.pid, "-d", "1s", "-o", path, "--json")
        workload.stop()
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["level"] == "framework"
    assert report["ranks"][0]["steps_found"] > 100
    assert (path / "report.html").stat().st_size > 1_000_000
    assert path.stat().st_mode & 0o077 == 0
    rows = json.loads(gputap("query", path, "SELECT count(*) AS n FROM events", "--json").stdout)
    assert rows[0]["n"] > 1000


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["attach", "999999999"], 3),
        (["attach", "0"], 3),
        (["attach", "--", "-5"], 3),
        (["attach", "abc"], 2),
        (["attach"], 2),
        (["attach", "1", "--all"], 2),
        (["attach", "1", "--full", "--steps-only"], 2),
        (["attach", "1", "-d", "soon"], 2),
        (["attach", "1", "--budget", "lots"], 2),
        (["attach", "1", "--level", "moon"], 2),
        (["report", "/nonexistent"], 1),
        (["report", "/etc"], 1),
        (["query", "/nonexistent", "SELECT 1"], 1),
        (["export", "/nonexistent", "--to", "perfetto"], 1),
        (["detach", "999999999"], 3),
        (["doctor", "999999999"], 3),
        (["frobnicate"], 2),
    ],
)
def test_nonsense_gets_a_reason_and_its_exit_code(arguments: list[str], code: int) -> None:
    done = gputap(*arguments)
    assert done.returncode == code, done.stderr
    assert done.stderr.strip()
    assert no_traceback(done)


def test_a_process_without_torch_is_refused(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        try:
            done = gputap("attach", sleeper.pid, "-d", "1s", "-o", tmp_path / "capture")
        finally:
            sleeper.kill()
    assert done.returncode == 3
    assert no_traceback(done)
    assert not (tmp_path / "capture").exists()


def test_unwritable_output_fails_before_the_target_is_touched(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    with Workload("sleeper") as workload:
        done = gputap("attach", workload.pid, "-d", "1s", "-o", file / "capture")
        maps = Path(f"/proc/{workload.pid}/maps").read_text()
        workload.stop()
    assert done.returncode == 1
    assert no_traceback(done)
    assert "gputap-agent" not in maps
    assert file.read_text() == "mine"


@root
@pytest.mark.root
def test_a_disk_that_fills_up_leaves_a_readable_capture(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=True)
    try:
        with Workload("mlp") as workload:
            done = gputap("attach", workload.pid, "-d", "4s", "--full", "-o", disk / "capture")
            assert workload.alive
            workload.stop()
        assert "disk is full" in done.stderr
        assert done.returncode == 1
        assert no_traceback(done)
        taken = Capture.open(disk / "capture")
        assert taken.manifest.state == "truncated"
        assert taken.rows("events") > 0
    finally:
        subprocess.run(["umount", disk], check=True)


def test_an_unreachable_receiver_leaves_the_capture_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "capture"
    with Workload("transformer") as workload:
        done = gputap(
            "attach", workload.pid, "-d", "1s", "-o", path, "--otlp", "http://127.0.0.1:9"
        )
        workload.stop()
    assert done.returncode == 1
    assert "127.0.0.1:9" in done.stderr
    assert no_traceback(done)
    assert Capture.open(path).manifest.state == "closed"


def test_a_corrupted_capture_gets_a_reason(tmp_path: Path) -> None:
    path = tmp_path / "capture"
    with Workload("mlp") as workload:
        assert gputap("attach", workload.pid, "-d", "1s", "-o", path).returncode == 0
        workload.stop()
    for part in path.glob("events/**/*.parquet"):
        part.write_bytes(part.read_bytes()[:-200])
    done = gputap("report", path)
    assert done.returncode in (0, 1)
    assert "damaged" in done.stderr
    assert no_traceback(done)
    (path / "manifest.json").write_text("{")
    done = gputap("report", path)
    assert done.returncode == 1
    assert no_traceback(done)


def test_a_second_gputap_is_refused_and_the_first_unharmed(tmp_path: Path) -> None:
    with Workload("mlp") as workload:
        first = tmp_path / "first"
        with started("attach", workload.pid, "-d", "60s", "-o", first) as running:
            wait_until(lambda: window_is_open(workload.pid, first))
            second = gputap("attach", workload.pid, "-d", "1s", "-o", tmp_path / "second")
            assert second.returncode == 3, second.stderr
            assert "another gputap" in second.stderr
            assert no_traceback(second)
            running.send_signal(signal.SIGINT)
            assert running.wait(60) == 0
        workload.stop()
    assert Capture.open(first).manifest.state == "closed"


def test_a_target_that_ends_leaves_what_was_captured(tmp_path: Path) -> None:
    path = tmp_path / "capture"
    with Workload("transformer") as workload:
        with started("attach", workload.pid, "-d", "60s", "--full", "-o", path) as running:
            wait_until(lambda: window_is_open(workload.pid, path))
            time.sleep(1)  # some events
            os.kill(workload.pid, signal.SIGKILL)
            _, talk = running.communicate(timeout=60)
        assert "Traceback" not in talk
        assert "internal error" not in talk
    taken = Capture.open(path)
    assert taken.rows("events") > 0
    assert "the target went" in " ".join(taken.manifest.level_reasons)


@pytest.mark.parametrize("delay_ms", [0, 100, 200, 300, 400, 600, 800, 1200])
def test_killing_gputap_never_hurts_the_target(delay_ms: int, tmp_path: Path) -> None:
    """From its start to the middle of the window; then the next attach works."""
    with Workload("mlp", record_losses=True) as workload:
        with started("attach", workload.pid, "-d", "30s", "-o", tmp_path / "killed") as running:
            time.sleep(0.3 + delay_ms / 1000)
            running.kill()
        assert workload.alive
        done = gputap("attach", workload.pid, "-d", "500ms", "-o", tmp_path / "next")
        assert done.returncode == 0, done.stderr
        assert gputap("detach", workload.pid).returncode == 0
        losses = workload.stop()
    assert losses


def test_detach_cleans_up_after_a_killed_gputap(tmp_path: Path) -> None:
    path = tmp_path / "killed"
    with Workload("mlp") as workload:
        threads = len(os.listdir(f"/proc/{workload.pid}/task"))
        with started("attach", workload.pid, "-d", "30s", "-o", path) as running:
            wait_until(lambda: window_is_open(workload.pid, path))
            running.kill()
        assert gputap("detach", workload.pid).returncode == 0
        wait_until(lambda: len(os.listdir(f"/proc/{workload.pid}/task")) == threads)
        wait_until(lambda: "gputap-ctl" not in Path(f"/proc/{workload.pid}/maps").read_text())
        workload.stop()


@root
@pytest.mark.root
def test_a_target_in_its_own_pid_and_mount_namespace(tmp_path: Path) -> None:
    path = tmp_path / "capture"
    prefix = ["unshare", "--pid", "--mount", "--fork", "--mount-proc", "--kill-child"]
    with Workload("mlp", prefix=prefix) as workload:
        done = gputap("attach", workload.pid, "-d", "1s", "-o", path)
        assert done.returncode == 0, done.stderr
        workload.stop()
    tids = set(Capture.open(path).table("events", ["tid"]).column("tid").to_pylist())
    assert tids == {workload.pid}


@root
@pytest.mark.root
def test_a_target_of_another_user(tmp_path: Path) -> None:
    prefix = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    seen = subprocess.run([*prefix, sys.executable, "-c", ""], capture_output=True, check=False)
    if seen.returncode or subprocess.run([*prefix, "test", "-r", __file__], check=False).returncode:
        pytest.skip("this checkout, or its Python, cannot be read by other users")
    with Workload("mlp", prefix=prefix) as workload:
        done = gputap("attach", workload.pid, "-d", "500ms", "-o", tmp_path / "capture")
        assert done.returncode == 0, done.stderr
        workload.stop()
    with Workload("mlp") as workload:
        refused = subprocess.run(
            [*prefix, *GPUTAP, "attach", str(workload.pid), "-o", "/tmp/never"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        workload.stop()
    assert refused.returncode == 3, refused.stderr
    assert no_traceback(refused)


def test_a_sleeping_target_and_one_that_holds_the_gil(tmp_path: Path) -> None:
    for name in ("sleeper", "gil_holder"):
        with Workload(name) as workload:
            done = gputap("attach", workload.pid, "-d", "1s", "-o", tmp_path / name)
            assert done.returncode == 0, done.stderr
            assert no_traceback(done)
            workload.stop()


def test_all_and_match_take_every_rank(tmp_path: Path) -> None:
    path = tmp_path / "capture"
    with Workload("ddp_gloo", ranks=2) as workload:
        done = gputap("attach", "--match", "ddp_gloo", "-d", "2s", "-o", path)
        assert done.returncode == 0, done.stderr
        workload.stop()
    assert [rank.rank for rank in Capture.open(path).ranks] == [0, 1]


def test_a_target_that_becomes_another_program_in_mid_window(tmp_path: Path) -> None:
    command = [sys.executable, str(TARGETS / "execs.py")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as target:
        assert target.stdout is not None and target.stdin is not None
        assert target.stdout.readline() == f"ready {target.pid}\n"

        def during() -> None:
            os.kill(target.pid, signal.SIGUSR1)
            assert target.stdout is not None
            assert target.stdout.readline() == "other\n"

        taken = capture([target.pid], tmp_path / "capture", during)
        rank = taken.manifest.ranks[0]
        assert taken.manifest.state == "closed"
        assert rank.events == taken.rows("events") > 0
        assert any("before the window's end" in reason for reason in rank.level_reasons)
        # The new program is as it would be without us.
        target.stdin.close()
        assert target.wait(30) == 0


def test_a_target_that_closes_descriptors_that_it_does_not_know(tmp_path: Path) -> None:
    shell = f"ulimit -n 4096; exec {sys.executable} {TARGETS / 'closes.py'}"
    with subprocess.Popen(["bash", "-c", shell], stdout=subprocess.PIPE, text=True) as target:
        assert target.stdout is not None
        said = target.stdout
        try:
            assert said.readline() == f"ready {target.pid}\n"

            def during() -> None:
                os.kill(target.pid, signal.SIGUSR1)
                assert said.readline() == "closed\n"

            taken = capture([target.pid], tmp_path / "capture", during)
            assert taken.rows("events") > 0
            # The agent lets go of the memory alone: its descriptor's number is a file's now.
            wait_until(lambda: not maps_of_agent(target.pid))
            os.kill(target.pid, signal.SIGUSR2)
            still, _, held = said.readline().split()
            assert still == held
            again = capture([target.pid], tmp_path / "again", lambda: None)
            assert again.manifest.state == "closed"
        finally:
            target.kill()


def test_a_program_of_libtorch_without_python(tmp_path: Path) -> None:
    """What only Python can tell is missing, and is said to be."""
    import torch
    from torch.utils import cpp_extension

    if shutil.which("c++") is None:
        pytest.skip("no C++ compiler")
    program, folder = tmp_path / "program", Path(torch.__file__).parent / "lib"
    includes = [f"-I{path}" for path in cpp_extension.include_paths()]
    abi = f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}"
    command = ["c++", "-std=c++20", "-O0", abi, *includes, str(TARGETS / "libtorch.cpp")]
    link = ["-L", str(folder), f"-Wl,-rpath,{folder}", "-ltorch_cpu", "-lc10", "-ldl"]
    subprocess.run([*command, "-o", str(program), *link], check=True, timeout=300)
    libraries = simulated.libraries()
    environment = {"LD_LIBRARY_PATH": str(libraries), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [str(program), str(libraries / "libcudart.so.13")],
        stdout=subprocess.PIPE, text=True, env=os.environ | environment,
    ) as target:  # fmt: skip
        try:
            assert target.stdout is not None
            assert target.stdout.readline() == f"ready {target.pid}\n"
            done = gputap("attach", str(target.pid), "-d", "1s", "-o", tmp_path / "capture")
            assert done.returncode == 0, done.stderr
            rank = Capture.open(tmp_path / "capture").ranks[0]
            assert rank.events > 100
            assert any("no Python" in reason for reason in rank.level_reasons)
            asked = gputap("snapshot", str(target.pid), "-o", tmp_path / "memory.pickle")
            assert (asked.returncode, "has no Python" in asked.stderr) == (1, True)
            assert target.poll() is None
        finally:
            target.kill()
