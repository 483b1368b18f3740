"""Which processes are the job, and which only help it."""

from __future__ import annotations

from pathlib import Path

import pytest

from gputap.profiler import discovery
from gputap.profiler.discovery import find, scan
from gputap.profiler.errors import UsageError
from tests.fake_proc import GLIBC, PYTHON, FakeProc, ourselves

SERVER = (
    "python",
    "-c",
    "import sys; from multiprocessing.forkserver import main; main(3)",
    "t.py",
)
SPAWNED = ("python", "-c", "from multiprocessing.spawn import spawn_main", "--multiprocessing-fork")


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeProc:
    monkeypatch.setattr(discovery, "ourselves", lambda proc: ourselves())
    return FakeProc(tmp_path)


def roles(proc: FakeProc) -> dict[int, str]:
    return {found.target.pid: found.role for found in scan(proc=proc.path).found}


def pids(proc: FakeProc, match: str | None = None) -> list[int]:
    return [target.pid for target in find(match=match, proc=proc.path)]


def test_only_pytorch_processes_are_found(proc: FakeProc) -> None:
    proc.add(40, mapped=(PYTHON, GLIBC))
    proc.add(41)
    proc.add(42, mapped=(PYTHON, "/libtorch/notes.txt"))
    assert roles(proc) == {41: "main"}


def test_we_do_not_find_ourselves(proc: FakeProc) -> None:
    proc.add(1)
    assert roles(proc) == {}


def test_forked_workers_are_told_from_ranks_that_were_started(proc: FakeProc) -> None:
    proc.add(40, image=1)
    rank = {"RANK": "0"}
    proc.add(41, ppid=40, image=2, environ=rank)
    proc.add(42, ppid=41, image=2, environ=rank)
    proc.add(43, ppid=41, image=3, environ=rank, name="pt_data_worker")
    assert roles(proc) == {40: "launcher", 41: "main", 42: "worker", 43: "worker"}


def test_forked_ranks_that_communicate_are_kept(proc: FakeProc) -> None:
    proc.add(40)
    proc.add(41, ppid=40, threads={41: "python", 50: "pt_gloo_runloop"})
    assert roles(proc) == {40: "launcher", 41: "main"}


def test_fork_server_is_no_rank_and_what_it_forks_may_be_one(proc: FakeProc) -> None:
    """Python 3.14's usual way. The server maps torch where the job's main module is preloaded."""
    proc.add(40, argv=("python", "t.py"), threads={40: "python", 60: "pt_autograd_0"})
    proc.add(41, ppid=40, image=2, argv=SERVER)
    proc.add(42, ppid=41, image=2, argv=SERVER, name="pt_data_worker")
    proc.add(43, ppid=41, image=2, argv=SERVER)
    proc.add(44, ppid=41, image=2, argv=SERVER, threads={44: "python", 61: "pt_gloo_runloop"})
    assert roles(proc) == {40: "main", 41: "helper", 42: "worker", 43: "worker", 44: "main"}


def test_fork_server_without_torch_is_known_by_its_command_line(proc: FakeProc) -> None:
    proc.add(41, argv=SERVER, mapped=(PYTHON, GLIBC))
    proc.add(43, ppid=41, image=2, argv=SERVER)
    assert roles(proc) == {43: "worker"}


def test_spawned_ranks_and_their_launcher(proc: FakeProc) -> None:
    proc.add(40, argv=("python", "ddp.py"))
    proc.add(41, ppid=40, image=2, argv=SPAWNED, threads={41: "python", 50: "pt_nccl_watchdg"})
    proc.add(42, ppid=40, image=3, argv=SPAWNED)
    assert roles(proc) == {40: "launcher", 41: "main", 42: "main"}
    assert pids(proc, "ddp") == [41, 42]


@pytest.mark.parametrize(
    ("argv", "role"),
    [
        (("/usr/bin/python", "/venv/bin/torchrun", "--nproc-per-node=2", "t.py"), "launcher"),
        (("python", "-m", "torch.distributed.run", "t.py"), "launcher"),
        (("python", "/x/torch/_inductor/compile_worker/__main__.py"), "helper"),
        (("/x/torch/bin/torch_shm_manager",), "helper"),
        (("python", "train_torchrun.py"), "main"),
    ],
)
def test_launchers_and_helpers_by_their_command(
    proc: FakeProc, argv: tuple[str, ...], role: str
) -> None:
    proc.add(41, argv=argv)
    assert roles(proc) == {41: role}


def test_ranks_come_in_order(proc: FakeProc) -> None:
    for pid, rank in ((41, "2"), (42, "0"), (43, "10"), (44, "1")):
        proc.add(pid, image=pid, environ={"RANK": rank})
    proc.add(45)
    assert pids(proc) == [45, 42, 44, 41, 43]


def test_match_looks_at_command_and_name_with_secrets_masked(proc: FakeProc) -> None:
    proc.add(41, argv=("python", "train.py", "--token", "hush"))
    proc.add(42, name="VLLM::Engine", argv=("VLLM::Engine",))
    assert pids(proc, r"train\.py") == [41]
    assert pids(proc, "VLLM") == [42]
    assert pids(proc, "hush") == []
    with pytest.raises(UsageError, match="regular expression"):
        find(match="(", proc=proc.path)


def test_hidden_processes_are_counted(proc: FakeProc) -> None:
    proc.add(41, mapped=None)
    proc.add(42, mapped=None, argv=())
    assert scan(proc=proc.path).hidden == 1


def test_half_gone_process_is_left_out(proc: FakeProc) -> None:
    (proc.add(41) / "stat").write_text("")
    proc.add(42)
    (proc.path / "43").mkdir()
    assert pids(proc) == [42]
