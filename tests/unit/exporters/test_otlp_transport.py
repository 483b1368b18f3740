from __future__ import annotations

import time
from collections.abc import Sequence

import pytest

from gputap.exporters import otlp_transport as transport
from gputap.exporters.otlp_transport import Answer, Endpoint, Retry
from gputap.profiler.errors import ExportError, UsageError


@pytest.mark.parametrize(
    ("given", "environment", "expected"),
    [
        (None, {}, Endpoint("http/protobuf", None)),
        (None, {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, Endpoint("grpc", None)),
        (
            None,
            {
                "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
                "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
            },
            Endpoint("http/protobuf", None),
        ),
        ("http://h:4318", {}, Endpoint("http/protobuf", "http://h:4318/v1/traces")),
        ("https://h:4318/", {}, Endpoint("http/protobuf", "https://h:4318/v1/traces")),
        ("http://h/otlp/v1/traces", {}, Endpoint("http/protobuf", "http://h/otlp/v1/traces")),
        ("grpc://h:4317", {}, Endpoint("grpc", "http://h:4317")),
        ("grpcs://h:4317", {}, Endpoint("grpc", "https://h:4317")),
        (
            "https://h:4317",
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            Endpoint("grpc", "https://h:4317"),
        ),
    ],
)
def test_protocol_and_url(
    given: str | None, environment: dict[str, str], expected: Endpoint
) -> None:
    assert transport.resolve(given, environment) == expected


@pytest.mark.parametrize("given", ["localhost:4318", "ftp://h", "http://", "", "4318"])
def test_what_is_no_endpoint_is_refused(given: str) -> None:
    with pytest.raises(UsageError, match="not an OTLP endpoint"):
        transport.resolve(given, {})


def test_an_unknown_protocol_is_refused() -> None:
    with pytest.raises(UsageError, match="http/json"):
        transport.resolve(None, {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"})


class Script:
    """A sender that answers what it is told to."""

    target = "http://receiver"
    timeout_s = 10.0

    def __init__(self, answers: Sequence[Answer | Retry]) -> None:
        self.answers = list(answers)
        self.timeouts: list[float] = []

    def send(self, message: bytes, timeout_s: float, *, first: bool) -> Answer | Retry:
        self.timeouts.append(timeout_s)
        return self.answers.pop(0)

    def close(self) -> None:
        pass


def deliver(script: Script, seconds: float = 1000.0) -> tuple[Answer, int, list[float]]:
    waits: list[float] = []
    deadline = time.monotonic() + seconds
    answer, retries = transport.deliver(
        script, b"x", deadline=deadline, first=False, sleep=waits.append
    )
    return answer, retries, waits


def test_waits_grow_with_jitter_up_to_a_ceiling() -> None:
    _, retries, waits = deliver(Script([*[Retry("busy")] * 9, Answer()]))
    assert retries == 9
    for i, wait in enumerate(waits):
        expected = min(16.0, 0.5 * 2**i)
        assert 0.8 * expected <= wait <= 1.2 * expected
    assert len(set(waits)) == 9


def test_the_receiver_decides_how_long_to_wait() -> None:
    answer, _, waits = deliver(Script([Retry("busy", 7.0), Retry("busy", 0.0), Answer(3, "no")]))
    assert waits == [7.0, 0.0]
    assert answer == Answer(3, "no")


def test_no_wait_goes_past_the_deadline() -> None:
    started = time.monotonic()
    with pytest.raises(ExportError, match="HTTP 503 and asks to wait 60 s; gave up after 1"):
        deliver(Script([Retry("HTTP 503", 60.0)]), seconds=5.0)
    assert time.monotonic() - started < 1.0


def test_one_answer_is_waited_for_as_long_as_is_left() -> None:
    script = Script([Answer()])
    deliver(script, seconds=2.0)
    assert 1.5 < script.timeouts[0] <= 2.0


@pytest.mark.parametrize(
    ("header", "low", "high"),
    [
        ("5", 5.0, 5.0),
        ("0", 0.0, 0.0),
        ("-3", 0.0, 0.0),
        ("Fri, 01 Jan 2100 00:00:00 GMT", 1e8, 1e10),
        ("Fri, 01 Jan 1999 00:00:00 GMT", 0.0, 0.0),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str, low: float, high: float) -> None:
    seconds = transport._retry_after(header)
    assert seconds is not None
    assert low <= seconds <= high


@pytest.mark.parametrize("header", [None, "soon", "", "nan", "inf"])
def test_a_retry_after_that_is_none(header: str | None) -> None:
    assert transport._retry_after(header) is None


def test_secrets_in_the_url_are_not_shown() -> None:
    shown = transport._without_secrets("https://user:key@h:4318/v1/traces?token=secret")
    assert shown == "https://h:4318/v1/traces"
