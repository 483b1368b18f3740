"""What is in the wheel and in the sdist: everything that gputap needs, and nothing else."""

from __future__ import annotations

import base64
import configparser
import csv
import hashlib
import io
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

import gputap

ROOT = Path(__file__).resolve().parents[2]
LAYERS = ("profiler", "injectors", "exporters", "dashboards")
BIN = "gputap/injectors/bin/"
NATIVE = {BIN + "gputap-inject", BIN + "libgputap_agent.so"}
DEVELOPERS_ONLY = {
    "gputap/profiler/schema_codegen.py",
    "gputap/profiler/cupti/codegen.py",
}
INFO = f"gputap-{gputap.__version__}.dist-info/"
OLDEST_GLIBC = (2, 17)


def build(kind: str, out: Path) -> Path:
    """Build a `wheel` or `sdist` of this checkout; its native build goes to `out` as well."""
    command = [sys.executable, "-m", "build", "--no-isolation", f"--{kind}", "-o", out, ROOT]
    done = subprocess.run(
        [*map(str, command), "-C", f"build-dir={out / 'build'}"],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "deprecated" not in (done.stdout + done.stderr).lower()
    (path,) = (p for p in out.iterdir() if p.is_file())
    return path


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def files(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def metadata(files: dict[str, bytes]) -> Message:
    return Parser().parsestr(files[INFO + "METADATA"].decode())


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tarfile.TarInfo]:
    path = build("sdist", tmp_path_factory.mktemp("sdist"))
    with tarfile.open(path) as archive:
        prefix = f"gputap-{gputap.__version__}/"
        assert all(m.name.startswith(prefix) for m in archive)
        return {m.name.removeprefix(prefix): m for m in archive}


def sources() -> set[str]:
    """Python files and data of this checkout, by their place in the package."""
    found = {f"gputap/{p.name}" for p in (ROOT / "gputap").glob("*.py")} | {"gputap/py.typed"}
    found |= {f"gputap/demo/{p.name}" for p in (ROOT / "gputap/demo").glob("*.py")}
    for layer in LAYERS:
        found |= {f"gputap/{p.relative_to(ROOT)}" for p in (ROOT / layer).rglob("*.py")}
    assets = (p for p in (ROOT / "dashboards/assets").rglob("*") if p.is_file())
    return found | {f"gputap/{p.relative_to(ROOT)}" for p in assets}


def test_one_wheel_for_every_python(wheel: Path, files: dict[str, bytes]) -> None:
    assert wheel.name == f"gputap-{gputap.__version__}-py3-none-linux_x86_64.whl"
    written = Parser().parsestr(files[INFO + "WHEEL"].decode())
    assert written.get_all("Tag") == ["py3-none-linux_x86_64"]
    assert written["Root-Is-Purelib"] == "false"


def test_wheel_holds_the_package_and_nothing_else(files: dict[str, bytes]) -> None:
    inside = {name for name in files if not name.startswith(INFO)}
    assert inside == (sources() - DEVELOPERS_ONLY) | NATIVE


def test_wheel_holds_what_the_agent_and_the_pages_need(files: dict[str, bytes]) -> None:
    snippets = "gputap/injectors/library/snippets/"
    assert {f"{snippets}{n}.py" for n in ("modules", "describe", "selftest")} <= files.keys()
    assert "gputap/dashboards/assets/report.js" in files
    assert "gputap/py.typed" in files
    assert files[INFO + "licenses/LICENSE"] == (ROOT / "LICENSE").read_bytes()


def test_wheel_is_installed_under_one_name_only(files: dict[str, bytes]) -> None:
    assert {name.split("/")[0] for name in files} == {"gputap", INFO.rstrip("/")}


def test_helper_can_be_executed_and_nothing_is_a_link(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        modes = {i.filename: i.external_attr >> 16 for i in archive.infolist()}
    assert modes[BIN + "gputap-inject"] & 0o777 == 0o755
    assert not [name for name, mode in modes.items() if stat.S_ISLNK(mode)]
    assert all(mode & 0o444 == 0o444 for mode in modes.values())


@pytest.mark.skipif(shutil.which("readelf") is None, reason="needs binutils")
@pytest.mark.parametrize("name", sorted(NATIVE), ids=lambda name: name.removeprefix(BIN))
def test_native_parts_run_on_old_systems(
    name: str, files: dict[str, bytes], tmp_path: Path
) -> None:
    path = tmp_path / "part"
    path.write_bytes(files[name])
    shown = subprocess.run(
        ["readelf", "-W", "-d", "-l", "--version-info", str(path)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    needed = re.findall(r"\(NEEDED\).*\[(.*)\]", shown)
    versions = [tuple(map(int, v.split("."))) for v in re.findall(r"GLIBC_([0-9.]+)", shown)]
    assert set(needed) <= {"libc.so.6"}
    assert all(version <= OLDEST_GLIBC for version in versions)
    if name.endswith(".so"):
        assert needed == []
    # Hardened targets refuse a library that asks for an executable stack.
    assert re.search(r"GNU_STACK.* RW +0x", shown)


def test_no_path_of_the_build_machine_is_left(files: dict[str, bytes]) -> None:
    for name, content in files.items():
        assert str(ROOT).encode() not in content, name


def test_record_lists_every_file_with_its_hash(files: dict[str, bytes]) -> None:
    rows = list(csv.reader(io.StringIO(files[INFO + "RECORD"].decode())))
    assert sorted(row[0] for row in rows) == sorted(files)
    for name, digest, size in rows:
        if name == INFO + "RECORD":
            continue
        content = files[name]
        hashed = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=")
        assert (digest, int(size)) == (f"sha256={hashed.decode()}", len(content))


def test_metadata(metadata: Message) -> None:
    assert (metadata["Name"], metadata["Version"]) == ("gputap", gputap.__version__)
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata.get_all("License-File") == ["LICENSE"]
    assert metadata["Requires-Python"] == ">=3.10"
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    assert str(metadata.get_payload()).strip() == (ROOT / "README.md").read_text().strip()
    classifiers = metadata.get_all("Classifier", [])
    assert not [c for c in classifiers if c.startswith("License ::")]  # PEP 639 forbids both


def test_dependencies_have_lower_bounds_and_torch_is_none_of_them(metadata: Message) -> None:
    required = [d for d in metadata.get_all("Requires-Dist", []) if "extra ==" not in d]
    names = {re.split(r"[^\w-]", d)[0] for d in required}
    assert all(re.search(r"[>=]=", d) for d in required)
    assert {"numpy", "pyarrow", "duckdb", "typer"} <= names
    assert not names & {"torch", "bcc", "pandas"}


def test_entry_point(files: dict[str, bytes]) -> None:
    parser = configparser.ConfigParser()
    parser.read_string(files[INFO + "entry_points.txt"].decode())
    assert parser.sections() == ["console_scripts"]
    assert dict(parser["console_scripts"]) == {"gputap": "gputap.cli:main"}


@pytest.mark.parametrize("name", [*LAYERS, "cli.py"])
def test_sdist_keeps_the_links(name: str, sdist: dict[str, tarfile.TarInfo]) -> None:
    link = sdist[f"gputap/{name}"]
    assert link.issym()
    assert link.linkname == f"../{name}"


def test_sdist_has_the_sources_once_and_nothing_that_was_built(
    sdist: dict[str, tarfile.TarInfo],
) -> None:
    linked = tuple(f"gputap/{layer}/" for layer in LAYERS)
    assert not [name for name in sdist if name.startswith(linked)]
    native = [p for p in ROOT.glob("injectors/*/native/*") if p.is_file()]
    assert {str(p.relative_to(ROOT)) for p in native} <= sdist.keys()
    assert {"LICENSE", "README.md", "CMakeLists.txt", "pyproject.toml", "PKG-INFO"} <= sdist.keys()
    built = re.compile(r"(^|/)(bin|build|dist|__pycache__|\.venv|\.git)/|\.(so|o|pyc|whl)$")
    assert not [name for name in sdist if built.search(name)]


def test_setup_installs_the_backend_that_the_package_asks_for() -> None:
    (asked,) = re.findall(r'requires = \["(.*)"\]', (ROOT / "pyproject.toml").read_text())
    assert f"BACKEND='{asked}'" in (ROOT / "tools/setup.sh").read_text()
