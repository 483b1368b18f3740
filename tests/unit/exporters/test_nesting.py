from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gputap.exporters.nesting import Nesting, lanes, nest

intervals = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 12)), max_size=40)


def nested(pairs: list[tuple[int, int]]) -> Nesting:
    start = np.array([s for s, _ in pairs], np.int64)
    end = np.array([e for _, e in pairs], np.int64)
    return nest(start, end, np.zeros(len(pairs), np.int64))


def test_a_call_tree_keeps_its_shape() -> None:
    found = nested([(0, 100), (10, 40), (15, 20), (20, 30), (40, 60), (100, 110)])
    assert found.order.tolist() == [0, 1, 2, 3, 4, 5]
    assert found.depth.tolist() == [0, 1, 2, 2, 1, 0]
    assert found.parent.tolist() == [-1, 0, 1, 1, 0, -1]
    assert found.size.tolist() == [5, 3, 1, 1, 1, 1]
    assert found.strays.tolist() == []


def test_an_interval_that_breaks_out_is_a_stray() -> None:
    found = nested([(0, 100), (10, 40), (90, 120), (95, 99)])
    assert found.strays.tolist() == [2]
    assert found.order.tolist() == [0, 1, 3]
    assert found.parent.tolist() == [-1, 0, 0]


def test_equal_intervals_nest_by_depth() -> None:
    start, end = np.array([5, 5]), np.array([9, 9])
    found = nest(start, end, np.array([1, 0]))
    assert found.order.tolist() == [1, 0]
    assert found.parent.tolist() == [-1, 0]


@given(intervals)
def test_what_nests_is_laminar_and_nothing_is_lost(pairs: list[tuple[int, int]]) -> None:
    pairs = [(s, s + length) for s, length in pairs]
    found = nested(pairs)
    assert sorted([*found.order.tolist(), *found.strays.tolist()]) == list(range(len(pairs)))
    kept = [pairs[i] for i in found.order.tolist()]
    stack: list[int] = []
    for i, (start, end) in enumerate(kept):
        while len(stack) > found.depth[i]:
            assert kept[stack.pop()][1] <= start
        assert len(stack) == found.depth[i]
        assert found.parent[i] == (stack[-1] if stack else -1)
        assert all(kept[j][0] <= start and end <= kept[j][1] for j in stack)
        stack.append(i)
    for i, size in enumerate(found.size.tolist()):
        inside = [j for j in range(len(kept)) if _is_below(found, j, i)]
        assert size == len(inside)


def _is_below(found: Nesting, at: int, above: int) -> bool:
    while at not in (above, -1):
        at = int(found.parent[at])
    return at == above


@given(intervals)
def test_lanes_hold_no_overlap_and_are_as_few_as_can_be(pairs: list[tuple[int, int]]) -> None:
    pairs = sorted((s, s + length + 1) for s, length in pairs)
    start = np.array([s for s, _ in pairs], np.int64)
    end = np.array([e for _, e in pairs], np.int64)
    lane = lanes(start, end).tolist()
    for number in set(lane):
        members = [p for p, n in zip(pairs, lane, strict=True) if n == number]
        assert all(a[1] <= b[0] for a, b in pairwise(members))
    at_once = max((sum(s <= t < e for s, e in pairs) for t, _ in pairs), default=0)
    assert len(set(lane)) == at_once
