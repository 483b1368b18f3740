"""Puts places in a program into the order in which its source runs them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from gputap.profiler.analysis.load import Frame

Path = Sequence[Frame]

_HERE: Final = Frame("", "", 0, None, None)
"""Ends every path: what a frame does itself stands beside what it calls from the same line."""


def ranks(paths: Sequence[Path], first_seen: Sequence[int]) -> list[int]:
    """Rank of each path of frames, outermost first; equal for equal paths.

    Frames of one function are ordered by line; calls from one line by number, if the modules are
    numbered, else by which was seen first, as are different functions called from one line.
    """
    ended = [(*path, _HERE) for path in paths]
    order = sorted(range(len(paths)), key=lambda i: first_seen[i])
    tree: dict[tuple[Frame, ...], dict[Frame, int]] = {}
    for i in order:
        for depth, frame in enumerate(ended[i]):
            children = tree.setdefault(ended[i][:depth], {})
            children.setdefault(frame, len(children))
    keys = {prefix: _keys(children) for prefix, children in tree.items()}
    full = [[keys[p[:d]][frame] for d, frame in enumerate(p)] for p in ended]
    place = {tuple(key): i for i, key in enumerate(sorted(full))}
    return [place[tuple(key)] for key in full]


def _keys(children: dict[Frame, int]) -> dict[Frame, int]:
    """Order of the frames that were called from one place."""
    functions: dict[tuple[str, str], int] = {}
    for frame in children:
        functions.setdefault((frame.function, frame.file), len(functions))
    numbers = {frame: _number(frame.module) for frame in children}
    numbered = all(n is not None for n in numbers.values())

    def key(frame: Frame) -> tuple[int, int, int]:
        number = numbers[frame]
        turn = number if numbered and number is not None else children[frame]
        return functions[frame.function, frame.file], frame.line, turn

    return {frame: i for i, frame in enumerate(sorted(children, key=key))}


def _number(module: str | None) -> int | None:
    found = re.search(r"(\d+)$", module or "")
    return int(found[1]) if found else None
