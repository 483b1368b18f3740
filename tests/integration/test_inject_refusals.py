"""Where the injector refuses: the right error, a reason, and a target unharmed."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import shutil
import signal
import struct
import subprocess
from pathlib import Path

import pytest

from gputap.injectors import attach
from gputap.profiler.errors import (
    AttachFailed,
    TargetBusy,
    TargetNotFound,
    TargetNotPermitted,
    TargetUnsupported,
    UsageError,
)
from tests.injection import Target, compiled, helper, payload, python_target

root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
NOBODY = 65534
ALLOW, ERRNO, TRAP = 0x7FFF0000, 0x50000, 0x30000
KILL_PROCESS, KILL_THREAD, USER_NOTIF = 0x80000000, 0, 0x7FC00000
SYSCALLS = {
    "mmap": 9,
    "mprotect": 10,
    "clone": 56,
    "memfd_create": 319,
    "clone3": 435,
    "tgkill": 234,
}


def test_no_such_process() -> None:
    with pytest.raises(TargetNotFound, match="no process 4194303"):
        attach.inject(4194303, agent=payload())


@pytest.mark.parametrize("pid", [0, -5, os.getpid()])
def test_no_target_at_all(pid: int) -> None:
    with pytest.raises(UsageError):
        attach.check(pid)


def test_zombie() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    with pytest.raises(TargetNotFound, match="has ended"):
        attach.inject(child, agent=payload())
    os.waitpid(child, 0)


@pytest.mark.skipif(
    not Path("/proc/2/comm").exists() or Path("/proc/2/comm").read_text() != "kthreadd\n",
    reason="sees no OS kernel threads",
)
def test_kernel_thread() -> None:
    with pytest.raises(TargetNotFound, match="thread of the kernel"):
        attach.check(2)


def test_thread_instead_of_process() -> None:
    with Target(compiled("mallocer"), "1") as target:
        tid = next(t for t in os.listdir(f"/proc/{target.pid}/task") if int(t) != target.pid)
        with pytest.raises(TargetNotFound, match=f"{tid} is a thread of process {target.pid}"):
            attach.check(int(tid))


def test_stopped_process() -> None:
    with python_target("busy.py") as target:
        os.kill(target.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, target.pid, os.WSTOPPED)
        with pytest.raises(TargetBusy, match="stopped by a signal") as caught:
            attach.inject(target.pid, agent=payload())
        assert "CONT" in str(caught.value.hint)
        os.kill(target.pid, signal.SIGCONT)
        attach.inject(target.pid, agent=payload())
        target.assert_unharmed()


def test_traced_process_names_the_tracer() -> None:
    seize = 0x4206
    with python_target("busy.py") as target:
        assert ctypes.CDLL(None).ptrace(seize, target.pid, None, None) == 0
        with pytest.raises(TargetBusy, match=rf"traced by \S+ \(pid {os.getpid()}\)"):
            attach.inject(target.pid, agent=payload())


def test_static_executable() -> None:
    with (
        Target(compiled("idle", "-static")) as target,
        pytest.raises(TargetUnsupported, match="statically linked"),
    ):
        attach.check(target.pid)


def test_program_run_through_the_loader_is_not_taken_for_static() -> None:
    with Target("/lib64/ld-linux-x86-64.so.2", compiled("idle")) as target:
        assert attach.inject(target.pid, agent=payload()).control_fd == 1001


def test_target_that_admits_no_new_code_is_left_as_it_was() -> None:
    probe = Target(compiled("idle"), "no-new-code")
    if probe.line() == "unknown":
        probe.__exit__(None, None, None)
        pytest.skip("this OS kernel has no PR_SET_MDWE")
    with contextlib.ExitStack() as stack:
        stack.push(probe.__exit__)
        before = len(probe.mappings())
        with pytest.raises(AttachFailed, match=r"memory executable \(mprotect\) failed"):
            attach.inject(probe.pid, agent=payload())
        probe.wait_for_threads(1)
        assert len(probe.mappings()) <= before + 3  # libc keeps the stack of the thread that ended
        probe.assert_unharmed(busy=False)


@root
def test_target_that_may_make_no_threads() -> None:
    with Target(compiled("idle"), "no-threads", user=NOBODY) as target:
        with pytest.raises(AttachFailed, match="made no thread") as caught:
            attach.inject(target.pid, agent=payload())
        assert "pids.max" in str(caught.value.hint)
        target.assert_unharmed(busy=False)


def elf32(path: Path) -> Path:
    """The smallest 32-bit executable that waits: pause(), again and again."""
    code = bytes.fromhex("b81d000000cd80ebf7")
    at = 0x08048000
    header = b"\x7fELF\x01\x01\x01" + bytes(9)
    header += struct.pack("<HHIIIIIHHHHHH", 2, 3, 1, at + 84, 52, 0, 0, 52, 32, 1, 0, 0, 0)
    segment = struct.pack("<IIIIIIII", 1, 0, at, at, 84 + len(code), 84 + len(code), 5, 0x1000)
    path.write_bytes(header + segment + code)
    path.chmod(0o755)
    return path


def test_32_bit_process(tmp_path: Path) -> None:
    try:
        process = subprocess.Popen([elf32(tmp_path / "tiny")])
    except OSError as error:
        assert error.errno == errno.ENOEXEC
        pytest.skip("this OS kernel runs no 32-bit programs")
    try:
        with pytest.raises(TargetUnsupported, match="32-bit"):
            attach.check(process.pid)
    finally:
        process.kill()
        process.wait()


# ------------------------------------------------------------------------------- permission


def as_nobody(target: Target, tmp_path: Path) -> dict[str, str]:
    """What the helper, run by nobody, answers about `target`."""
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents[:2]:
        parent.chmod(0o755)
    copy = shutil.copy(attach.binary(), tmp_path / "gputap-inject")
    done = subprocess.run(
        [copy, "--pid", str(target.pid), "--dry-run"],
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        capture_output=True,
        timeout=30,
        check=False,
    )
    answer: dict[str, str] = json.loads(done.stdout)
    return answer


@root
def test_another_users_process(tmp_path: Path) -> None:
    with python_target("busy.py") as target:
        answer = as_nobody(target, tmp_path)
        assert answer["error"] == "not_permitted"
        assert "belongs to uid 0" in answer["detail"]
        assert f"runs as uid {NOBODY} without CAP_SYS_PTRACE" in answer["detail"]
        target.assert_unharmed()


@root
def test_own_but_undumpable_process(tmp_path: Path) -> None:
    with Target(compiled("idle"), "undumpable", user=NOBODY) as target:
        answer = as_nobody(target, tmp_path)
        assert answer["error"] == "not_permitted"
        assert "not dumpable" in answer["detail"]


@root
def test_root_enters_another_users_process() -> None:
    with Target(compiled("idle"), user=NOBODY) as target:
        assert attach.inject(target.pid, agent=payload()).control_fd == 1001
        assert attach.inject(target.pid, agent=payload()).reused


# ---------------------------------------------------------------------------------- seccomp


def filtered(call: str, answer: int) -> Target:
    return Target(compiled("filtered"), str(SYSCALLS[call]), hex(answer))


def wait_for_filter(target: Target) -> None:
    while target.status("Seccomp") != "2":
        assert target.process.poll() is None


@root
@pytest.mark.parametrize("call", ["memfd_create", "clone3", "mprotect", "tgkill"])
@pytest.mark.parametrize("answer", [KILL_PROCESS, KILL_THREAD, TRAP])
def test_filter_that_would_kill(call: str, answer: int) -> None:
    with filtered(call, answer) as target:
        wait_for_filter(target)
        with pytest.raises(TargetNotPermitted, match=f"would kill it for {call}"):
            attach.inject(target.pid, agent=payload())
        with pytest.raises(TargetNotPermitted, match=f"would kill it for {call}"):
            attach.check(target.pid)
        target.assert_unharmed()


@root
@pytest.mark.parametrize(
    ("call", "answer", "text"),
    [
        ("mmap", ERRNO | errno.EPERM, "forbid it mmap"),
        ("clone3", ERRNO | errno.EPERM, "forbid it clone3"),
        ("memfd_create", USER_NOTIF, "ask a supervisor about memfd_create"),
    ],
)
def test_filter_that_denies_what_is_needed(call: str, answer: int, text: str) -> None:
    with filtered(call, answer) as target:
        wait_for_filter(target)
        with pytest.raises(TargetNotPermitted, match=text):
            attach.inject(target.pid, agent=payload())
        target.assert_unharmed()


@root
@pytest.mark.parametrize(
    ("call", "answer"),
    [("memfd_create", ERRNO | errno.EPERM), ("clone3", ERRNO | errno.ENOSYS), ("clone3", ALLOW)],
)
def test_filter_that_can_be_lived_with(call: str, answer: int) -> None:
    with filtered(call, answer) as target:
        wait_for_filter(target)
        assert attach.inject(target.pid, agent=payload()).control_fd == 1001
        assert attach.inject(target.pid, agent=payload()).reused
        target.assert_unharmed()


@root
def test_filter_that_cannot_be_read() -> None:
    weaker = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"]
    with filtered("clone3", ERRNO | errno.ENOSYS) as target:
        wait_for_filter(target)
        agent = ["--agent", str(payload())]
        refused = json.loads(helper(target.pid, *agent, command=weaker).stdout)
        assert refused["error"] == "seccomp_unknown"
        trusted = json.loads(helper(target.pid, *agent, "--trust-seccomp", command=weaker).stdout)
        assert trusted["control_fd"] == 1001
        target.assert_unharmed()


# ------------------------------------------------------------------------------- containers


@root
def test_own_pid_and_mount_namespace() -> None:
    busy = Path(__file__).parents[1] / "targets" / "busy.py"
    command = ["unshare", "--pid", "--mount", "--fork", "--mount-proc", "--kill-child"]
    with Target(*command, "/usr/bin/env", "python3", busy) as outer:
        children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()
        inner = int(children[0])
        assert attach.inject(inner, agent=payload()).control_fd == 1001
        assert attach.inject(inner, agent=payload()).reused


@pytest.fixture
def jail(tmp_path: Path) -> Path:
    """A root directory that holds a program and its libraries, and no /proc."""
    program = compiled("idle")
    listed = subprocess.run(
        ["ldd", str(program)], capture_output=True, text=True, check=True
    ).stdout
    for word in [str(program), *listed.split()]:
        if word.startswith("/"):
            copy = tmp_path / word[1:]
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(word, copy)
    shutil.copy(program, tmp_path / "idle")
    return tmp_path


@root
def test_container_without_proc_gets_a_copy_in_tmp(jail: Path) -> None:
    shutil.rmtree(jail / "tmp")
    (jail / "tmp").mkdir()
    with Target("chroot", jail, "/idle") as target:
        assert attach.inject(target.pid, agent=payload()).control_fd == 1001
        assert list((jail / "tmp").iterdir()) == []
        assert attach.inject(target.pid, agent=payload()).reused


@root
def test_container_cannot_lead_us_out_of_its_root(
    jail: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    shutil.rmtree(jail / "tmp")
    (jail / "tmp").symlink_to(elsewhere)
    with Target("chroot", jail, "/idle") as target:
        with pytest.raises(AttachFailed, match="could not load the agent"):
            attach.inject(target.pid, agent=payload())
        assert list(elsewhere.iterdir()) == []
        target.assert_unharmed(busy=False)
