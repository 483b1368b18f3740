"""Wheel, sdist and editable, each in an environment of its own: it runs, attaches, and has types.

`lowest` is the wheel with the oldest dependencies that it allows.

`GPUTAP_TEST_INSTALL_PYTHON` names another Python to install into than the one that runs the tests.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import gputap
from tests.workload import Workload

pytestmark = pytest.mark.soak

ROOT = Path(__file__).resolve().parents[2]
PYTHON = os.environ.get("GPUTAP_TEST_INSTALL_PYTHON", sys.executable)
BACKEND = ["scikit-build-core>=1.1", "cmake>=3.18", "ninja"]
OTHERS = ("profiler", "injectors", "exporters", "dashboards", "cli")

RIGHT = """
from pathlib import Path

import gputap
from gputap.injectors.library.client import WindowConfig
from gputap.profiler.errors import ProfilerError
from gputap.profiler.store import Capture


def tables(path: Path) -> list[str]:
    try:
        return [part.table for part in Capture.open(path).manifest.parts]
    except ProfilerError as error:
        return [error.hint, gputap.__version__]


WINDOW = WindowConfig(want_shapes=True)
"""
WRONG = {
    "count: int = Capture.open(Path('.'))": "assignment",
    "WindowConfig(want_everything=True)": "call-arg",
    "from gputap.profiler.store import NothingOfThisName": "attr-defined",
}


def run(*command: object, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    """Run to the end, without what this environment would add to the search path."""
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "MYPYPATH")}
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**clean, **env},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


def must(*command: object, cwd: Path | None = None, **env: str) -> str:
    done = run(*command, cwd=cwd, **env)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@dataclass(frozen=True)
class Installed:
    form: str
    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def program(self) -> Path:
        return self.folder / "bin" / "gputap"

    def pip(self, *arguments: object) -> str:
        return must(self.python, "-m", "pip", "-q", *arguments)


def lowest(installed: Installed) -> list[str]:
    """`numpy>=1.24` as `numpy==1.24.*`, for every dependency."""
    version = must(installed.python, "-c", "import sys; print(sys.version_info[:2] < (3, 12))")
    if version.strip() != "True":
        pytest.skip("the oldest numpy has no wheel for this Python")
    text = (ROOT / "pyproject.toml").read_text()
    (block,) = re.findall(r"^dependencies = \[(.*?)^\]", text, re.DOTALL | re.MULTILINE)
    asked = re.findall(r'"(.*)>=(.*)"', block)
    return [f"{name}=={oldest}.*" for name, oldest in asked]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel, the sdist, and the sdist unpacked as `source`."""
    out = tmp_path_factory.mktemp("packages")
    options = ["--no-isolation", "-C", f"build-dir={out / 'build'}", "-o", out]
    must(sys.executable, "-m", "build", "--wheel", "--sdist", *options, ROOT)
    with tarfile.open(next(out.glob("*.tar.gz"))) as archive:
        # Members are ours; the filter keeps links inside, and warns nobody.
        archive.extractall(out, filter="data")
    (out / f"gputap-{gputap.__version__}").rename(out / "source")
    return out


@pytest.fixture(scope="module", params=["wheel", "lowest", "sdist", "editable"])
def installed(
    request: pytest.FixtureRequest, packages: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installed]:
    folder = tmp_path_factory.mktemp(request.param)
    must(PYTHON, "-m", "venv", folder)
    it = Installed(request.param, folder)
    if it.form == "wheel":
        it.pip("install", next(packages.glob("*.whl")))
    elif it.form == "lowest":
        it.pip("install", next(packages.glob("*.whl")), *lowest(it))
    elif it.form == "sdist":
        it.pip("install", next(packages.glob("*.tar.gz")))
    else:
        it.pip("install", *BACKEND)
        it.pip("install", "--no-build-isolation", "-e", packages / "source")
    yield it
    shutil.rmtree(folder)


def test_nothing_is_missing(installed: Installed) -> None:
    assert "No broken requirements" in must(installed.python, "-m", "pip", "check")


def test_answers(installed: Installed, tmp_path: Path) -> None:
    assert must(installed.program, "--version", cwd=tmp_path) == f"gputap {gputap.__version__}\n"
    assert isinstance(json.loads(must(installed.program, "ps", "--json", cwd=tmp_path)), list)


def test_native_parts_are_found_where_this_form_has_them(
    installed: Installed, tmp_path: Path
) -> None:
    diagnosis = json.loads(must(installed.program, "doctor", "--json", cwd=tmp_path))
    checks = {check["name"]: check["status"] for check in diagnosis["machine"]}
    assert checks["native parts"] == "ok"
    program = "from gputap.injectors.built import expected; print(*expected(), sep='\\n')"
    places = must(installed.python, "-c", program, cwd=tmp_path).split()
    assert [Path(place).name for place in places] == ["gputap-inject", "libgputap_agent.so"]
    assert all(Path(place).is_relative_to(installed.folder) for place in places)
    assert os.access(places[0], os.X_OK)


def test_attaches_to_a_real_process(installed: Installed, tmp_path: Path) -> None:
    with Workload("mlp") as workload:
        command = [installed.program, "attach", workload.pid, "-d", "2s", "-o", "capture", "--json"]
        verdict = json.loads(must(*command, cwd=tmp_path))
        assert workload.alive
        workload.stop()
    assert verdict["ranks"]
    assert (tmp_path / "capture" / "report.html").stat().st_size > 100_000
    rows = must(
        installed.program,
        "query",
        "capture",
        "SELECT count(*) AS n FROM events WHERE name = 'aten::addmm'",
        "--json",
        cwd=tmp_path,
    )
    assert json.loads(rows)[0]["n"] > 0


def check_types(installed: Installed, folder: Path, text: str) -> str:
    (folder / "user.py").write_text(text)
    mypy = [sys.executable, "-m", "mypy", "--strict", "--config-file", os.devnull]
    return run(*mypy, "--python-executable", installed.python, "user.py", cwd=folder).stdout


def test_types_are_found_by_mypy(installed: Installed, tmp_path: Path) -> None:
    assert "Success" in check_types(installed, tmp_path, RIGHT)
    for mistake, code in WRONG.items():
        found = check_types(installed, tmp_path, f"{RIGHT}\n{mistake}\n")
        assert f"[{code}]" in found, found
        assert "Found 1 error" in found, found


def test_a_user_s_own_modules_are_no_trouble(installed: Installed, tmp_path: Path) -> None:
    """Theirs do not shadow ours, and ours do not shadow theirs."""
    for name in OTHERS:
        (tmp_path / f"{name}.py").write_text("MINE = True\n")
    for command in ([installed.program], [installed.python, "-m", "gputap.cli"]):
        for env in ({}, {"PYTHONPATH": str(tmp_path)}):
            must(*command, "ps", "--json", cwd=tmp_path, **env)
            must(*command, "doctor", cwd=tmp_path, **env)
    script = tmp_path / "train.py"
    lines = [f"import {name}; assert {name}.MINE" for name in OTHERS]
    script.write_text("\n".join([*lines, "from gputap.profiler import store", "store.Capture"]))
    must(installed.python, script)


def test_leaves_nothing_behind(installed: Installed) -> None:
    """Last in this file: it ends the environment that the tests above share."""
    installed.pip("uninstall", "-y", "gputap")
    # pip takes the files and may leave an empty folder.
    files = (p for p in installed.folder.rglob("*") if p.is_file())
    assert [p for p in files if "gputap" in str(p.relative_to(installed.folder))] == []
