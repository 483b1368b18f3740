from __future__ import annotations

from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gputap.profiler import schema
from gputap.profiler.clock import (
    MAX_SAMPLES,
    SessionClock,
    clock_from_samples,
    format_duration,
    format_ns,
    parse_duration,
)
from gputap.profiler.errors import UsageError

UNIX = 1_700_000_000_000_000_000


def samples(*rows: tuple[int, ...]) -> npt.NDArray[np.void]:
    """Rows of (ticks, mono_ns[, unix_ns[, width_ticks]])."""
    out = np.zeros(len(rows), schema.dtype(schema.CLOCK_SAMPLE))
    for i, (ticks, mono, *rest) in enumerate(rows):
        out[i] = (ticks, mono, *(rest or [UNIX + mono]), *([] if len(rest) == 2 else [10]))
    return out


def mono(clock_samples: npt.NDArray[np.void], ticks: list[int]) -> list[int]:
    out: list[int] = clock_from_samples(clock_samples).to_mono_ns(np.array(ticks)).tolist()
    return out


def test_between_samples_time_is_linear_and_rounded_down() -> None:
    assert mono(samples((1000, 50), (1300, 150)), [1000, 1001, 1003, 1150, 1299]) == [
        50,
        50,
        51,
        100,
        149,
    ]


def test_beyond_the_samples_time_runs_at_their_mean_speed() -> None:
    # 2 ticks per ns first, 4 later: 3 ticks make 1 ns over all.
    clock_samples = samples((0, 0), (200, 100), (600, 200))
    assert mono(clock_samples, [600, 603, 900]) == [200, 200, 299]
    assert mono(clock_samples, [-3000]) == [-1000]


def test_unix_time_is_one_constant_away_the_median_of_the_samples() -> None:
    clock = clock_from_samples(samples((0, 0, 1000), (10, 10, 1050), (20, 20, 1022)))
    assert clock.offset_ns == 1002
    assert clock.drift_ns == 40
    assert clock.to_unix_ns(np.array([10])).tolist() == [1012]


def test_a_given_offset_is_kept() -> None:
    assert clock_from_samples(samples((0, 0), (10, 10)), offset_ns=7).offset_ns == 7


def test_no_samples_mean_ticks_are_ns() -> None:
    clock = SessionClock(offset_ns=5).clock()
    assert clock.to_unix_ns(np.array([1, 2], np.uint64)).tolist() == [6, 7]
    assert clock.samples == 0


def test_ns_ticks_come_out_unchanged() -> None:
    ticks = np.arange(10**15 - 5, 10**15 + 10**6, 997)
    clock = clock_from_samples(samples((10**15, 10**15), (10**15 + 10**9, 10**15 + 10**9)))
    assert (clock.to_mono_ns(ticks) == ticks).all()


def test_the_error_is_half_the_widest_bracket_plus_the_residual() -> None:
    # The middle sample is 4 ns off the line; brackets of 60 ticks are 20 ns at 3 ticks per ns.
    clock = clock_from_samples(samples((0, 0, 0, 60), (300, 104, 0, 30), (600, 200, 0, 60)))
    assert clock.error_ns == 60 // 3 // 2 + 4 + 1


def test_an_interrupted_sample_is_left_out() -> None:
    rows = [(i * 300, i * 100, UNIX, 10) for i in range(9)]
    rows[4] = (4 * 300, 4 * 100 + 5000, UNIX, 100_000)
    clock = clock_from_samples(samples(*rows))
    assert clock.samples == 8
    assert clock.to_mono_ns(np.array([1200])).tolist() == [400]


def test_clocks_that_run_backwards_are_left_out() -> None:
    clock = clock_from_samples(samples((0, 0), (10, 10), (20, 5), (20, 6), (30, 30)))
    assert clock.ticks.tolist() == [0, 10, 30]


def test_a_session_keeps_its_first_offset() -> None:
    clock = SessionClock()
    clock.add(samples((0, 0, 1000), (10, 10, 1010)))
    assert clock.clock().offset_ns == 1000
    clock.add(samples((20, 20, 9999), (30, 30, 9999), (40, 40, 9999)))
    assert clock.clock().offset_ns == 1000
    assert clock.clock().samples == 5


def test_a_session_of_months_keeps_a_bounded_number_of_samples() -> None:
    clock = SessionClock()
    for start in range(0, 3 * MAX_SAMPLES, MAX_SAMPLES):
        clock.add(samples(*((3 * i, i) for i in range(start, start + MAX_SAMPLES))))
    assert clock.clock().samples == MAX_SAMPLES
    assert clock.clock().to_mono_ns(np.array([3000])).tolist() == [1000]


def test_nonsense_from_the_target_neither_fails_nor_fills_the_memory() -> None:
    garbage = np.frombuffer(np.random.default_rng(1).bytes(32 * 1000), samples().dtype)
    for bad in (garbage, samples((0, 0), (2**61, 2**61)), samples((2**63, -5), (5, 5))):
        clock = clock_from_samples(bad)
        assert len(clock.ticks) < 1 << 18
        clock.to_unix_ns(np.array([0, 2**63, 2**64 - 1], np.uint64))


