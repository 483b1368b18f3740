"""What runs in a process is found out from outside."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from gputap.injectors.library.detect import Detected, detect
from gputap.profiler.errors import TargetGone

PYENV = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
INTERPRETERS = [Path(sys.executable), *sorted(PYENV.glob("versions/3.*/bin/python"))]
WAIT = "import sys; print('.'.join(map(str, sys.version_info[:2])), flush=True); sys.stdin.read()"


def _detect(python: Path, code: str) -> tuple[str, Detected]:
    with subprocess.Popen(
        [python, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin is not None and child.stdout is not None
        said = child.stdout.readline().strip()
        found = detect(child.pid)
        child.stdin.close()
    return said, found


@pytest.mark.parametrize("python", INTERPRETERS, ids=lambda p: p.parts[-3])
def test_an_interpreter_is_known_by_its_version(python: Path) -> None:
    said, found = _detect(python, WAIT)
    version = tuple(map(int, said.split(".")))
    if version < (3, 7):
        pytest.skip("older than anything that runs torch 2")
    assert found.python is not None
    assert found.python.version == version
    layout = found.python_layout
    assert layout.enabled == ((3, 8) <= version <= (3, 14))
    assert layout.version == version[0] * 256 + version[1]
    assert found.torch is None


@pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed")
def test_torch_is_known_by_version_and_string_abi() -> None:
    code = (
        "import torch, sys;"
        "print(torch.__version__, torch._C._GLIBCXX_USE_CXX11_ABI, flush=True); sys.stdin.read()"
    )
    said, found = _detect(Path(sys.executable), code)
    torch = found.torch
    assert torch is not None
    assert said == f"{torch.version} {torch.cxx11_abi}"
    assert found.torch_layout.seq > 0
    assert found.reasons == ()


def test_a_process_that_is_gone_is_gone() -> None:
    pid = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(pid, 0)
    with pytest.raises(TargetGone):
        detect(pid)


def test_a_process_without_python_says_so() -> None:
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None and child.stdout is not None
        child.stdin.write(b"\n")
        child.stdin.flush()
        child.stdout.readline()
        found = detect(child.pid)
        child.stdin.close()
    assert found.python is None and found.torch is None
    assert len(found.reasons) == 2
