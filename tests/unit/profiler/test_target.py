"""What /proc says about a process, on a made-up /proc where nothing is left to the machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from gputap.profiler import binaries
from gputap.profiler.errors import (
    TargetBusy,
    TargetNotFound,
    TargetNotPermitted,
    TargetUnsupported,
)
from gputap.profiler.procfs import (
    Process,
    capability_names,
    parse_maps,
    parse_status,
    printable,
    sysctl,
)
from gputap.profiler.target import (
    Container,
    Ourselves,
    Placement,
    Target,
    inspect,
    parse_container,
    parse_placement,
    require,
    thread_map,
)
from tests.fake_proc import GLIBC, LIBTORCH, PYTHON, FakeProc, elf, ourselves

VERSION_PY = (
    "__version__ = '2.5.1+cu124'\ncuda: Optional[str] = '12.4'\nhip: Optional[str] = None\n"
)


@pytest.fixture
def proc(tmp_path: Path) -> FakeProc:
    return FakeProc(tmp_path)


def look(proc: FakeProc, pid: int = 41, ours: Ourselves | None = None) -> Target:
    return inspect(pid, proc=proc.path, ours=ours or ourselves())


def codes(target: Target) -> list[str]:
    return [obstacle.code for obstacle in target.obstacles if obstacle.code != "no_cuda"]


def test_ordinary_training_process(proc: FakeProc) -> None:
    proc.add(
        41,
        root={"/site/torch/version.py": VERSION_PY},
        environ={"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "HF_TOKEN": "x"},
    )
    target = look(proc)
    assert (target.pid, target.ns_pid, target.ppid, target.start_ticks) == (41, 41, 1, 4242)
    assert target.command == "python train.py"
    assert target.elf == binaries.Elf(64, "x86_64", "/lib64/ld.so")
    assert target.libc.kind == "glibc"
    assert target.torch == binaries.Torch(
        "2.5.1+cu124", "/site/torch", "12.4", None, "cuda", False, False
    )
    assert target.placement == Placement(3, 8, 1, None, "env")
    assert codes(target) == []
    assert target.level_obtainable == "framework"
    require(target)


def test_no_such_process(proc: FakeProc) -> None:
    for pid in (-1, 0, 41):
        with pytest.raises(TargetNotFound, match="no process"):
            look(proc, pid)
    with pytest.raises(TargetNotFound):
        thread_map(41, proc=proc.path)


def test_zombie_kernel_thread_and_thread_are_no_targets(proc: FakeProc) -> None:
    proc.add(41, state="Z", mapped=())
    proc.add(42, flags=0x00200000, name="kthreadd")
    proc.add(43, status={"Tgid": "41"})
    for pid, words in ((41, "zombie"), (42, "thread of the OS kernel"), (43, "process 41")):
        with pytest.raises(TargetNotFound, match=words):
            look(proc, pid)


def test_process_whose_main_thread_ended_is_refused(proc: FakeProc) -> None:
    proc.add(41, state="Z", threads={41: "python", 44: "rest"})
    with pytest.raises(TargetUnsupported, match="main thread"):
        look(proc)


def test_pid_taken_by_another_process_meanwhile(
    proc: FakeProc, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = proc.add(41)

    def replace_process(*args: object) -> tuple[binaries.CudaLibrary, ...]:
        stat = (folder / "stat").read_text().replace("4242", "4343")
        (folder / "stat").write_text(stat)
        return ()

    monkeypatch.setattr(binaries, "find_cuda", replace_process)
    with pytest.raises(TargetNotFound):
        look(proc)


@pytest.mark.parametrize(
    ("program", "mapped", "code"),
    [
        (elf(bits=32, machine=3), (PYTHON, GLIBC), "bits"),
        (elf(machine=183), (PYTHON, GLIBC, LIBTORCH), "architecture"),
        (elf(interpreter=None), ("/app",), "static"),
        (elf(), (PYTHON, "/lib/ld-musl-x86_64.so.1", LIBTORCH), "musl"),
        (elf(), ("/bin/sleep", GLIBC), "no_torch"),
    ],
)
def test_unsupported_kinds(
    proc: FakeProc, program: bytes, mapped: tuple[str, ...], code: str
) -> None:
    proc.add(41, program=program, mapped=mapped)
    target = look(proc)
    assert code in codes(target)
    assert target.level_obtainable is None
    with pytest.raises(TargetUnsupported):
        require(target)


def test_other_uid_is_refused_without_the_capability(proc: FakeProc) -> None:
    proc.add(41, status={"Uid": "1001\t1001\t1001\t1001"})
    nobody = ourselves(uid=1000, capabilities=frozenset())
    target = look(proc, ours=nobody)
    assert codes(target) == ["ptrace_uid", "no_bpf_capability"]
    with pytest.raises(TargetNotPermitted, match="uid 1001") as caught:
        require(target)
    assert "sudo -u '#1001'" in caught.value.hint
    assert codes(look(proc)) == []


def test_more_privileged_process_is_refused(proc: FakeProc) -> None:
    proc.add(41, status={"Uid": "1000\t1000\t1000\t1000", "CapPrm": "0000000000000400"})
    nobody = ourselves(uid=1000, capabilities=frozenset())
    assert "ptrace_capabilities" in codes(look(proc, ours=nobody))
    equal = ourselves(uid=1000, capabilities=frozenset(), permitted_mask=0x400)
    assert "ptrace_capabilities" not in codes(look(proc, ours=equal))


def test_capabilities_of_a_container_do_not_reach_another_user_namespace(proc: FakeProc) -> None:
    proc.add(41, namespaces={**proc.namespaces, "user": "user:[2]"})
    inside = ourselves(initial_user_namespace=False)
    assert codes(look(proc, ours=inside)) == ["ptrace_user_namespace"]
    assert codes(look(proc)) == []


@pytest.mark.parametrize(
    ("scope", "capabilities", "step"),
    [
        (1, frozenset(), "sysctl kernel.yama.ptrace_scope=0"),
        (2, frozenset(), "sudo gputap attach 41"),
        (3, frozenset({"sys_ptrace"}), "reboot"),
    ],
)
def test_yama_forbids(proc: FakeProc, scope: int, capabilities: frozenset[str], step: str) -> None:
    proc.add(41, cgroup=f"0::/docker-{'a' * 64}.scope\n")
    target = look(proc, ours=ourselves(yama_scope=scope, capabilities=capabilities))
    (yama,) = (o for o in target.obstacles if o.code == "yama")
    assert step in yama.next_step
    with pytest.raises(TargetNotPermitted):
        require(target)


@pytest.mark.parametrize("scope", [None, 0, 1, 2])
def test_yama_allows_with_the_capability(proc: FakeProc, scope: int | None) -> None:
    proc.add(41)
    assert codes(look(proc, ours=ourselves(yama_scope=scope))) == []


def test_container_step_names_the_container(proc: FakeProc) -> None:
    proc.add(41, cgroup=f"0::/system.slice/docker-{'a' * 64}.scope\n", status={"Uid": "7\t7\t7\t7"})
    pod = "0::/kubepods/besteffort/pod01234567-0123-0123-0123-0123456789ab/" + "b" * 64 + "\n"
    proc.add(42, cgroup=pod, status={"Uid": "7\t7\t7\t7"})
    nobody = ourselves(uid=1000, capabilities=frozenset())
    assert f"--pid=container:{'a' * 12}" in look(proc, 41, nobody).obstacles[0].next_step
    assert "kubectl debug" in look(proc, 42, nobody).obstacles[0].next_step


def test_unreadable_maps_are_unknown_not_absent(proc: FakeProc) -> None:
    proc.add(41, mapped=None)
    target = look(proc)
    assert (target.torch, target.python, target.maps_readable) == (None, None, False)
    assert codes(target) == ["ptrace_refused"]


def test_traced_process_is_busy_and_the_tracer_named(proc: FakeProc) -> None:
    proc.add(7, name="gdb")
    proc.add(41, status={"TracerPid": "7"}, state="t")
    proc.add(42, status={"TracerPid": "8"})
    with pytest.raises(TargetBusy, match=r"process 7 \(gdb\) is tracing it"):
        require(look(proc))
    with pytest.raises(TargetBusy, match="process 8 is tracing it"):
        require(look(proc, 42))


@pytest.mark.parametrize(
    ("status", "code", "blocks"),
    [
        ({"Seccomp": "1"}, "seccomp_strict", True),
        ({"Seccomp": "2"}, "seccomp_filter", False),
        ({"x86_Thread_features": "shstk wrss"}, "shadow_stack", True),
    ],
)
def test_hardening(proc: FakeProc, status: Mapping[str, str], code: str, blocks: bool) -> None:
    proc.add(41, status=status)
    target = look(proc)
    assert codes(target) == [code]
    assert (target.level_obtainable is None) == blocks


def test_seccomp_filter_that_we_may_not_read_blocks(proc: FakeProc) -> None:
    proc.add(41, status={"Seccomp": "2"})
    for ours in (
        ourselves(seccomp=2),
        ourselves(initial_user_namespace=False),
        ourselves(capabilities=frozenset({"sys_ptrace"})),
    ):
        target = look(proc, ours=ours)
        assert "seccomp_unknown" in codes(target)
        with pytest.raises(TargetNotPermitted, match="seccomp filter"):
            require(target)
        require(target, ignore=("seccomp_unknown",))


def test_old_glibc(proc: FakeProc) -> None:
    for pid, version in ((41, "2.12"), (42, "2.17"), (43, "2.31")):
        proc.add(pid, mapped=(PYTHON, f"/lib/libc-{version}.so", LIBTORCH))
    assert codes(look(proc, 41)) == ["old_libc"]
    assert codes(look(proc, 42)) == codes(look(proc, 43)) == []


def test_memfd_noexec_counts_in_our_pid_namespace_only(proc: FakeProc) -> None:
    proc.add(41)
    proc.add(42, namespaces={**proc.namespaces, "pid": "pid:[2]"})
    strict = ourselves(memfd_noexec=2)
    assert codes(look(proc, 41, strict)) == ["memfd_noexec"]
    assert look(proc, 41, strict).level_obtainable == "framework"
    assert codes(look(proc, 42, strict)) == []


def test_stopped_process_and_missing_proc_and_time_namespace(proc: FakeProc) -> None:
    proc.add(41, state="T")
    (proc.add(42) / "root/proc/version").unlink()
    proc.add(43, namespaces={**proc.namespaces, "time": "time:[2]"})
    (proc.path / "42/root").rename(proc.path / "42/real")
    (proc.path / "42/root").symlink_to("real")
    assert codes(look(proc, 41)) == ["stopped"]
    assert codes(look(proc, 42)) == ["no_proc"]
    assert codes(look(proc, 43)) == ["time_namespace"]
    assert look(proc, 42).level_obtainable == look(proc, 43).level_obtainable == "framework"


def test_resident_agent_and_attached_gputap(proc: FakeProc) -> None:
    memfds = ("/memfd:gputap-agent (deleted)", "/memfd:gputap-ctl (deleted)")
    proc.add(41, mapped=(PYTHON, GLIBC, LIBTORCH, *memfds), fds={503: memfds[1]})
    proc.add(42, mapped=(PYTHON, GLIBC, LIBTORCH, "/tmp/.gputap-agent-1f (deleted)"))
    assert look(proc, 42).agent_resident
    idle = look(proc)
    assert (idle.agent_resident, idle.tapped, idle.control_fd) == (True, False, 503)
    (proc.path / "locks").write_text("1: OFDLCK ADVISORY  WRITE -1 00:01:105 0 0\n")
    assert look(proc).tapped
    with pytest.raises(TargetBusy, match="another gputap"):
        require(look(proc))
    (proc.path / "locks").write_text("1: OFDLCK ADVISORY  WRITE -1 00:01:1055 0 0\n")
    assert not look(proc).tapped


def test_cuda_stack_and_device_obstacles(proc: FakeProc) -> None:
    wheel = "/site/nvidia/nccl/lib/libnccl.so.2"
    libraries = ("/usr/lib/libcuda.so.550.54.14", "/opt/libcudart-9335f6a2.so.12", wheel)
    proc.add(
        41,
        mapped=(PYTHON, GLIBC, LIBTORCH, *libraries),
        fds={5: "/dev/nvidia1", 6: "/dev/nvidiactl", 7: "/dev/nvidia0"},
        root={"/site/nvidia_nccl_cu12-2.21.5.dist-info": ""},
    )
    target = look(proc)
    assert [(x.name, x.version) for x in target.cuda] == [
        ("libcuda", "550.54.14"),
        ("libcudart", "12"),
        ("libnccl", "2.21.5"),
    ]
    assert target.gpus == (0, 1)
    assert codes(target) == ["no_cupti"]
    held = ("/x/libcupti.so.12", "/opt/nsys/libToolsInjection64.so")
    proc.add(42, mapped=(PYTHON, GLIBC, LIBTORCH, *libraries, *held))
    assert codes(look(proc, 42)) == ["cupti_held"]


def test_replaced_torch_has_no_version(proc: FakeProc) -> None:
    proc.add(
        41,
        mapped=(PYTHON, GLIBC, f"{LIBTORCH} (deleted)"),
        root={"/site/torch/version.py": VERSION_PY},
    )
    torch = look(proc).torch
    assert torch is not None
    assert (torch.version, torch.deleted) == (None, True)


@pytest.mark.parametrize(
    ("mapped", "expected"),
    [
        (("/opt/bin/python3.12",), ("3.12", "cpython", "static", False)),
        (("/b/python3.13t",), ("3.13", "cpython", "static", True)),
        (("/b/python", "/l/libpython3.9.so.1.0"), ("3.9", "cpython", "libpython", False)),
        (("/b/python", "/l/libpython3.14t.so.1.0"), ("3.14", "cpython", "libpython", True)),
        (("/b/pypy3.10", "/l/libpypy3.10-c.so"), ("3.10", "pypy", "libpython", False)),
        (("/srv", "/p/_ssl.cpython-311-x86_64-linux-gnu.so"), ("3.11", "cpython", "static", False)),
        (("/b/python", "/e/lib/python3.10/x.so"), ("3.10", "cpython", "static", False)),
        (("/b/python",), (None, "cpython", "static", False)),
    ],
)
def test_interpreters(
    proc: FakeProc, mapped: tuple[str, ...], expected: tuple[str | None, str, str, bool]
) -> None:
    real = f"{proc.path}/files{mapped[0]}"
    proc.add(41, mapped=(real, *mapped[1:]), exe=mapped[0])
    python = look(proc).python
    assert python is not None
    got = (python.version, python.implementation, python.linkage, python.free_threaded)
    assert got == expected


def test_program_without_python(proc: FakeProc) -> None:
    proc.add(41, mapped=("/app", GLIBC, LIBTORCH), exe="/app")
    assert look(proc).python is None


def test_version_hex() -> None:
    assert binaries.format_version_hex(0x030B07F0) == "3.11.7"
    assert binaries.format_version_hex(0x030E00C2) == "3.14.0rc2"


def test_hostile_names_are_harmless(proc: FakeProc) -> None:
    proc.add(
        41,
        name="a) R 9 \x1b[2J",
        argv=("\x1b]0;x\x07", "--token", "secret", "\u202ex"),
        mapped=(PYTHON, GLIBC, "/a (deleted)/libtorch.so", "/tmp/x\\012y"),
    )
    target = look(proc)
    assert target.comm == "a) R 9 ?[2J"
    assert target.command == "?]0;x? --token *** ?x"
    assert (target.state, target.ppid) == ("S", 1)
    assert target.torch is not None
    assert target.torch.path == "/a (deleted)"


def test_undecodable_command_line_and_none_at_all(proc: FakeProc) -> None:
    folder = proc.add(41)
    (folder / "cmdline").write_bytes(b"\xff\xfe\0\0\0")
    assert look(proc).command == "\ufffd\ufffd"
    (folder / "cmdline").write_bytes(b"")
    assert look(proc).command == "[python]"


def test_threads_have_both_ids(proc: FakeProc) -> None:
    proc.add(41, threads={41: "python", 60: "pt_autograd_0"})
    assert thread_map(41, proc=proc.path) == {1: 41, 20: 60}
    assert [t.name for t in look(proc).threads] == ["python", "pt_autograd_0"]
    (proc.path / "41/task/60/status").unlink()
    assert thread_map(41, proc=proc.path) == {1: 41}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Placement()),
        ({"RANK": "0", "WORLD_SIZE": "2"}, Placement(0, 2, None, None, "env")),
        ({"RANK": "x", "SLURM_PROCID": "4"}, Placement(4, None, None, None, "slurm")),
        (
            {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "4", "SLURM_PROCID": "0"},
            Placement(1, 4, None, None, "ompi"),
        ),
        (
            {"RANK": "1", "TORCHELASTIC_RUN_ID": "none", "SLURM_JOB_ID": "77"},
            Placement(1, None, None, "77", "env"),
        ),
        ({"TORCHELASTIC_RUN_ID": "a\x1bb"}, Placement(job_id="a?b")),
    ],
)
def test_placement(environment: dict[str, str], expected: Placement) -> None:
    assert parse_placement(environment) == expected


def test_environment_keeps_only_the_listed_variables(proc: FakeProc) -> None:
    proc.add(41, environ={"RANK": "1", "AWS_SECRET_ACCESS_KEY": "hush", "MY_RANK": "2"})
    assert "hush" not in repr(look(proc))


@pytest.mark.parametrize(
    ("cgroup", "expected"),
    [
        ("0::/user.slice/session-1.scope", None),
        (f"0::/system.slice/docker-{'a' * 64}.scope", Container("a" * 64, "docker", None)),
        (f"4:cpu:/docker/{'a' * 64}", Container("a" * 64, "docker", None)),
        (
            "0::/kubepods.slice/kubepods-pod01234567_0123_0123_0123_0123456789ab.slice/"
            f"cri-containerd-{'b' * 64}.scope",
            Container("b" * 64, "cri-containerd", "01234567-0123-0123-0123-0123456789ab"),
        ),
        (f"0::/x/{'c' * 64}", Container("c" * 64, None, None)),
    ],
)
def test_containers(cgroup: str, expected: Container | None) -> None:
    assert parse_container(cgroup) == expected


def test_maps_name_each_file_once() -> None:
    text = (
        b"1000-2000 r--p 00000000 fe:00 12  /lib/a b.so\n2000-3000 r-xp 1 fe:00 12  /lib/a b.so\n"
        b"4000-5000 rw-p 0 00:00 0 \n5000-6000 rw-s 0 00:01 9 /memfd:x (deleted)\n"
        b"7000-8000 r--p 0 00:00 0 [vdso]\nnonsense\n"
    )
    first, second = parse_maps(text)
    assert (first.path, first.start, first.end, first.inode) == ("/lib/a b.so", 0x1000, 0x2000, 12)
    assert (second.path, second.deleted, second.name) == ("/memfd:x", True, "memfd:x")


def test_maps_search_finds_a_word_across_reads(tmp_path: Path) -> None:
    (tmp_path / "41").mkdir()
    (tmp_path / "41/maps").write_bytes(b"x" * ((1 << 20) - 4) + b"/libtorch.so\n")
    process = Process(41, tmp_path)
    assert process.maps_mention(b"/libtorch") is True
    assert process.maps_mention(b"/libmusl") is False


def test_special_files_in_the_target_are_not_read(proc: FakeProc) -> None:
    folder = proc.add(41)
    os.mkfifo(folder / "root/site.fifo")
    process = Process(41, proc.path)
    assert process.read_in_root("/site.fifo") is None
    assert process.read_in_root("/nothing") is None


@pytest.mark.parametrize("size", [0, 3, 20, 63, 70])
def test_truncated_elf_is_no_error(size: int) -> None:
    result = binaries.parse_elf(elf()[:size])
    assert result is None or result.interpreter is None


def test_small_parsers(tmp_path: Path) -> None:
    assert capability_names(1 << 19 | 1 << 39) == {"sys_ptrace", "bpf"}
    assert parse_status(b"Name:\ta:b\nUid:\t1\t2\n\xff") == {"Name": "a:b", "Uid": "1\t2"}
    assert printable("a\tb" * 3, limit=4) == "a?b…"
    assert sysctl("kernel.yama.ptrace_scope", tmp_path) is None
    assert binaries.parse_version_py(b"cuda = None\nhip = '6.1'\n__version__ = \"2.0.1\"\n") == {
        "hip": "6.1",
        "__version__": "2.0.1",
    }
