"""How numbers and foreign strings are written for people: units, three digits, nothing hostile."""

from __future__ import annotations

import re
from typing import Any, Final

_UNSAFE: Final = re.compile(
    # Terminal controls (ESC starts a sequence), line breaks, and bidirectional overrides, which
    # make a name read as another one; lone surrogates cannot be encoded at all.
    "[\x00-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
_DURATIONS: Final = ((1, "ns"), (1_000, "µs"), (1_000_000, "ms"), (1_000_000_000, "s"))
_SIZES: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def clean(value: object) -> str:
    """`value` as one line with nothing that could steer a terminal or turn text around."""
    return _UNSAFE.sub("\N{REPLACEMENT CHARACTER}", str(value))


def shorten(text: str, width: int, *, ellipsis: str = "…") -> str:
    """`text` in at most `width` characters. The end is kept: it tells names apart."""
    if len(text) <= width:
        return text
    return ellipsis + text[len(text) - width + len(ellipsis) :]


def duration(ns: float) -> str:
    """A length of time with three digits: 412 ns, 83.1 µs, 18.2 ms, 1.82 s, 3 min 20 s."""
    if abs(ns) >= 99.95e9:
        whole = round(abs(ns) / 1e9)
        return f"{'-' if ns < 0 else ''}{whole // 60} min {whole % 60} s"
    for scale, unit in _DURATIONS:
        value = ns / scale
        if abs(value) < 999.5 or unit == "s":
            return f"{_digits(value, whole=scale == 1)} {unit}"
    raise AssertionError("unreachable")


def _digits(value: float, *, whole: bool = False) -> str:
    """`value` with three digits, or none after the point."""
    size = abs(value)
    if whole or size >= 99.95 or size == 0:
        return f"{value:.0f}"
    return f"{value:.1f}" if size >= 9.995 else f"{value:.2f}"


def share(part: float) -> str:
    """A ratio as a percentage: 56%, 1.5%, <0.1%, 0%."""
    size = abs(part)
    if 0 < size < 0.001:
        return "<0.1%"
    return f"{part:.0%}" if size >= 0.0995 or size == 0 else f"{part:.1%}"


def count(number: int) -> str:
    """A whole number with thousands apart."""
    return f"{number:,}"


def plural(number: int, noun: str) -> str:
    """`1 step`, `2,000 steps`."""
    return f"{count(number)} {noun}{'' if number == 1 else 's'}"


def size(number: float) -> str:
    """Bytes in binary units with three digits."""
    value, unit = float(number), 0
    while abs(value) >= 999.5 and unit < len(_SIZES) - 1:
        value, unit = value / 1024, unit + 1
    return f"{_digits(value, whole=unit == 0)} {_SIZES[unit]}"


def label(key: str) -> str:
    """The words of a key, without the unit that its value is written with."""
    return clean(re.sub(r"_(ns|share|ratio|bytes)$", "", key).replace("_", " "))


def value(key: str, data: Any) -> str:
    """`data` as its key says: `*_ns` is time, `*share` and `*ratio` parts, `*bytes` sizes."""
    if data is None:
        return "not known"
    if isinstance(data, bool):
        return "yes" if data else "no"
    if isinstance(data, int | float):
        return _number(key, data)
    if isinstance(data, dict):
        return ", ".join(f"{label(str(k))} {value(str(k), v)}" for k, v in data.items())
    if isinstance(data, list | tuple):
        return ", ".join(value(key, item) for item in data)
    return clean(data)


def _number(key: str, data: int | float) -> str:
    if key.endswith("_ns"):
        return duration(data)
    if key.endswith("share"):
        return share(data)
    if key.endswith("bytes"):
        return size(data)
    if isinstance(data, int):
        # Identifiers and years are no amounts: no thousands separators.
        return str(data) if key.rsplit("_", 1)[-1] in _IDENTIFIERS else count(data)
    return f"{data:,.3g}" if abs(data) < 1000 else f"{data:,.0f}"


_IDENTIFIERS: Final = frozenset({"pid", "tid", "rank", "step", "line", "port", "id", "seq"})