steps = st.lists(st.tuples(st.integers(1, 10**10), st.integers(1, 10**10)), min_size=1, max_size=20)


def _walk(start: int, moves: list[tuple[int, int]]) -> npt.NDArray[np.void]:
    rows = [(start, start // 3)]
    for ticks, ns in moves:
        rows.append((rows[-1][0] + ticks, rows[-1][1] + ns))
    return samples(*rows)


@settings(deadline=None)
@given(st.integers(0, 10**16), steps)
def test_exact_at_every_sample(start: int, moves: list[tuple[int, int]]) -> None:
    walk = _walk(start, moves)
    clock = clock_from_samples(walk)
    assert clock.to_mono_ns(walk["ticks"]).tolist() == walk["mono_ns"].tolist()


@settings(deadline=None)
@given(st.integers(0, 10**16), steps, st.lists(st.integers(-(10**12), 10**12), min_size=2))
def test_monotone_everywhere(start: int, moves: list[tuple[int, int]], at: list[int]) -> None:
    ticks = np.sort(np.array(at, np.int64) + start)
    ns = clock_from_samples(_walk(start, moves)).to_mono_ns(ticks)
    assert (np.diff(ns) >= 0).all()


def test_ticks_longer_than_a_ns_are_exact_in_long_segments() -> None:
    """Four ns a tick, as on machines whose counter is slow; the segment has to be cut up."""
    span, rise = 1_262_554_381, 4_999_999_526
    clock = clock_from_samples(samples((0, 0), (1, 1), (1 + span, 1 + rise)))
    at = np.arange(1, span, 5_000_003)
    exact = [1 + (tick - 1) * rise // span for tick in at.tolist()]
    error = np.array(exact) - clock.to_mono_ns(at)
    assert 0 <= error.min() and error.max() <= 1


@settings(deadline=None)
@given(st.integers(0, 10**16), steps, st.data())
def test_within_a_ns_of_the_exact_line(
    start: int, moves: list[tuple[int, int]], data: st.DataObject
) -> None:
    walk = _walk(start, moves)
    i = data.draw(st.integers(0, len(moves) - 1))
    t0, t1 = (int(walk["ticks"][j]) for j in (i, i + 1))
    m0, m1 = (int(walk["mono_ns"][j]) for j in (i, i + 1))
    at = data.draw(st.integers(t0, t1))
    exact = m0 + Fraction((at - t0) * (m1 - m0), t1 - t0)
    got = int(clock_from_samples(walk).to_mono_ns(np.array([at]))[0])
    assert exact - 2 < got <= exact


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("10s", 10_000_000_000),
        ("2m", 120_000_000_000),
        ("2min", 120_000_000_000),
        ("500ms", 500_000_000),
        ("1h30m", 5_400_000_000_000),
        ("1h 30m", 5_400_000_000_000),
        ("1.5s", 1_500_000_000),
        ("0.1ms", 100_000),
        (" 7 ", 7_000_000_000),
        ("0.25", 250_000_000),
        ("3us", 3_000),
        ("3µs", 3_000),
        ("12ns", 12),
        ("1d", 86_400_000_000_000),
        ("0", 0),
        ("5S", 5_000_000_000),
    ],
)
def test_durations_as_people_type_them(text: str, ns: int) -> None:
    assert parse_duration(text) == ns


@pytest.mark.parametrize(
    "text",
    (
        *("", " ", "s", ".", "ten", "-5s", "1x", "1h30", "5 5", "1..5s", "1,5s", "1e9", "0x10"),
        *("nan", "inf", "٣s", "9" * 30, "1s" * 40),
    ),
)
def test_nonsense_is_no_duration(text: str) -> None:
    with pytest.raises(UsageError, match="is no duration"):
        parse_duration(text)


@settings(deadline=None)
@given(st.integers(0, 10**17))
def test_durations_survive_a_round_trip(ns: int) -> None:
    assert parse_duration(format_duration(ns)) == ns


@settings(deadline=None)
@given(st.text(max_size=20))
def test_any_text_is_a_duration_or_a_usage_error(text: str) -> None:
    try:
        assert parse_duration(text) >= 0
    except UsageError:
        pass


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0 ns"),
        (812, "812 ns"),
        (999, "999 ns"),
        (1_000, "1.00 µs"),
        (1_230_000, "1.23 ms"),
        (999_999, "1.00 ms"),
        (12_345_678, "12.3 ms"),
        (123_456_789, "123 ms"),
        (9_996_000, "10.0 ms"),
        (1_500_000_000, "1.50 s"),
        (59_400_000_000, "59.4 s"),
        (59_960_000_000, "1 min"),
        (125_000_000_000, "2 min 5 s"),
        (12_000_000_000_000, "3 h 20 min"),
        (7_200_000_000_000, "2 h"),
        (-1_230_000, "-1.23 ms"),
    ],
)
def test_ns_for_reading(ns: int, text: str) -> None:
    assert format_ns(ns) == text
