"""Python that the agent runs in a target, and what loads it.

Each file is plain Python 3.8 that needs nothing of ours, leaves a JSON text in `result`, and never
raises. It runs with the GIL of somebody else's process: it imports nothing that is not imported,
touches no random state, device or gradient mode, keeps no reference, and lets others run often.
The names in capitals at its top are its arguments; `source` replaces them.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Final

Argument = bool | int | float | str | list[int]

_HERE: Final = Path(__file__).parent


@cache
def _text(name: str) -> str:
    return (_HERE / f"{name}.py").read_text(encoding="utf-8")


def source(name: str, **arguments: Argument) -> str:
    """The source of snippet `name` with its capital-letter defaults replaced.

    Raises KeyError for an argument that the snippet does not have.
    """
    return with_arguments(_text(name), **arguments)


def with_arguments(text: str, **arguments: Argument) -> str:
    """The source `text` with its capital-letter defaults replaced.

    Raises KeyError for an argument that it does not have.
    """
    for key, value in arguments.items():
        pattern = re.compile(rf"^{key.upper()} = .*$", re.MULTILINE)
        if not pattern.search(text):
            raise KeyError(key)
        literal = f"{key.upper()} = {value!r}"
        text = pattern.sub(lambda _, line=literal: line, text, count=1)  # type: ignore[misc]
    return text
