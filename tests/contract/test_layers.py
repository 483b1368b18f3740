"""Imports go one way: core <- injectors, exporters, dashboards <- cli."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ALLOWED = {
    "profiler": {"profiler"},
    "injectors": {"profiler", "injectors"},
    "exporters": {"profiler", "exporters"},
    "dashboards": {"profiler", "dashboards"},
}
FILES = sorted(p for layer in ALLOWED for p in (ROOT / layer).rglob("*.py"))


def imported_layers(path: Path) -> set[str]:
    """Our own layers that the file at `path` imports, at top level or inside a function."""
    layers: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        layers |= {n.split(".")[1] for n in names if n.startswith("gputap.") and "__" not in n}
        bare = {n.split(".")[0] for n in names} & set(ALLOWED)
        assert not bare, f"{path} imports bare {bare}"
    return layers


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_layer_imports_only_what_it_may(path: Path) -> None:
    layer = path.relative_to(ROOT).parts[0]
    assert imported_layers(path) <= ALLOWED[layer]


def test_analysis_renders_nothing() -> None:
    for path in (ROOT / "profiler" / "analysis").rglob("*.py"):
        text = path.read_text()
        for word in ("import plotly", "import rich", "print("):
            assert word not in text, f"{path}: {word}"


@pytest.mark.parametrize("name", ["profiler", "injectors", "exporters", "dashboards", "cli.py"])
def test_import_name_is_a_relative_link(name: str) -> None:
    link = ROOT / "gputap" / name
    assert link.is_symlink()
    assert not Path(link.readlink()).is_absolute()
