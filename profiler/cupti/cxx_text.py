"""Cutting the text of a C++ name at its own joints: brackets are never cut through."""

from __future__ import annotations

from typing import Final

_OPEN: Final = "<([{"
_CLOSE: Final = ">)]}"


def split(text: str, separator: str) -> list[str]:
    """Cut at each separator that is in no bracket."""
    parts, depth, start, at = [], 0, 0, 0
    while at < len(text):
        letter = text[at]
        if letter in _OPEN:
            depth += 1
        elif letter in _CLOSE and not text.startswith("->", at - 1):
            depth = max(depth - 1, 0)
        elif depth == 0 and text.startswith(separator, at):
            parts.append(text[start:at])
            at += len(separator)
            start = at
            continue
        at += 1
    parts.append(text[start:])
    return parts


def without_parameters(text: str) -> str:
    """A function without its result, parameters and what follows them."""
    components = split(text, "::")
    last = components[-1]
    at = _parameters(last)
    components[-1] = last[:at] if at >= 0 else last
    whole = "::".join(components)
    return split(whole, " ")[-1] if at >= 0 else whole


def _parameters(component: str) -> int:
    """Where the parameters of the last component begin; -1 if it has none."""
    start = len("operator()") if component.startswith("operator()") else 0
    depth = 0
    for at in range(start, len(component)):
        letter = component[at]
        if letter == "(" and depth == 0:
            # `(anonymous namespace)` and `(Enumeration)2` begin with it.
            return at if at > 0 else -1
        depth += (letter in _OPEN) - (letter in _CLOSE)
    return -1


def name_and_arguments(component: str) -> tuple[str, list[str]]:
    """`f<a, b>` to `f` and [`a`, `b`]; what comes after the `>` is left out."""
    at = component.find("<")
    if at < 0 or component.startswith("operator"):
        return component, []
    depth = 0
    for end in range(at, len(component)):
        depth += (component[end] in _OPEN) - (component[end] in _CLOSE)
        if depth == 0:
            inner = component[at + 1 : end].strip()
            return component[:at], [part.strip() for part in split(inner, ",")] if inner else []
    # Not closed: the name was cut off.
    return component[:at], [part.strip() for part in split(component[at + 1 :], ",")]
