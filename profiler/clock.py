"""Time: the agent's ticks, CLOCK_MONOTONIC, unix time, and durations as people type and read them.

The only place where times are converted. Everything is integer arithmetic in ns: an hour of ticks
at 3 GHz has more digits than a float64 keeps apart.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from gputap.profiler.errors import UsageError

Ints = npt.NDArray[np.int64]

MAX_SAMPLES: Final = 8192
"""Clock samples that a session keeps: a quarter of an hour."""

_PRODUCT_BITS: Final = 62
"""(ticks in a segment) * (ns in it) must stay below this many bits, to fit an int64."""

_SLOPE_BITS: Final = 30
"""Beyond the samples time runs at slope / 2**30 ns per tick: 1 ns wrong after a second at most."""

_FAR: Final = 1 << 62
"""Ticks beyond this are nonsense; they are cut so that nothing overflows."""

_SPAN: Final = 1 << 46
"""Samples further apart than this (hours) are not used together; keeps the anchors few."""

_WIDE: Final = 8
"""A bracket so many times wider than the median was interrupted: it says little."""


@dataclass(frozen=True)
class Clock:
    """Ticks to ns. Piecewise linear, monotone, exact at the samples it was made from.

    Make one with `clock_from_samples`; without samples ticks are CLOCK_MONOTONIC ns.
    """

    ticks: Ints
    """Anchors, strictly increasing."""
    mono_ns: Ints
    """CLOCK_MONOTONIC at the anchors, not decreasing."""
    slope: int
    """ns per 2**30 ticks over the whole span, for what lies outside it."""
    offset_ns: int
    """Unix time minus CLOCK_MONOTONIC, one constant."""
    error_ns: int
    """Bound on `to_mono_ns` between the samples: half a bracket plus the residual."""
    drift_ns: int
    """How far unix time moved against CLOCK_MONOTONIC over the samples."""
    samples: int
    """Number of samples it rests on."""

    def to_mono_ns(self, ticks: npt.NDArray[Any]) -> Ints:
        """CLOCK_MONOTONIC of an array of ticks. Vectorised, no copy for ns ticks."""
        at: Ints = ticks.astype(np.int64, copy=False)
        if len(self.ticks) == 0 or len(at) == 0:
            return at
        outside = (at < self.ticks[0]) | (at >= self.ticks[-1])
        if not outside.any():
            return self._between(at)
        out = np.empty_like(at)
        out[~outside] = self._between(at[~outside])
        out[outside] = self._beyond(at[outside])
        return out

    def to_unix_ns(self, ticks: npt.NDArray[Any]) -> Ints:
        """Unix time of an array of ticks."""
        unix: Ints = self.to_mono_ns(ticks) + np.int64(self.offset_ns)
        return unix

    def _between(self, at: Ints) -> Ints:
        if len(at) == 0:
            return at
        segment = np.searchsorted(self.ticks, at, side="right") - 1
        spans, rises = np.diff(self.ticks), np.diff(self.mono_ns)
        # Products fit: see `_subdivided`. uint64 divides faster than int64 and never rounds up.
        product = ((at - self.ticks[segment]) * rises[segment]).view(np.uint64)
        rise: Ints = (product // spans.view(np.uint64)[segment]).view(np.int64)
        return rise + self.mono_ns[segment]

    def _beyond(self, at: Ints) -> Ints:
        at = np.clip(at, -_FAR, _FAR)
        edge = np.where(at < self.ticks[0], 0, len(self.ticks) - 1)
        distance = np.clip(at - self.ticks[edge], -(_FAR >> 3), _FAR >> 3)
        whole, rest = distance >> _SLOPE_BITS, distance & ((1 << _SLOPE_BITS) - 1)
        rise: Ints = whole * self.slope + ((rest * self.slope) >> _SLOPE_BITS)
        mono: Ints = rise + self.mono_ns[edge]
        return mono


def clock_from_samples(samples: npt.NDArray[np.void], *, offset_ns: int | None = None) -> Clock:
    """A clock from `schema.CLOCK_SAMPLE` records in any order.

    Samples with an interrupted (very wide) bracket or out of order are left out. `offset_ns`
    keeps the offset that the session already uses.
    """
    good = _good(samples)
    ticks, mono = good["ticks"].astype(np.int64), good["mono_ns"].astype(np.int64)
    offsets = good["unix_ns"] - mono
    if offset_ns is None:
        offset_ns = int(np.sort(offsets)[len(offsets) // 2]) if len(offsets) else 0
    anchors, mono_anchors = _subdivided(ticks, mono)
    slope = _slope(ticks, mono)
    widest = int(good["width_ticks"].max()) if len(good) else 0
    half_ns = -(-widest * slope >> (_SLOPE_BITS + 1))
    return Clock(
        ticks=anchors,
        mono_ns=mono_anchors,
        slope=slope,
        offset_ns=offset_ns,
        error_ns=half_ns + _residual(ticks, mono) + 1 if len(good) else 0,
        drift_ns=int(np.ptp(offsets)) if len(offsets) else 0,
        samples=len(good),
    )


class SessionClock:
    """The clock of a running session: takes samples as they come, keeps one offset to the end.

    Bounded: only the last `MAX_SAMPLES` are kept; earlier times are extrapolated from all of them.
    """

    def __init__(self, *, offset_ns: int | None = None) -> None:
        """Give `offset_ns` to share one offset among the ranks of a host."""
        self._offset_ns = offset_ns
        self._samples: npt.NDArray[np.void] | None = None
        self._clock: Clock | None = None

    def add(self, samples: npt.NDArray[np.void]) -> None:
        """Take new samples (`schema.CLOCK_SAMPLE`)."""
        if len(samples) == 0:
            return
        kept = samples if self._samples is None else np.concatenate([self._samples, samples])
        self._samples, self._clock = kept[-MAX_SAMPLES:], None

    def clock(self) -> Clock:
        """The clock from the samples so far. The first call fixes the offset for good."""
        if self._clock is None:
            if self._samples is None:
                return Clock(*_nothing(), 1 << _SLOPE_BITS, self._offset_ns or 0, 0, 0, 0)
            self._clock = clock_from_samples(self._samples, offset_ns=self._offset_ns)
            self._offset_ns = self._clock.offset_ns
        return self._clock


def _nothing() -> tuple[Ints, Ints]:
    return np.empty(0, np.int64), np.empty(0, np.int64)


def _good(samples: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
    """The usable samples: in order, not interrupted, neither clock running backwards."""
    plausible = (samples["ticks"] < _FAR) & (samples["mono_ns"] >= 0) & (samples["mono_ns"] < _FAR)
    usable = samples[plausible & (samples["width_ticks"] < _SPAN)]
    if len(usable) < 2:
        return usable
    usable = usable[usable["width_ticks"] <= _WIDE * np.median(usable["width_ticks"])]
    ordered = usable[np.argsort(usable["ticks"], kind="stable")]
    last = ordered[-1]
    near = (last["ticks"] - ordered["ticks"] < _SPAN) & (
        np.abs(last["mono_ns"] - ordered["mono_ns"]) < _SPAN
    )
    ordered = ordered[near]
    highest = np.maximum.accumulate(ordered["mono_ns"])
    forward = np.ones(len(ordered), bool)
    forward[1:] = (np.diff(ordered["ticks"]) > 0) & (ordered["mono_ns"][1:] > highest[:-1])
    kept: npt.NDArray[np.void] = ordered[forward]
    return kept


def _slope(ticks: Ints, mono: Ints) -> int:
    if len(ticks) < 2:
        return 1 << _SLOPE_BITS
    span, rise = int(ticks[-1] - ticks[0]), int(mono[-1] - mono[0])
    return min(rise * (1 << _SLOPE_BITS) // span, (1 << 32) - 1)


def _subdivided(ticks: Ints, mono: Ints) -> tuple[Ints, Ints]:
    """Anchors with more of them in long segments, so that products in `_between` fit an int64."""
    if len(ticks) < 2:
        return ticks, mono
    t_out, m_out = [int(ticks[0])], [int(mono[0])]
    for (t0, t1), (m0, m1) in zip(pairwise(ticks.tolist()), pairwise(mono.tolist()), strict=True):
        span, rise, pieces = t1 - t0, m1 - m0, 1
        while (span // pieces + 1) * (rise // pieces + 1) >= 1 << _PRODUCT_BITS:
            pieces *= 2
        anchors = [t0 + span * i // pieces for i in range(1, pieces + 1)]
        t_out += anchors
        m_out += [m0 + rise * (at - t0) // span for at in anchors]
    return np.array(t_out, np.int64), np.array(m_out, np.int64)


def _residual(ticks: Ints, mono: Ints) -> int:
    """Largest distance of a sample from the line through its two neighbours."""
    if len(ticks) < 3:
        return 0
    # Within two sample periods a float64 is exact enough for a bound.
    span = (ticks[2:] - ticks[:-2]).astype(np.float64)
    line = (ticks[1:-1] - ticks[:-2]) / span * (mono[2:] - mono[:-2])
    return int(np.ceil(np.abs(line - (mono[1:-1] - mono[:-2])).max()))


def unix_offset_ns(attempts: int = 21) -> int:
    """Unix time minus CLOCK_MONOTONIC now, to some tens of ns: by the tightest of some brackets."""
    tightest, offset = 1 << 62, 0
    for _ in range(attempts):
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        unix = time.time_ns()
        after = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        if after - before < tightest:
            tightest, offset = after - before, unix - (before + after) // 2
    return offset


# ------------------------------------------------------------------------------- durations

NS: Final = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60 * 1_000_000_000,
    "min": 60 * 1_000_000_000,
    "h": 3600 * 1_000_000_000,
    "d": 86400 * 1_000_000_000,
}
"""Units that `parse_duration` knows."""

_PIECE: Final = re.compile(r"([0-9]+)(?:\.([0-9]*))?\s*([a-zµμ]*)\s*", re.ASCII | re.IGNORECASE)
_LARGEST: Final = 1 << 62


def parse_duration(text: str) -> int:
    """`10s`, `2m`, `500ms`, `1h30m`, `1.5s` or a bare number of seconds, as ns.

    Raises UsageError for anything else, negative or absurdly long durations included.
    """
    pieces = _pieces(text.strip())
    bare = len(pieces) == 1 and not pieces[0][2]
    total = 0
    for whole, fraction, unit in pieces:
        size = NS["s"] if bare else NS.get(unit.lower())
        if size is None:
            raise _no_duration(text)
        total += int(whole) * size
        total += int(fraction or 0) * size // 10 ** len(fraction)
    if total > _LARGEST:
        raise _no_duration(text)
    return total


def _pieces(text: str) -> list[tuple[str, str, str]]:
    pieces, at = [], 0
    while at < len(text):
        match = _PIECE.match(text, at)
        if match is None or len(text) > 64:
            raise _no_duration(text)
        pieces.append((match[1], match[2] or "", match[3]))
        at = match.end()
    if not pieces:
        raise _no_duration(text)
    return pieces


def _no_duration(text: str) -> UsageError:
    shown = text if len(text) <= 40 else text[:37] + "..."
    return UsageError(
        f"{shown!r} is no duration.",
        hint="Durations look like 10s, 500ms, 2m or 1h30m; a bare number is seconds.",
    )


def format_duration(ns: int) -> str:
    """The shortest form that `parse_duration` reads back as the same ns: `1h30m`, `500ms`."""
    if ns == 0:
        return "0s"
    out, rest = ("-", -ns) if ns < 0 else ("", ns)
    for unit in ("d", "h", "m", "s", "ms", "us", "ns"):
        count, rest = divmod(rest, NS[unit])
        out += f"{count}{unit}" if count else ""
    return out


def format_ns(ns: float) -> str:
    """ns for reading, three digits: `1.23 ms`, `812 ns`, `2 min 5 s`, `3 h 20 min`."""
    if ns < 0:
        return "-" + format_ns(-ns)
    if round(ns / NS["s"]) >= 60:
        return _format_long(round(ns / NS["s"]))
    for unit, size in (("ns", 1), ("µs", 1_000), ("ms", 1_000_000)):
        # Decide on the rounded figure: 999,999 ns is 1.00 ms, not 1000 µs.
        if float(f"{ns / size:.3g}") < 1000:
            return f"{ns:.0f} ns" if unit == "ns" else f"{_three(ns / size)} {unit}"
    return f"{_three(ns / NS['s'])} s"


def _three(value: float) -> str:
    rounded = float(f"{value:.3g}")
    digits = 2 if rounded < 10 else 1 if rounded < 100 else 0
    return f"{rounded:.{digits}f}"


def _format_long(seconds: int) -> str:
    minutes, second = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes} min {second} s" if second else f"{minutes} min"
    hours, minute = divmod(minutes, 60)
    return f"{hours} h {minute} min" if minute else f"{hours} h"
