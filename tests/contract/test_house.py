"""Rules of the house that no linter knows."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAYERS = {"profiler", "injectors", "exporters", "dashboards", "cli"}
LINKS = {"profiler", "injectors", "exporters", "dashboards", "cli.py"}
LONG = 500


def git(*arguments: str) -> str:
    command = ["git", "-c", "safe.directory=*", "-C", str(ROOT), *arguments]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError) as exc:
        pytest.skip(f"not a git checkout: {exc}")


@pytest.fixture(scope="module")
def tracked() -> list[Path]:
    """Every file under version control that is here, links left out."""
    found = (ROOT / name for name in git("ls-files", "-z").split("\0") if name)
    return [path for path in found if path.is_file() and not path.is_symlink()]


def python_files() -> list[Path]:
    folders = ["benchmarks", "tests", "tools", *sorted(LAYERS - {"cli"}), "gputap/demo"]
    found = [p for folder in folders for p in (ROOT / folder).rglob("*.py")]
    return [*found, ROOT / "cli.py", ROOT / "gputap" / "__init__.py"]


def test_links_are_links_in_the_repository_as_well() -> None:
    rows = [line.split(maxsplit=3) for line in git("ls-files", "-s", "gputap").splitlines()]
    modes = {name.removeprefix("gputap/"): mode for mode, _, _, name in rows}
    assert {name for name, mode in modes.items() if mode == "120000"} == LINKS


@pytest.mark.parametrize("name", sorted(LINKS))
def test_links_lead_to_the_root_folders(name: str) -> None:
    link = ROOT / "gputap" / name
    assert str(link.readlink()) == f"../{name}"
    assert link.resolve() == ROOT / name


def test_nobody_imports_a_layer_by_its_bare_name() -> None:
    """One file under two names would be two modules with two sets of classes."""
    for path in python_files():
        for node in ast.walk(ast.parse(path.read_text())):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            bare = {name.split(".")[0] for name in names} & LAYERS
            assert not bare, f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)} {bare}"


def test_no_header_of_nvidia_is_in_the_tree(tracked: list[Path]) -> None:
    names = re.compile(
        r"(cuda|cupti|cublas|cudnn|nccl|nvml|nvtx|driver_types).*\.h$", re.IGNORECASE
    )
    for path in tracked:
        assert not names.match(path.name), path
        if path.suffix in {".h", ".hpp", ".c", ".cpp", ".cu"}:
            text = path.read_text(errors="replace")
            assert not re.search(r"(?i)copyright.*nvidia", text), path


def test_native_code_includes_nothing_of_python_torch_or_cuda() -> None:
    """Else one wheel could not serve every version of them."""
    foreign = re.compile(r'#\s*include\s*[<"](Python\.h|torch/|ATen/|c10/|cuda|cupti|nvml)')
    for path in ROOT.glob("injectors/*/native/*"):
        if path.suffix in {".h", ".c", ".cpp", ".S"}:
            assert not foreign.search(path.read_text()), path


def test_what_is_run_directly_is_executable(tracked: list[Path]) -> None:
    for path in tracked:
        script = path.suffix == ".sh" or path == ROOT / ".ci" / "run"
        if script:
            assert os.access(path, os.X_OK), path
            assert path.read_text().startswith("#!"), path


def test_nothing_large_or_built_is_under_version_control(tracked: list[Path]) -> None:
    for path in tracked:
        assert path.suffix not in {".so", ".o", ".pyc", ".whl", ".parquet"}, path
        assert path.stat().st_size < 512 * 1024, path


@pytest.mark.filterwarnings("default")
def test_long_files_are_noticed() -> None:
    """Only noticed: where one question takes more lines, it may have them."""
    for path in python_files():
        lines = path.read_text().count("\n")
        if lines > LONG:
            warnings.warn(f"{path.relative_to(ROOT)} has {lines} lines", stacklevel=1)
