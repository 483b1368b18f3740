"""Looking at real processes from outside: what is seen is right, and nothing is disturbed."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from gputap.profiler import binaries
from gputap.profiler.discovery import find, scan
from gputap.profiler.doctor import diagnose, to_json
from gputap.profiler.errors import TargetBusy, TargetNotFound
from gputap.profiler.procfs import Mapping, Process
from gputap.profiler.target import Target, inspect, require, thread_map
from tests.workload import Workload, descendants

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
UNSHARE = ["unshare", "--pid", "--mount", "--fork", "--mount-proc"]
DEADLINE_S = 20


@contextmanager
def started(*command: str, ready: bool = True, **options: object) -> Iterator[int]:
    """A process, known to run its own code once it has written a line."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, **options)  # type: ignore[call-overload]
    try:
        if ready:
            assert select.select([process.stdout], [], [], DEADLINE_S)[0], "no line in time"
            assert process.stdout.readline()
        yield process.pid
    finally:
        process.kill()
        process.wait(DEADLINE_S)
        process.stdout.close()


def script(text: str) -> list[str]:
    rest = "print('ready', flush=True)\nimport time; time.sleep(60)"
    return [sys.executable, "-c", f"{text}\n{rest}"]


def compile_c(folder: Path, source: str, *flags: str) -> Path:
    program = folder / "program"
    command = ["cc", "-x", "c", "-", "-o", str(program), *flags]
    done = subprocess.run(command, input=source.encode(), capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot compile: {done.stderr.decode()[-200:]}")
    return program


READY_C = '#include <unistd.h>\nint main(void) { write(1, "ready\\n", 6); sleep(60); return 0; }'

# Without headers and libraries, which few machines have for 32 bits. With an argument it ends.
READY_I386 = """
static int call(int number, int a, const void *b, int c) {
  int result;
  __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c) : "memory");
  return result;
}
__attribute__((force_align_arg_pointer, used)) void run(int *stack) {
  if (stack[0] > 1) call(1, 0, 0, 0);
  call(4, 1, "ready\\n", 6);
  for (;;) call(29, 0, 0, 0);
}
__asm__(".globl _start\\n_start: push %esp\\ncall run\\n");
"""


@pytest.fixture(scope="module")
def torch_process() -> Iterator[Workload]:
    secret = {"MY_API_KEY": "hush-env", "RANK": "3", "WORLD_SIZE": "4", "SLURM_JOB_ID": "77"}
    with Workload("slow_loader", "--workers", "2", "--seed", "5", env=secret) as workload:
        yield workload


def codes(target: Target) -> set[str]:
    return {obstacle.code for obstacle in target.obstacles}


def test_torch_process(torch_process: Workload) -> None:
    spec = importlib.util.find_spec("torch")  # without importing it: that takes seconds
    assert spec is not None
    assert spec.origin is not None
    target = inspect(torch_process.pid)
    assert (target.pid, target.uid) == (torch_process.pid, os.geteuid())
    assert target.exe is not None
    assert Path(target.exe).samefile(sys.executable)
    assert target.torch is not None
    ask = [sys.executable, "-c", "import torch; print(torch.__version__)"]
    own = subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip()
    assert target.torch.version == own
    assert Path(target.torch.path) == Path(spec.origin).parent
    assert target.python is not None
    assert target.python.implementation == "cpython"
    version = ".".join(map(str, sys.version_info[: 3 if sys.version_info >= (3, 11) else 2]))
    assert target.python.version == version
    assert target.libc.kind == "glibc"
    assert target.libc.version == os.confstr("CS_GNU_LIBC_VERSION").split()[1]  # type: ignore[union-attr]
    assert (target.placement.rank, target.placement.world_size) == (3, 4)
    assert target.placement.job_id == "77"
    assert all(target.namespace_same.values())
    assert not target.agent_resident
    assert not target.tapped


def test_secrets_of_the_environment_are_nowhere(torch_process: Workload) -> None:
    assert "hush-env" not in repr(inspect(torch_process.pid))
    assert "hush-env" not in repr(to_json(diagnose(torch_process.pid)))


def test_looking_does_not_stop_the_process(torch_process: Workload) -> None:
    """No tracer, before or after, and no signal."""
    before = inspect(torch_process.pid)
    after = inspect(torch_process.pid)
    assert (before.tracer_pid, after.tracer_pid) == (0, 0)
    assert torch_process.alive
    assert before.start_ticks == after.start_ticks


def test_workers_are_excluded_and_the_match_is_heard(torch_process: Workload) -> None:
    found = {f.target.pid: f.role for f in scan(match="slow_loader").found}
    names = {pid: Path(f"/proc/{pid}/comm") for pid in descendants(torch_process.pid)}
    workers = [pid for pid, name in names.items() if name.read_text() == "pt_data_worker\n"]
    assert len(workers) == 2
    roles = {pid: role for pid, role in found.items() if role != "helper"}
    assert roles == {torch_process.pid: "main", **dict.fromkeys(workers, "worker")}
    assert [t.pid for t in find(match="slow_loader.*--seed 5")] == [torch_process.pid]
    assert find(match="no such job anywhere") == []


@pytest.mark.parametrize("launch", ["env", "spawn"])
def test_ranks_are_found_without_launcher_and_workers(launch: str) -> None:
    with Workload("ddp_gloo", "--launch", launch, "--workers", "1", ranks=2) as job:
        targets = find(match="ddp_gloo")
        assert sorted(target.pid for target in targets) == sorted(job.pids)
        if launch == "env":
            assert [target.placement.rank for target in targets] == [0, 1]
            assert [target.pid for target in targets] == job.pids
            assert targets[0].placement.job_id == "ddp-gloo"


def test_scan_looks_closely_at_pytorch_processes_only(
    torch_process: Workload, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    original = binaries.find_torch

    def counted(process: Process, mappings: Sequence[Mapping]) -> binaries.Torch | None:
        calls.append(process.pid)
        return original(process, mappings)

    monkeypatch.setattr(binaries, "find_torch", counted)
    scan()
    assert torch_process.pid in calls
    assert 2 not in calls
    assert os.getpid() not in calls


def test_plain_python() -> None:
    with started(*script("")) as pid:
        target = inspect(pid)
        assert target.torch is None
        assert target.python is not None
        assert "no_torch" in codes(target)
        assert pid not in {t.pid for t in find()}


def test_static_program(tmp_path: Path) -> None:
    with started(str(compile_c(tmp_path, READY_C, "-static"))) as pid:
        target = inspect(pid)
        assert (target.libc.kind, target.python) == ("static", None)
        assert target.level_obtainable is None
        assert "static" in codes(target)


def test_32_bit_program(tmp_path: Path) -> None:
    program = compile_c(tmp_path, READY_I386, "-m32", "-static", "-nostdlib")
    if subprocess.run([program, "end"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this OS kernel runs no 32-bit programs")
    with started(str(program)) as pid:
        target = inspect(pid)
        assert target.elf is not None
        assert target.elf.bits == 32
        assert "bits" in codes(target)


def test_deleted_executable(tmp_path: Path) -> None:
    program = compile_c(tmp_path, READY_C)
    with started(str(program)) as pid:
        program.unlink()
        target = inspect(pid)
        assert (target.exe, target.exe_deleted) == (str(program), True)
        assert target.elf is not None
        assert target.elf.bits == 64


def test_zombie() -> None:
    process = subprocess.Popen(["true"])
    try:
        # Waits for the end and leaves the zombie: WNOWAIT.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(TargetNotFound, match="zombie"):
            inspect(process.pid)
    finally:
        process.wait(DEADLINE_S)
    with pytest.raises(TargetNotFound, match="no process"):
        inspect(process.pid)


def test_kernel_thread() -> None:
    try:
        if Path("/proc/2/comm").read_text() != "kthreadd\n":
            pytest.skip("pid 2 is no kernel thread here")
    except OSError:
        pytest.skip("no pid 2 here")
    with pytest.raises(TargetNotFound, match="kthreadd"):
        inspect(2)


def test_thread_is_no_process(torch_process: Workload) -> None:
    inside = threading.Event()
    done = threading.Event()

    def idle() -> None:
        inside.set()
        done.wait(DEADLINE_S)

    thread = threading.Thread(target=idle)
    thread.start()
    try:
        assert inside.wait(DEADLINE_S)
        with pytest.raises(TargetNotFound, match=f"thread of process {os.getpid()}"):
            inspect(thread.native_id or 0)
    finally:
        done.set()
        thread.join()


def test_argument_secrets_are_masked() -> None:
    with started(*script(""), "--hf-token", "hush-arg", "WANDB_API_KEY=hush-arg") as pid:
        target = inspect(pid)
        assert target.argv[-3:] == ("--hf-token", "***", "WANDB_API_KEY=***")
        assert "hush-arg" not in repr(target)


def test_hostile_thread_name() -> None:
    rename = "import ctypes; ctypes.CDLL(None).prctl(15, b') S 0 \\x1b[2J', 0, 0, 0)"
    with started(*script(rename)) as pid:
        target = inspect(pid)
        assert target.ppid == os.getpid()
        assert target.comm.isprintable()
        assert target.threads[0].name.isprintable()


@ROOT
@pytest.mark.root
def test_other_user_as_root_and_as_nobody() -> None:
    """Root may look at everybody; others may not look at root, and the error says so."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("no setpriv")
    as_nobody = [setpriv, "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    with started(*as_nobody, "sh", "-c", "echo ready; exec sleep 60") as pid:
        target = inspect(pid)
        assert target.uid == 65534
        assert "ptrace_uid" not in codes(target)
    # Root's Python may lie where nobody cannot read it; this capability reads files, no processes.
    reading = ["--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"]
    with started(*script("")) as pid:
        done = subprocess.run(
            [*as_nobody, *reading, sys.executable, "-c", LOOK_AND_REQUIRE, str(pid)],
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
            timeout=DEADLINE_S,
        )
        readable, torch, message, hint = done.stdout.splitlines()
        assert (readable, torch) == ("False", "None")
        assert "belongs to uid 0, and gputap runs as uid 65534" in message
        assert "sudo" in hint


LOOK_AND_REQUIRE = """
import sys
from gputap.profiler.errors import TargetNotPermitted
from gputap.profiler.target import inspect, require
target = inspect(int(sys.argv[1]))
print(target.maps_readable, target.torch, sep="\\n")
try:
    require(target)
except TargetNotPermitted as error:
    print(error.message, error.hint, sep="\\n")
"""


@ROOT
@pytest.mark.root
def test_own_pid_and_mount_namespace() -> None:
    with Workload("sleeper", prefix=UNSHARE) as workload:
        target = inspect(workload.pid)
        assert target.ns_pid == 1
        assert target.namespace_same["pid"] is False
        assert target.namespace_same["mnt"] is False
        assert target.namespace_same["net"] is True
        assert target.torch is not None
        assert target.torch.version is not None
        assert target.level_obtainable == "framework"
        threads = thread_map(workload.pid)
        assert threads[1] == workload.pid
        assert all(inner != host for inner, host in threads.items())
        assert workload.pid in {t.pid for t in find(match="sleeper")}


@ROOT
@pytest.mark.root
def test_files_of_a_process_in_a_chroot_are_found(tmp_path: Path) -> None:
    program = compile_c(tmp_path, READY_C, "-static")
    (tmp_path / "version.py").write_text("__version__ = '1.2'")
    with started("chroot", str(tmp_path), f"/{program.name}") as pid:
        process = Process(pid)
        mapped = next(m.path for m in process.mappings or () if m.name == program.name)
        assert process.read_in_root(f"{Path(mapped).parent}/version.py") == b"__version__ = '1.2'"


def test_traced_process() -> None:
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("no strace")
    # strace writes its first line once it has attached; the program writes only after that.
    with started(strace, "-f", "-o", "/dev/null", *script("")) as tracer:
        (pid,) = descendants(tracer)
        target = inspect(pid)
        assert (target.tracer_pid, target.tracer_name) == (tracer, "strace")
        with pytest.raises(TargetBusy, match="strace"):
            require(target)


def test_seccomp_filter() -> None:
    """A filter that allows everything; whether it can be read depends on who we are."""
    install = (
        "import ctypes, struct\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "allow = ctypes.create_string_buffer(struct.pack('<HBBI', 6, 0, 0, 0x7FFF0000))\n"
        "program = ctypes.create_string_buffer("
        "struct.pack('<H6xQ', 1, ctypes.addressof(allow)))\n"
        "assert libc.prctl(38, 1, 0, 0, 0) == 0\n"
        "assert libc.prctl(22, 2, program, 0, 0) == 0"
    )
    with started(*script(install)) as pid:
        target = inspect(pid)
        assert (target.seccomp, target.no_new_privs) == (2, True)
        assert len(codes(target) & {"seccomp_filter", "seccomp_unknown"}) == 1


@ROOT
@pytest.mark.root
def test_user_namespace_below_ours_is_no_obstacle() -> None:
    with started("unshare", "--user", "--map-root-user", *script("")) as pid:
        target = inspect(pid)
        assert target.namespace_same["user"] is False
        assert not codes(target) & {"ptrace_uid", "ptrace_refused", "ptrace_user_namespace"}


def test_stopped_process() -> None:
    with started(*script("")) as pid:
        os.kill(pid, signal.SIGSTOP)
        os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)
        assert "stopped" in codes(inspect(pid))


def test_resident_agent_and_attached_gputap() -> None:
    """Memory files of our names, as the agent makes them, and the lock that gputap holds."""
    import fcntl
    import struct

    make = (
        "import os, mmap\n"
        "keep = [os.memfd_create(name) for name in ('gputap-agent', 'gputap-ctl')]\n"
        "[os.ftruncate(fd, 4096) for fd in keep]\n"
        "maps = [mmap.mmap(fd, 4096) for fd in keep]"
    )
    with started(*script(make)) as pid:
        target = inspect(pid)
        assert (target.agent_resident, target.tapped) == (True, False)
        assert target.control_fd is not None
        fd = os.open(f"/proc/{pid}/fd/{target.control_fd}", os.O_RDWR)
        try:
            fcntl.fcntl(
                fd, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0)
            )
            assert inspect(pid).tapped
            with pytest.raises(TargetBusy, match="another gputap"):
                require(inspect(pid))
        finally:
            os.close(fd)
        assert not inspect(pid).tapped


def test_processes_that_vanish_while_we_look() -> None:
    """At any moment: a process either is described or is not found, and never anything else."""
    outcomes = set()
    for round_ in range(60):
        process = subprocess.Popen(
            ["sh", "-c", "read x"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
        )
        looker = threading.Thread(target=process.stdin.close)  # type: ignore[union-attr]
        if round_ % 2:
            looker.start()
        try:
            inspect(process.pid)
            outcomes.add("seen")
        except TargetNotFound:
            outcomes.add("not found")
        if not round_ % 2:
            looker.start()
        looker.join()
        process.wait(DEADLINE_S)
        with pytest.raises(TargetNotFound):
            inspect(process.pid)
    assert "seen" in outcomes


def test_scan_while_processes_come_and_go() -> None:
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            subprocess.run(["true"], check=True)

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for _ in range(20):
            scan()
    finally:
        stop.set()
        thread.join()
