"""OTLP encoding against OpenTelemetry's own encoder, and the way from a capture, in one run.

Prints one JSON line. Rates are per second of CPU time of this process. Budget: at least one
million spans a second on one core.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Callable
from importlib.metadata import version

import numpy as np

from gputap.exporters import otlp_encode as encode

NAMES = 64
ATTRIBUTES = {
    "gputap.kind": "operator",
    "gputap.timing_source": "host_call",
    "gputap.level": "framework",
    "gputap.module.class": "Linear",
}
START_NS = 1_700_000_000_000_000_000


def best(run: Callable[[], object], times: int) -> float:
    """CPU seconds of the fastest of some runs."""
    seconds = []
    for _ in range(times):
        before = time.process_time()
        run()
        seconds.append(time.process_time() - before)
    return min(seconds)


def columns(count: int) -> encode.SpanColumns:
    index = np.arange(count)
    trace = encode.trace_id("benchmark", 0)
    seeds = np.full(count, encode.span_seed(trace, 0), np.uint64)
    labels = [
        encode.encode_label(f"aten::op_{i}", {**ATTRIBUTES, "gputap.module": f"layers.{i}.mlp"})
        for i in range(NAMES)
    ]
    return encode.SpanColumns(
        np.broadcast_to(np.frombuffer(trace, np.uint8), (count, 16)),
        encode.span_ids(seeds, index),
        np.full(count, 7, np.uint64),
        START_NS + index * 1000,
        START_NS + index * 1000 + 500,
        index % NAMES,
        labels,
        {"gputap.step": index // 2000, "thread.id": np.full(count, 4242)},
    )


def ours(count: int) -> int:
    """Columns to messages, ids and labels included. Bytes."""
    found = encode.encode_requests(
        columns(count),
        resource=encode.encode_resource({"service.name": "benchmark"}),
        scope=encode.encode_scope("gputap", "0"),
    )
    return sum(len(message) for message, _ in found)


def sdk_spans(count: int) -> list[object]:
    """The same spans as the SDK makes them."""
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider

    tracer = TracerProvider().get_tracer("benchmark")
    root = trace.set_span_in_context(tracer.start_span("step"))
    made: list[object] = []
    for i in range(count):
        attributes = {
            **ATTRIBUTES,
            "gputap.module": f"layers.{i % NAMES}.mlp",
            "gputap.step": i // 2000,
            "thread.id": 4242,
        }
        at = START_NS + i * 1000
        span = tracer.start_span(
            f"aten::op_{i % NAMES}", context=root, start_time=at, attributes=attributes
        )
        span.end(at + 500)
        made.append(span)
    return made


def sdk(count: int) -> int:
    """SDK spans and the official encoder. Bytes."""
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

    spans = sdk_spans(count)
    return sum(
        len(encode_spans(spans[at : at + 512]).SerializeToString()) for at in range(0, count, 512)
    )


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 500_000
    few = count // 50
    our_s, sdk_s = best(lambda: ours(count), 5), best(lambda: sdk(few), 3)
    our_rate, sdk_rate = count / our_s, few / sdk_s
    print(
        json.dumps(
            {
                "benchmark": "otlp_encode",
                "spans": count,
                "spans_per_s": round(our_rate),
                "bytes_per_span": round(ours(count) / count, 1),
                "sdk_spans_per_s": round(sdk_rate),
                "sdk_bytes_per_span": round(sdk(few) / few, 1),
                "times_faster": round(our_rate / sdk_rate, 1),
                "python": platform.python_version(),
                "numpy": np.__version__,
                "opentelemetry-sdk": version("opentelemetry-sdk"),
                "protobuf": version("protobuf"),
            }
        )
    )


if __name__ == "__main__":
    main()
