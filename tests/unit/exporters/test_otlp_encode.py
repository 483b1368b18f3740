from __future__ import annotations

import numpy as np
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from gputap.exporters import otlp_encode as encode

RESOURCE = encode.encode_resource({"service.name": "job", "process.pid": 7})
SCOPE = encode.encode_scope("gputap", "1.2")


def columns(count: int, labels: list[bytes], **ints: list[int]) -> encode.SpanColumns:
    index = np.arange(count)
    trace = encode.trace_id("job", 3)
    seeds = np.full(count, encode.span_seed(trace, 0), np.uint64)
    ids = encode.span_ids(seeds, index)
    return encode.SpanColumns(
        trace_id=np.tile(np.frombuffer(trace, np.uint8), (count, 1)),
        span_id=ids,
        parent_id=np.where(index == 0, np.uint64(0), ids[:1]),
        start_ns=1_700_000_000_000_000_000 + index,
        end_ns=1_700_000_000_000_000_500 + index,
        label=index % len(labels),
        labels=labels,
        ints={name: np.array(values) for name, values in ints.items()},
    )


def spans_of(messages: list[tuple[bytes, int]]) -> list[Span]:
    out = []
    for message, count in messages:
        request = ExportTraceServiceRequest.FromString(message)
        spans = request.resource_spans[0].scope_spans[0].spans
        assert len(spans) == count
        out += list(spans)
    return out


def requests(
    spans: encode.SpanColumns, limit: int = encode.MESSAGE_LIMIT
) -> list[tuple[bytes, int]]:
    return list(encode.encode_requests(spans, resource=RESOURCE, scope=SCOPE, limit=limit))


def key_value(key: str, **value: object) -> KeyValue:
    return KeyValue(key=key, value=AnyValue(**value))  # type: ignore[arg-type]


def test_spans_equal_those_built_with_the_official_classes() -> None:
    label = encode.encode_label(
        "aten::mm",
        {"s": "ü", "yes": True, "no": False, "i": -5, "f": 0.5, "l": ["a", "b"], "none": None},
    )
    constants = [
        key_value("s", string_value="ü"),
        key_value("yes", bool_value=True),
        key_value("no", bool_value=False),
        key_value("i", int_value=-5),
        key_value("f", double_value=0.5),
        key_value(
            "l",
            array_value=ArrayValue(values=[AnyValue(string_value="a"), AnyValue(string_value="b")]),
        ),
    ]
    values = [0, 1 << 62, -1]
    spans = columns(3, [label], n=values)
    found = sorted(spans_of(requests(spans)), key=lambda s: s.start_time_unix_nano)
    for i, span in enumerate(found):
        expected = Span(
            trace_id=encode.trace_id("job", 3),
            span_id=int(spans.span_id[i]).to_bytes(8, "big"),
            parent_span_id=int(spans.span_id[0]).to_bytes(8, "big") if i else b"",
            name="aten::mm",
            kind=Span.SPAN_KIND_INTERNAL,
            start_time_unix_nano=1_700_000_000_000_000_000 + i,
            end_time_unix_nano=1_700_000_000_000_000_500 + i,
            attributes=[key_value("n", int_value=values[i]), *constants],
        )
        assert span == expected


def test_resource_and_scope_are_in_every_message() -> None:
    spans = columns(50, [encode.encode_label("x", {})])
    messages = requests(spans, limit=1000)
    assert len(messages) > 1
    for message, _ in messages:
        only = ExportTraceServiceRequest.FromString(message).resource_spans[0]
        attributes = [
            key_value("service.name", string_value="job"),
            key_value("process.pid", int_value=7),
        ]
        assert list(only.resource.attributes) == attributes
        assert (only.scope_spans[0].scope.name, only.scope_spans[0].scope.version) == (
            "gputap",
            "1.2",
        )


def test_no_message_reaches_the_limit_and_no_span_is_lost() -> None:
    labels = [encode.encode_label("op" * n, {"gputap.module": "m" * n}) for n in range(1, 40)]
    spans = columns(5000, labels, a=list(range(5000)))
    messages = requests(spans, limit=20_000)
    assert max(len(m) for m, _ in messages) < 20_000
    found = spans_of(messages)
    assert sorted(s.span_id for s in found) == sorted(
        int(i).to_bytes(8, "big") for i in spans.span_id
    )


def test_a_span_longer_than_the_limit_goes_alone() -> None:
    spans = columns(3, [encode.encode_label("x" * 5000, {})])
    assert [count for _, count in requests(spans, limit=1000)] == [1, 1, 1]


def test_an_absent_integer_is_no_attribute() -> None:
    spans = columns(4, [encode.encode_label("x", {})], n=[1, encode.ABSENT, 3, encode.ABSENT])
    found = sorted(spans_of(requests(spans)), key=lambda s: s.start_time_unix_nano)
    assert [[a.value.int_value for a in s.attributes] for s in found] == [[1], [], [3], []]


def test_long_text_is_cut_and_says_so() -> None:
    spans = columns(1, [encode.encode_label("x", {"shapes": "9" * 5000})])
    text = spans_of(requests(spans))[0].attributes[0].value.string_value
    assert (len(text), text[-1]) == (encode.MAX_TEXT, "…")


def test_broken_names_still_make_valid_utf8() -> None:
    spans = columns(1, [encode.encode_label("a\udc80b", {"file": "\ud800"})])
    assert spans_of(requests(spans))[0].name == "a?b"


def test_nothing_makes_no_message() -> None:
    assert requests(columns(0, [encode.encode_label("x", {})])) == []


@pytest.mark.parametrize("rank", [0, 1, 9999])
def test_ids_are_distinct_valid_and_repeatable(rank: int) -> None:
    seed = encode.span_seed(encode.trace_id("job", 1), rank)
    ids = encode.span_ids(np.full(100_000, seed, np.uint64), np.arange(100_000))
    assert len(np.unique(ids)) == 100_000
    assert (ids != 0).all()
    again = encode.span_ids(np.full(1, seed, np.uint64), np.array([42]))
    assert again[0] == ids[42]


def test_a_trace_id_depends_on_job_and_step_alone() -> None:
    assert encode.trace_id("a", 1) == encode.trace_id("a", 1)
    assert len({encode.trace_id(j, s) for j in ("a", "b", "") for s in range(100)}) == 300
    assert len(encode.trace_id("a", 1)) == 16
