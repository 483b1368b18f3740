"""What a long window of bursts may record."""

from __future__ import annotations

import pytest

from gputap.injectors.library.client import WindowConfig
from gputap.injectors.tap import MOST_EVENTS, bounded
from gputap.profiler.schema import CaptureMode

SECOND = 1_000_000_000


@pytest.mark.parametrize("seconds", [0, 1, 10, 60])
def test_a_short_window_keeps_its_budget(seconds: int) -> None:
    assert bounded(WindowConfig(window_ns=seconds * SECOND)).budget_ppm == 10_000


@pytest.mark.parametrize("seconds", [600, 86_400])
def test_a_long_window_pays_for_no_more_than_most_events(seconds: int) -> None:
    window = bounded(WindowConfig(window_ns=seconds * SECOND))
    paid_ns = window.budget_ppm * seconds * 1000
    assert 0 < paid_ns // window.event_cost_ns <= MOST_EVENTS


def test_a_smaller_budget_of_the_user_s_stands() -> None:
    assert bounded(WindowConfig(window_ns=600 * SECOND, budget_ppm=10)).budget_ppm == 10


def test_full_windows_record_everything() -> None:
    window = WindowConfig(mode=CaptureMode.FULL, window_ns=86_400 * SECOND)
    assert bounded(window) == window
