"""The helper's Python front and what is fixed at build time."""

from __future__ import annotations

import json
import re
import stat
import subprocess
from pathlib import Path

import pytest

from gputap.injectors import attach
from gputap.injectors.attach import helper as front
from gputap.injectors.attach.refusals import REFUSALS, refusal
from gputap.profiler.errors import AttachFailed, TargetGone, TargetNotFound
from tests.injection import NATIVE, Target, compiled, helper, payload


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_check_passes_and_touches_nothing() -> None:
    with Target(compiled("sums")) as target:
        before = target.mappings()
        attach.check(target.pid)
        assert target.mappings() == before


def test_dry_run_says_what_would_be_done() -> None:
    with Target(compiled("sums")) as target:
        plan = json.loads(helper(target.pid, "--dry-run", "--agent", str(payload())).stdout)
        assert (plan["dry_run"], plan["reused"], plan["threads"]) == (True, False, 1)
        assert "libc" in plan["libc"]
        attach.inject(target.pid, agent=payload())
        plan = json.loads(helper(target.pid, "--dry-run", "--agent", str(payload())).stdout)
        assert plan["reused"] is True


@pytest.mark.parametrize(
    "options", [[], ["--agent"], ["--agent", "x", "--pid", "1x"], ["--agent", "x", "extra"]]
)
def test_wrong_usage(options: list[str]) -> None:
    done = subprocess.run([attach.binary(), *options], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr
    assert not done.stdout


@pytest.mark.parametrize("content", [b"", b"no library", b"\x7fELF" + bytes(100)])
def test_agent_that_is_no_agent(tmp_path: Path, content: bytes) -> None:
    library = tmp_path / "lib.so"
    library.write_bytes(content)
    with Target(compiled("sums")) as target, pytest.raises(AttachFailed) as caught:
        attach.inject(target.pid, agent=library)
    assert "make build" in str(caught.value.hint)


def test_library_of_somebody_else() -> None:
    library = compiled("own_malloc", "-shared", "-fPIC")
    with (
        Target(compiled("sums")) as target,
        pytest.raises(AttachFailed, match="exports no gputap_agent_abi"),
    ):
        attach.inject(target.pid, agent=library)


def test_missing_helper_says_how_to_build_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "INJECT", "gputap-inject-missing")
    with pytest.raises(AttachFailed, match="not built") as caught:
        attach.binary()
    assert "make build" in str(caught.value.hint)


@pytest.mark.parametrize("said", ["echo nonsense", "echo '[1]'", "exit 1", "echo '{}'"])
def test_helper_that_talks_nonsense(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    monkeypatch.setattr(front, "binary", lambda: script(tmp_path / "helper", said))
    with pytest.raises(AttachFailed):
        attach.inject(1, agent=Path("x"))


def test_helper_that_hangs_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "binary", lambda: script(tmp_path / "helper", "exec sleep 100"))
    monkeypatch.setattr(front, "GRACE_S", 0.2)
    with pytest.raises(AttachFailed, match="did not end within"):
        attach.check(1, timeout_s=0.1)


def test_helper_that_cannot_be_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "binary", lambda: tmp_path / "missing")
    with pytest.raises(AttachFailed, match="could not be run"):
        attach.check(1)


def test_every_refusal_of_the_helper_has_its_error() -> None:
    sources = "".join(path.read_text() for path in NATIVE.glob("*.c"))
    calls = re.findall(r"refuse\(([^,]*),", sources)
    codes = set(re.findall(r'"(\w+)"', " ".join(calls)))
    assert codes == set(REFUSALS)


def test_refusal_is_a_sentence_with_a_next_step() -> None:
    error = refusal("zombie", "process 5 has ended")
    assert isinstance(error, TargetNotFound)
    assert error.message == "Process 5 has ended."
    assert error.hint
    assert isinstance(refusal("target_gone", "x"), TargetGone)
    assert refusal("unheard-of", "").message == "unheard-of"


def test_bootstrap_refers_to_nothing_outside_itself(tmp_path: Path) -> None:
    objects = list((NATIVE.parents[2] / "build").rglob("gputap-inject.dir/boot*.o"))
    if not objects:
        pytest.skip("not built in build/")
    for path in objects:
        text = subprocess.run(["readelf", "-rW", path], capture_output=True, text=True, check=True)
        outside = [line for line in text.stdout.splitlines() if "R_X86_64" in line]
        assert all("gputap_boot_run" in line for line in outside)
        sections = subprocess.run(
            ["readelf", "-SW", path], capture_output=True, text=True, check=True
        ).stdout
        for name in (".text", ".data", ".bss"):
            assert re.search(rf"\{name}\s+\S+\s+0+ \S+ 000000 ", sections), f"{path.name}: {name}"
        assert ".rodata" not in sections
