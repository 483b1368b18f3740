"""The command line answers at once: what is heavy is imported by the command that needs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import synthetic

HEAVY = {
    "duckdb",
    "google",
    "grpc",
    "numpy",
    "opentelemetry",
    "pandas",
    "plotly",
    "pyarrow",
    "requests",
    "rich",
    "torch",
}
PROGRAM = """
import sys
from gputap import cli
try:
    cli.main(sys.argv[1:])
except SystemExit as ended:
    print(*{name.split(".")[0] for name in sys.modules}, file=sys.stderr)
    sys.exit(ended.code)
"""


def imported(*arguments: str) -> set[str]:
    """Top-level names of the modules that a command line has imported when it ends."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout
    return set(done.stderr.splitlines()[-1].split())


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["attach", "--help"], ["query", "-h"]], ids=" ".join
)
def test_help_and_version_import_nothing_heavy(arguments: list[str]) -> None:
    assert not imported(*arguments) & HEAVY


def test_analysis_needs_no_pandas(tmp_path: Path) -> None:
    capture = synthetic.capture(tmp_path / "c", steps=5).path
    assert {"pyarrow", "plotly"} <= (found := imported("report", str(capture)))
    assert "pandas" not in found
    assert "pandas" not in imported("query", str(capture), "SELECT count(*) FROM events", "--json")


@pytest.mark.parametrize("arguments", [["ps", "--json"], ["doctor", "--json"]], ids=" ".join)
def test_looking_around_needs_no_data_libraries(arguments: list[str]) -> None:
    heavy = {"duckdb", "pyarrow", "plotly", "opentelemetry", "pandas", "torch"}
    assert not imported(*arguments) & heavy


def test_the_package_itself_imports_nothing_of_others() -> None:
    program = (
        "import sys; before = set(sys.modules); import gputap; print(*set(sys.modules)-before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    tops = {name.split(".")[0] for name in done.stdout.split()}
    assert tops - sys.stdlib_module_names <= {"gputap"}


def test_a_user_s_own_modules_do_not_shadow_ours(tmp_path: Path) -> None:
    """Their folder is searched first, whether gputap is a program or run by `python -m`."""
    for name in ("profiler", "injectors", "exporters", "dashboards", "cli"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the user has it too')\n")
    for command in (["-m", "gputap.cli", "ps", "--json"], ["-m", "gputap.cli", "--version"]):
        done = subprocess.run(
            [sys.executable, *command],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
