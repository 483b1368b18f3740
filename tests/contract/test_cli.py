"""Every command explains itself: help, an example, its section in docs/cli.md, never stale."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gputap import cli
from gputap.profiler import errors
from tools import gen_cli_docs

COMMANDS = gen_cli_docs.commands()
TREE = (errors.__doc__ or "").replace("\n", " ")


def kinds() -> list[type[errors.ProfilerError]]:
    """The whole error tree, its root first; not what parts of gputap derive for themselves."""
    found: list[type[errors.ProfilerError]] = [errors.ProfilerError]
    for kind in found:
        found += [k for k in kind.__subclasses__() if k.__module__ == errors.__name__]
    return found


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gputap.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_help_ends_with_an_example_of_the_command(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([name, "--help"])
    assert ended.value.code == 0
    last = capsys.readouterr().out.rstrip().splitlines()[-1]
    assert last.strip().startswith(f"Example: gputap {name}")


@pytest.mark.parametrize(("name", "command"), COMMANDS.items(), ids=COMMANDS)
def test_everything_has_a_help_text(name: str, command: Any) -> None:
    assert command.help and command.help.split("\n")[0].endswith(".")
    for parameter in command.params:
        assert parameter.help and parameter.help.endswith("."), f"{name} {parameter.name}"


@pytest.mark.parametrize(("name", "command"), COMMANDS.items(), ids=COMMANDS)
def test_examples_are_command_lines_that_parse(name: str, command: Any) -> None:
    """Options of the example exist: an example that was forgotten at a rename is found here."""
    known = {option for p in command.params for option in (*p.opts, *p.secondary_opts)}
    used = re.findall(r"(?<=\s)--?[a-z][a-z-]*", command.epilog)
    assert set(used) <= known


def test_page_is_fresh() -> None:
    assert gen_cli_docs.main(["--check"]) == 0


def test_check_reports_a_stale_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gen_cli_docs, "PAGE", tmp_path / "cli.md")
    assert gen_cli_docs.main(["--check"]) == 1
    assert "stale: docs/cli.md" in capsys.readouterr().err
    assert gen_cli_docs.main([]) == 0
    assert gen_cli_docs.main(["--check"]) == 0


def test_page_has_every_command_and_exit_code() -> None:
    page = gen_cli_docs.PAGE.read_text()
    for name in COMMANDS:
        assert f"\n## gputap {name}\n" in page
    for code in {0, 130} | {kind.exit_code for kind in kinds()}:
        assert f"\n| {code} | " in page


def test_errors_and_their_codes_are_in_the_tree_that_is_documented() -> None:
    for kind in kinds():
        if "exit_code" in vars(kind):
            assert re.search(rf"\b{kind.__name__} +exit {kind.exit_code}\b", TREE), kind
        assert re.search(rf"\b{kind.__name__}\b", TREE), kind


def test_readme_and_docs_use_commands_that_exist() -> None:
    root = Path(__file__).resolve().parents[2]
    for path in [root / "README.md", *(root / "docs").glob("*.md")]:
        for block in re.findall(r"^```\w*\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE):
            for name in re.findall(r"^\s*(?:\.venv/bin/)?gputap ([a-z]+)", block, re.MULTILINE):
                assert name in COMMANDS, f"{path.name}: gputap {name}"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--version"], 0),
        (["nonsense"], 2),
        (["attach"], 2),
        (["attach", "1", "--all"], 2),
        (["attach", "1", "--duration", "soon"], 2),
        (["query", "/nonexistent", "SELECT 1"], 1),
        (["report", "/nonexistent"], 1),
        (["detach", "4194304"], 3),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_exit_codes(arguments: list[str], code: int) -> None:
    done = run(*arguments)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    if code:
        assert done.stdout == ""
        assert done.stderr
