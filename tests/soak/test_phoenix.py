"""Spans read back from arize-phoenix, a server with a store of its own.

It needs 850 MB, so it is not among our dependencies: install it into any environment and give its
`phoenix` program in GPUTAP_TEST_PHOENIX, or have it on the PATH.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from gputap.exporters.otlp import encode_otlp, export_otlp
from gputap.profiler.store import Capture
from tests.synthetic import Plan
from tests.unit.exporters.captures import training

pytestmark = pytest.mark.soak

PROGRAM = os.environ.get("GPUTAP_TEST_PHOENIX") or shutil.which("phoenix")
START_S = 180


@dataclass(frozen=True)
class Phoenix:
    url: str
    grpc_url: str

    def spans(self) -> list[dict[str, Any]]:
        """Everything stored."""
        found: list[dict[str, Any]] = []
        cursor = ""
        while True:
            url = f"{self.url}/v1/projects/default/spans?limit=500{cursor}"
            with urllib.request.urlopen(url, timeout=30) as answer:
                page = json.load(answer)
            found += page["data"]
            if not page.get("next_cursor"):
                return found
            cursor = f"&cursor={page['next_cursor']}"

    def wait_for(self, count: int) -> list[dict[str, Any]]:
        """The spans, once there are as many; Phoenix stores about 200 a second."""
        deadline = time.monotonic() + 60 + count / 50
        while len(found := self.spans()) < count and time.monotonic() < deadline:
            time.sleep(0.5)
        return found


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


@pytest.fixture
def phoenix(tmp_path: Path) -> Iterator[Phoenix]:
    if PROGRAM is None:
        pytest.skip("arize-phoenix is not installed (set GPUTAP_TEST_PHOENIX to its program)")
    port, grpc_port = free_ports(2)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OTEL_")} | {
        "PHOENIX_WORKING_DIR": str(tmp_path / "phoenix"),
        "PHOENIX_HOST": "127.0.0.1",
        "PHOENIX_PORT": str(port),
        "PHOENIX_GRPC_PORT": str(grpc_port),
        "PHOENIX_TELEMETRY_ENABLED": "false",
    }
    with (tmp_path / "phoenix.log").open("w") as log:
        server = subprocess.Popen(
            [PROGRAM, "serve"], env=environment, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            yield started(
                server, Phoenix(f"http://127.0.0.1:{port}", f"grpc://127.0.0.1:{grpc_port}")
            )
        finally:
            server.terminate()
            server.wait(30)


def started(server: subprocess.Popen[bytes], phoenix: Phoenix) -> Phoenix:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        assert server.poll() is None, "phoenix ended"
        try:
            with urllib.request.urlopen(f"{phoenix.url}/healthz", timeout=5):
                return phoenix
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise TimeoutError("phoenix did not start")


def sent(capture: Capture) -> dict[str, tuple[str, str, str | None, int]]:
    """Trace, name, parent and microseconds of each span, by its id."""
    return {
        span.span_id.hex(): (
            span.trace_id.hex(),
            span.name,
            span.parent_span_id.hex() or None,
            (span.end_time_unix_nano - span.start_time_unix_nano) // 1000,
        )
        for message in encode_otlp(capture)
        for resource in ExportTraceServiceRequest.FromString(message).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    }


def read_back(span: dict[str, Any]) -> tuple[str, str, str | None, int]:
    start, end = (
        datetime.fromisoformat(span[key].replace("Z", "+00:00"))
        for key in ("start_time", "end_time")
    )
    context = span["context"]
    length = round((end - start).total_seconds() * 1e6)
    return context["trace_id"], span["name"], span["parent_id"], length


@pytest.mark.parametrize("transport", ["http", "grpc"])
def test_phoenix_has_every_span_that_was_sent(
    phoenix: Phoenix, transport: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [n for n in os.environ if n.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    capture = training(tmp_path / "capture", Plan(steps=4, ranks=2, layers=8))
    endpoint = phoenix.url if transport == "http" else phoenix.grpc_url
    result = export_otlp(capture, endpoint=endpoint)
    found = phoenix.wait_for(result.spans)
    assert {s["context"]["span_id"]: read_back(s) for s in found} == sent(capture)
    collective = next(s for s in found if s["name"] == "all_reduce")["attributes"]
    assert collective["gputap.collective.bytes"] == 4 << 20
    assert (result.rejected, result.notes) == (0, ())
