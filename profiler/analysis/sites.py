"""From where in the program a scope was entered, and which of two such places comes first.

A loop body runs downwards and then goes back up. So of two calls that follow one another in
time, the later one belongs to the same turn of the loop if it stands further down in the code
that the two have in common, and to the next turn if it stands higher up, or is the same.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gputap.profiler.analysis.intervals import Ints, Mask
from gputap.profiler.analysis.load import Frame, RankData
from gputap.profiler.analysis.track import Scopes

Site = tuple[str, tuple[Frame, ...]]

_LONGEST_CYCLE = 16
_FEW = 6


def labels(data: RankData, scopes: Scopes) -> npt.NDArray[np.int64]:
    """A number per scope; equal for equal name and Python stack."""
    return _sites(data, scopes)[0]


def rare(label: Ints, step: Ints, steps: int) -> Ints:
    """Labels seen in at most half of the steps.

    Where none is seen in more than half, those that come several times wherever they are seen.
    """
    pairs = np.unique(np.stack([label, step]), axis=1)
    found, seen, times = (
        *np.unique(pairs[0], return_counts=True),
        np.unique(label, return_counts=True)[1],
    )
    usual = seen * 2 > steps
    if usual.any():
        chosen = ~usual
    else:
        chosen = times >= 2 * seen if steps >= _FEW else np.zeros(len(found), bool)
    sites: Ints = found[chosen]
    return sites


def continues(data: RankData, marks: Scopes, joined: Mask) -> Mask:
    """For each neighbouring pair of marks: both belong to the same turn of the loop.

    `joined` pairs do in any case. Others do if the second stands further down, and if that is
    how they usually follow one another (a warm-up loop above the main one is no turn of it).
    """
    label, places = _sites(data, marks)
    before, after = label[:-1], label[1:]
    free = ~joined & (before != after)
    result: Mask = joined.copy()
    unordered = np.zeros(len(result), np.bool_)
    for a, b in {*zip(before[free].tolist(), after[free].tolist(), strict=True)}:
        pair = free & (before == a) & (after == b)
        down = further_down(places[a][1], places[b][1])
        if down is None:
            unordered |= pair
        elif down and 2 * pair.sum() >= min((label == a).sum(), (label == b).sum()):
            result |= pair
    if unordered.any():
        result |= _in_cycle(label, marks) & unordered
    return result


def ends_turn(data: RankData, marks: Scopes, joined: Mask, inside: Mask) -> Mask:
    """Which marks end a turn, given which pairs lie inside one (`continues`).

    The last mark ends one unless its like usually go on: then the window's edge cut the turn.
    """
    ends: Mask = ~np.append(inside, False)
    label = labels(data, marks)
    before = (inside & ~joined)[label[:-1] == label[-1]]
    ends[-1] = not len(before) or 2 * int(before.sum()) <= len(before)
    return ends


def _sites(data: RankData, scopes: Scopes) -> tuple[npt.NDArray[np.int64], list[Site]]:
    names = data.events.name[scopes.row].astype(np.int64)
    stacks = data.events.stack_id[scopes.row].astype(np.int64)
    key = (names << 32) + (stacks + 1)
    unique, inverse = np.unique(key, return_inverse=True)
    places: dict[Site, int] = {}
    table = [
        places.setdefault(
            (data.events.names[k >> 32], data.stacks.frames((k & 0xFFFFFFFF) - 1)), len(places)
        )
        for k in unique.tolist()
    ]
    return np.array(table, np.int64)[inverse], list(places)


def further_down(a: tuple[Frame, ...], b: tuple[Frame, ...]) -> bool | None:
    """Whether `b` stands below `a` in the innermost code they share; None if they share none."""
    for one, other in zip(reversed(a), reversed(b), strict=False):
        if one == other:
            continue
        if (one.function, one.file) != (other.function, other.file):
            return None
        return other.line > one.line if other.line != one.line else None
    return None


def _in_cycle(label: Ints, marks: Scopes) -> Mask:
    """Without places to compare: a regular cycle turns where the pause is longest."""
    inside = np.zeros(len(label) - 1, np.bool_)
    for period in range(2, min(_LONGEST_CYCLE, len(label) // 2) + 1):
        if np.array_equal(label[period:], label[:-period]):
            pause = marks.start[1:] - marks.end[:-1]
            phase = np.arange(len(pause)) % period
            means = [float(np.median(pause[phase == p])) for p in range(period)]
            inside = phase != int(np.argmax(means))
            break
    return inside
