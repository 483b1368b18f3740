"""The command line: one function per verb, options and wiring only.

stdout is data, stderr is talk. Exit codes: 0 ok, 1 failed, 2 usage, 3 target refused, 4 lossy
under --strict, 5 regression found.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click
import typer

from gputap.profiler.errors import ProfilerError, UsageError

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(
    name="gputap",
    help="Tap a running PyTorch process by PID; see what it does, and what holds it back.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

CaptureArgument = Annotated[Path, typer.Argument(help="Directory that `gputap attach -o` wrote.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]


def talk() -> Console:
    """Console for people, on stderr."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def print_json(data: Any) -> None:
    """One JSON document on stdout."""
    import json

    sys.stdout.write(json.dumps(data, indent=2, ensure_ascii=False, default=str) + "\n")


def version(show: bool) -> None:
    """Print the version and leave."""
    if show:
        from gputap import __version__

        sys.stdout.write(f"gputap {__version__}\n")
        raise typer.Exit


@app.callback()
def options(
    _version: Annotated[
        bool, typer.Option("--version", callback=version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Tap a running PyTorch process by PID; see what it does, and what holds it back."""
