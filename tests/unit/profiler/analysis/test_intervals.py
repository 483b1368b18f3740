from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from gputap.profiler.analysis.intervals import (
    clip_overlaps,
    containing,
    nest,
    outermost,
    union,
)

Span = tuple[int, int]
FEW = settings(max_examples=80, deadline=None)
spans = st.lists(
    st.tuples(st.integers(0, 60), st.integers(0, 20)).map(lambda p: (p[0], p[0] + p[1])),
    max_size=25,
)


def arrays(items: list[Span]) -> tuple[np.ndarray, np.ndarray]:
    table = np.array(items, np.int64).reshape(-1, 2)
    return table[:, 0].copy(), table[:, 1].copy()


def covered_points(items: list[Span], lo: int, hi: int) -> int:
    return sum(any(s <= t < e for s, e in items) for t in range(lo, hi))


@FEW
@given(spans, st.integers(-5, 90), st.integers(0, 90))
def test_union_covers_what_single_points_say(items: list[Span], lo: int, length: int) -> None:
    found = union(*arrays(items)).covered(np.array([lo]), np.array([lo + length]))
    assert found.tolist() == [covered_points(items, lo, lo + length)]


@FEW
@given(spans)
def test_union_is_disjoint_and_complete(items: list[Span]) -> None:
    merged = union(*arrays(items))
    assert np.all(merged.start[1:] > merged.end[:-1])
    assert int(merged.before[-1]) == covered_points(items, 0, 90)


def test_overlapping_spans_count_once() -> None:
    merged = union(*arrays([(30, 40), (0, 10), (5, 20)]))
    assert list(zip(merged.start.tolist(), merged.end.tolist(), strict=True)) == [(0, 20), (30, 40)]


def test_containing_is_half_open() -> None:
    start, end = arrays([(10, 20), (20, 30)])
    assert containing(np.array([9, 10, 19, 20, 30]), start, end).tolist() == [-1, 0, 0, 1, -1]


def test_outermost_keeps_neighbours_that_touch() -> None:
    start, end = arrays([(0, 10), (2, 5), (10, 12)])
    assert outermost(start, end).tolist() == [True, False, True]


@FEW
@given(spans)
def test_clipped_spans_are_disjoint_and_cover_the_same(items: list[Span]) -> None:
    items = sorted(items)
    start, end = clip_overlaps(*arrays(items))
    assert np.all(start[1:] >= end[:-1])
    assert np.all(end >= start)
    assert int((end - start).sum()) == covered_points(items, 0, 90)


# --------------------------------------------------------------------------------- nesting


@st.composite
def trees(draw: st.DrawFn) -> list[tuple[int, int, int]]:
    """Properly nested events (track, start, end), sorted as the tables are."""
    events: list[tuple[int, int, int]] = []

    def fill(track: int, lo: int, hi: int, depth: int) -> None:
        at = lo
        while at < hi and len(events) < 60:
            at += draw(st.integers(0, 3))
            end = at + draw(st.integers(0, 12))
            if end > hi:
                return
            events.append((track, at, end))
            if depth < 4 and draw(st.booleans()):
                fill(track, at, end, depth + 1)
            at = max(end, at + 1)

    for track in draw(st.lists(st.integers(1, 9), min_size=1, max_size=3, unique=True)):
        fill(track, draw(st.integers(0, 5)), 60, 0)
    return sorted(events, key=lambda e: (e[0], e[1], -e[2]))


def reference(events: list[tuple[int, int, int]]) -> tuple[list[int], list[int]]:
    """Parents and self times with a stack, one event after the other."""
    parents: list[int] = []
    own = [end - start for _, start, end in events]
    stack: list[int] = []
    for i, (track, start, end) in enumerate(events):
        while stack and (events[stack[-1]][0] != track or events[stack[-1]][2] <= start):
            stack.pop()
        parents.append(stack[-1] if stack else -1)
        if stack:
            own[stack[-1]] -= end - start
        if end > start:
            stack.append(i)
    return parents, own


@FEW
@given(trees())
def test_nesting_is_that_of_a_stack(events: list[tuple[int, int, int]]) -> None:
    table = np.array(events, np.int64).reshape(-1, 3)
    found = nest(table[:, 0], table[:, 1], table[:, 2])
    parents, own = reference(events)
    assert found.parent.tolist() == parents
    assert found.self_ns.tolist() == own


@FEW
@given(st.lists(st.tuples(st.integers(1, 2), st.integers(0, 40), st.integers(0, 15)), max_size=30))
def test_self_times_never_exceed_what_is_covered(raw: list[tuple[int, int, int]]) -> None:
    events = sorted(((t, s, s + n) for t, s, n in raw), key=lambda e: (e[0], e[1], -e[2]))
    table = np.array(events, np.int64).reshape(-1, 3)
    own = nest(table[:, 0], table[:, 1], table[:, 2]).self_ns
    assert np.all(own >= 0)
    for track in (1, 2):
        mine = [(s, e) for t, s, e in events if t == track]
        assert int(own[table[:, 0] == track].sum()) <= covered_points(mine, 0, 60)


def test_no_events_nest_in_nothing() -> None:
    none = np.zeros(0, np.int64)
    assert len(nest(none, none, none).parent) == 0
    assert union(none, none).covered(np.array([0]), np.array([9])).tolist() == [0]
