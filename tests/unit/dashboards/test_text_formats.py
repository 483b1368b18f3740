"""Numbers and foreign strings are written the same way everywhere, and harmlessly."""

from __future__ import annotations

import pytest

from gputap.dashboards import text


@pytest.mark.parametrize(
    ("ns", "said"),
    [
        (0, "0 ns"),
        (412, "412 ns"),
        (83_140, "83.1 µs"),
        (999_499, "999 µs"),
        (999_600, "1.00 ms"),
        (18_230_000, "18.2 ms"),
        (182_300_000, "182 ms"),
        (1_824_000_000, "1.82 s"),
        (200_400_000_000, "3 min 20 s"),
        (-5_000_000, "-5.00 ms"),
    ],
)
def test_durations_have_three_digits_and_a_unit(ns: int, said: str) -> None:
    assert text.duration(ns) == said


@pytest.mark.parametrize(
    ("part", "said"),
    [(0, "0%"), (0.0004, "<0.1%"), (0.015, "1.5%"), (0.0996, "10%"), (0.564, "56%"), (1, "100%")],
)
def test_shares_are_percentages(part: float, said: str) -> None:
    assert text.share(part) == said


@pytest.mark.parametrize(
    ("number", "said"), [(8, "8 B"), (1024, "1.00 KiB"), (26_214_400, "25.0 MiB")]
)
def test_sizes_are_binary(number: int, said: str) -> None:
    assert text.size(number) == said


def test_the_key_says_the_unit() -> None:
    assert text.label("data_wait_ns") == "data wait"
    assert text.value("data_wait_ns", 104_000_000) == "104 ms"
    assert text.value("share", 0.56) == "56%"
    assert text.value("payload_bytes", 2048) == "2.00 KiB"
    assert text.value("calls", 12_345) == "12,345"
    assert text.value("step", 12_345) == "12345"
    assert text.value("fused", False) == "no"
    assert text.value("seen", None) == "not known"
    assert text.value("shapes", [64, 128]) == "64, 128"


def test_controls_and_bidirectional_overrides_are_taken_out() -> None:
    hostile = "aten::\x1b[31mred\x07\n\u202eevil\u2066\x9b1m\ud800"
    assert text.clean(hostile) == "aten::�[31mred���evil��1m�"


def test_the_end_of_a_long_name_is_kept() -> None:
    assert text.shorten("encoder.layers.11.mlp", 10) == "…rs.11.mlp"
    assert text.shorten("short", 10) == "short"
