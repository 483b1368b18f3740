"""What doctor says about made-up machines and processes."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from gputap.profiler import doctor
from gputap.profiler.doctor import Check, diagnose, level_verdicts, to_json
from gputap.profiler.errors import TargetNotFound
from gputap.profiler.obstacles import LEVELS, highest_level
from gputap.profiler.target import inspect
from tests.fake_proc import GLIBC, LIBTORCH, PYTHON, FakeProc, ourselves


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeProc:
    made_up = FakeProc(tmp_path)
    monkeypatch.setattr(doctor, "ourselves", lambda proc: ourselves())
    return made_up


def test_this_machine_is_described_without_an_exception() -> None:
    names = [check.name for check in diagnose().machine]
    assert len(names) == len(set(names)) >= 14
    assert {"kernel", "ptrace scope", "CAP_SYS_PTRACE", "eBPF", "GPUs"} <= set(names)


def test_unknown_is_not_ok() -> None:
    status = {check.name: check.status for check in diagnose().machine}
    assert status["native parts"] == "unknown"
    assert doctor._security_modules(Path("/nonexistent")).status == "unknown"


@pytest.mark.parametrize(
    ("release", "machine", "status"),
    [
        ("6.1.0-18-amd64", "x86_64", "ok"),
        ("3.10.0", "x86_64", "fail"),
        ("6.1.0", "riscv64", "fail"),
        ("weird", "x86_64", "ok"),
    ],
)
def test_kernel(release: str, machine: str, status: str) -> None:
    assert doctor._kernel(release, machine).status == status


def test_missing_native_parts_are_named(tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    check = doctor._native([tmp_path / "there", tmp_path / "gone"])
    assert (check.status, check.finding) == ("fail", "missing: gone")
    assert doctor._native([tmp_path / "there"]).status == "ok"


@pytest.mark.parametrize(
    ("scope", "capabilities", "status", "step"),
    [
        (None, frozenset(), "ok", ""),
        (0, frozenset(), "ok", ""),
        (1, frozenset(), "fail", "sudo sysctl kernel.yama.ptrace_scope=0"),
        (2, frozenset(), "fail", "root"),
        (2, frozenset({"sys_ptrace"}), "ok", ""),
        (3, frozenset({"sys_ptrace"}), "fail", "reboot"),
    ],
)
def test_yama(scope: int | None, capabilities: frozenset[str], status: str, step: str) -> None:
    check = doctor._yama(ourselves(yama_scope=scope, capabilities=capabilities))
    assert check.status == status
    assert step in check.next_step


def test_capability() -> None:
    assert doctor._ptrace_capability(ourselves()).status == "ok"
    inside = ourselves(initial_user_namespace=False)
    assert "our own user namespace" in doctor._ptrace_capability(inside).finding
    missing = doctor._ptrace_capability(ourselves(uid=7, capabilities=frozenset()))
    assert (missing.status, "uid 7" in missing.finding) == ("warn", True)


@pytest.mark.parametrize(("value", "status"), [(None, "ok"), (0, "ok"), (1, "ok"), (2, "warn")])
def test_memfd(value: int | None, status: str) -> None:
    assert doctor._memfd(ourselves(memfd_noexec=value)).status == status


@pytest.mark.parametrize(
    ("code", "status", "word"),
    [
        (0, "ok", "can be loaded"),
        (errno.EPERM, "warn", "EPERM"),
        (errno.ENOSYS, "warn", "ENOSYS"),
    ],
)
def test_bpf(
    code: int, status: str, word: str, proc: FakeProc, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "probe_bpf", lambda: code)
    check = doctor._bpf(ourselves(), proc.path)
    assert check.status == status
    assert word in check.finding
    assert ("CAP_BPF" in check.next_step) == (code == errno.EPERM)


def test_bpf_probe_leaves_no_descriptor_behind() -> None:
    before = sorted(Path("/proc/self/fd").iterdir())
    assert doctor.probe_bpf() >= 0
    assert len(sorted(Path("/proc/self/fd").iterdir())) == len(before)


@pytest.mark.parametrize(("mode", "status"), [(0, "ok"), (2, "warn"), (None, "unknown")])
def test_own_seccomp_filter(mode: int | None, status: str) -> None:
    assert doctor._own_seccomp(ourselves(seccomp=mode)).status == status


def test_security_modules(tmp_path: Path) -> None:
    lsm = tmp_path / "lsm"
    lsm.write_text("lockdown,capability,yama,bpf\n")
    assert doctor._security_modules(lsm).status == "ok"
    lsm.write_text("capability,selinux,bpf\n")
    assert "selinux may refuse" in doctor._security_modules(lsm).finding


def test_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor._space("x", tmp_path / "not" / "yet").status == "ok"
    monkeypatch.setattr(doctor, "LEAST_FREE_BYTES", 1 << 62)
    assert doctor._space("x", tmp_path).status == "warn"
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert doctor._space("x", tmp_path).status == "fail"


def test_levels_of_an_ordinary_process(proc: FakeProc) -> None:
    proc.add(41)
    verdicts = level_verdicts(inspect(41, proc=proc.path, ours=ourselves()))
    assert [(v.level, v.possible) for v in verdicts] == [
        ("host", False),
        ("framework", True),
        ("device", False),
    ]
    assert verdicts[1].because == ()
    assert verdicts[0].because == ("this version of gputap has no host level yet",)


def test_level_that_is_refused_says_why_and_the_next_step(proc: FakeProc) -> None:
    proc.add(41)
    ours = ourselves(uid=1000, capabilities=frozenset(), yama_scope=1)
    framework = level_verdicts(inspect(41, proc=proc.path, ours=ours))[LEVELS.index("framework")]
    assert not framework.possible
    assert len(framework.because) == 2
    assert any("kernel.yama.ptrace_scope=0" in step for step in framework.next_steps)


def test_no_obstacle_gives_the_highest_level_of_this_version() -> None:
    assert highest_level(()) == "device"


@pytest.mark.parametrize(
    ("mapped", "expected"),
    [
        ((PYTHON, GLIBC, LIBTORCH), {"torch": "ok", "libc": "ok"}),
        ((PYTHON, GLIBC), {"torch": "fail", "no_torch": "fail"}),
        (("/app", "/usr/lib/libpypy3.10-c.so", GLIBC), {"python": "warn"}),
        (None, {"torch": "unknown", "python": "unknown", "cuda": "unknown", "agent": "unknown"}),
        (
            (PYTHON, GLIBC, f"{LIBTORCH} (deleted)", "/l/libcuda.so.1", "/memfd:gputap-agent"),
            {"torch": "warn", "cuda": "ok", "agent": "ok"},
        ),
    ],
)
def test_target_checks(
    proc: FakeProc, mapped: tuple[str, ...] | None, expected: dict[str, str]
) -> None:
    proc.add(41, mapped=mapped, environ={"RANK": "2"})
    checks = {check.name: check.status for check in diagnose_target(proc).target_checks}
    assert expected.items() <= checks.items()


def test_seccomp_filter_is_a_warning(proc: FakeProc) -> None:
    proc.add(41, status={"Seccomp": "2"}, namespaces={**proc.namespaces, "mnt": "mnt:[9]"})
    checks = {check.name: check for check in diagnose_target(proc).target_checks}
    assert checks["seccomp_filter"].status == "warn"
    assert checks["namespaces"].finding == "its own: mnt"


def diagnose_target(proc: FakeProc) -> doctor.Diagnosis:
    target = inspect(41, proc=proc.path, ours=ourselves())
    checks = tuple(doctor._target_checks(target))
    return doctor.Diagnosis((), target, checks, level_verdicts(target))


def test_json_is_plain_and_encodable(proc: FakeProc) -> None:
    proc.add(41, mapped=(PYTHON, GLIBC, LIBTORCH))
    diagnosis = diagnose_target(proc)
    assert diagnosis.target is not None
    odd = replace(diagnosis, target=replace(diagnosis.target, exe="/x\udcff"))
    data = json.loads(json.dumps(to_json(odd), ensure_ascii=False).encode())
    assert data["level_obtainable"] == "framework"
    assert data["target"]["command"] == "python train.py"
    assert data["target"]["exe"] == "/x?"
    assert data["levels"][1] == {
        "level": "framework",
        "possible": True,
        "because": [],
        "next_steps": [],
    }


def test_json_without_a_target() -> None:
    data = to_json(doctor.Diagnosis((Check("a", "ok", "b"),)))
    assert data["target"] is None
    assert data["machine"][0]["status"] == "ok"


def test_no_such_process() -> None:
    with pytest.raises(TargetNotFound):
        diagnose(2**31 - 1)


def test_container_seen_by_its_environment(proc: FakeProc, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "exists", lambda path: False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    proc.add(os.getpid())
    assert doctor._container(proc.path, ourselves()).finding.startswith("none")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "x")
    check = doctor._container(proc.path, ourselves())
    assert (check.status, "kubernetes" in check.finding) == ("warn", True)
    proc.add(2, flags=0x00200000, name="kthreadd")
    assert doctor._container(proc.path, ourselves()).status == "ok"


def test_gpus_need_the_driver_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "listdir", lambda path: ["nvidia0", "nvidiactl", "nvidia1"])
    monkeypatch.setattr(doctor, "_find_library", lambda name: None)
    assert doctor._gpus().status == "warn"
    monkeypatch.setattr(doctor, "_find_library", lambda name: "/lib/libnvidia-ml.so.1")
    assert doctor._gpus().finding == "2 devices, /lib/libnvidia-ml.so.1"
    monkeypatch.setattr(os, "listdir", lambda path: [])
    assert "no /dev/nvidia" in doctor._gpus().finding
