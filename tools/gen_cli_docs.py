"""Write docs/cli.md from the command line itself: its options, defaults, examples, exit codes.

`python tools/gen_cli_docs.py` writes the page, `--check` fails when it is stale. The page is made
from the declarations, not from the printed help, whose layout depends on typer's version.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from gputap import cli
from gputap.profiler import errors

PAGE = Path(__file__).resolve().parent.parent / "docs" / "cli.md"

INTRODUCTION = """\
# Command line

Generated from `cli.py` by `make gen`. Do not edit.

What a command was asked for goes to stdout, everything else to stderr. With `--json` stdout is one
JSON document. `gputap --help` and `gputap COMMAND --help` say what is on this page;
`gputap --version` prints the version.
"""


def commands() -> dict[str, Any]:
    """Every command by name, in the order of the help."""
    group: Any = typer.main.get_command(cli.app)
    return {name: command for name, command in group.commands.items() if not command.hidden}


def usage(name: str, command: Any) -> str:
    """`gputap export [OPTIONS] CAPTURE`."""
    arguments = (shown_argument(p) for p in command.params if is_argument(p))
    return " ".join(["gputap", name, "[OPTIONS]", *arguments])


def shown_argument(argument: Any) -> str:
    """`[PID]...` for one that may be left out, or given more than once."""
    shown = argument.metavar or argument.name.upper()
    return f"{shown if argument.required else f'[{shown}]'}{'...' if argument.nargs != 1 else ''}"


def is_argument(parameter: Any) -> bool:
    """Whether it is given by its place, not by its name."""
    return not parameter.opts[0].startswith("-")


def option_row(option: Any) -> str:
    """One row of a command's table."""
    value = "" if option.is_flag else f" {option.metavar or option.name.upper().rstrip('_')}"
    names = [*sorted(option.opts, key=len), *option.secondary_opts]
    shown = ", ".join(f"`{name}{value if name.startswith('--') else ''}`" for name in names)
    return f"| {shown} | {option.help} | {default_of(option)} |"


def default_of(option: Any) -> str:
    """What holds where the option is not given."""
    if option.is_flag:
        # Only a flag with a name for "no" can be on by itself.
        return f"`{option.opts[0]}`" if option.default and option.secondary_opts else ""
    if option.default is None or option.default == sys.executable:
        return ""
    return f"`{option.default}`"


def section(name: str, command: Any) -> Iterator[str]:
    """The part of the page for one command."""
    yield f"## gputap {name}"
    yield ""
    yield "```"
    yield usage(name, command)
    yield "```"
    yield ""
    yield " ".join(part for part in (command.help or "").split("\n") if part)
    yield ""
    for parameter in command.params:
        if is_argument(parameter):
            yield f"* `{shown_argument(parameter)}`: {parameter.help}"
    if any(is_argument(p) for p in command.params):
        yield ""
    options = [option_row(p) for p in command.params if not is_argument(p)]
    if options:
        yield "| option | meaning | default |"
        yield "|---|---|---|"
        yield from options
        yield ""
    yield "```"
    yield (command.epilog or "").removeprefix("Example: ")
    yield "```"
    yield ""


def exit_codes() -> Iterator[str]:
    """The table of exit codes: those of the error tree, and what Ctrl-C gives."""
    meanings = {
        0: "Done.",
        errors.ProfilerError.exit_code: "Failed; stderr says why, and what to do next.",
        130: "Interrupted by Ctrl-C before there was anything to keep.",
    }
    pending: list[type[errors.ProfilerError]] = [errors.ProfilerError]
    for kind in pending:
        pending += kind.__subclasses__()
        meanings.setdefault(kind.exit_code, (kind.__doc__ or "").split("\n")[0])
    yield "## Exit codes"
    yield ""
    yield "| code | meaning |"
    yield "|---|---|"
    yield from (f"| {code} | {meaning} |" for code, meaning in sorted(meanings.items()))
    yield ""


def page() -> str:
    """The whole of `docs/cli.md`."""
    lines = [INTRODUCTION, "| command | |", "|---|---|"]
    for name, command in commands().items():
        summary = (command.help or "").split("\n")[0]
        lines.append(f"| [`{name}`](#gputap-{name}) | {summary} |")
    lines.append("")
    for name, command in commands().items():
        lines += section(name, command)
    lines += exit_codes()
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Write, or with `--check` compare. Returns the exit code."""
    fresh = PAGE.exists() and PAGE.read_text() == page()
    if "--check" in arguments:
        if not fresh:
            print(f"stale: docs/{PAGE.name}; run `make gen`", file=sys.stderr)
        return 0 if fresh else 1
    if not fresh:
        PAGE.write_text(page())
        print(f"wrote docs/{PAGE.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
