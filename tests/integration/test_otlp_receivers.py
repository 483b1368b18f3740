"""Spans sent to real receivers: a third party's sink, and servers that behave badly."""

from __future__ import annotations

import gzip
import logging
import socket
import ssl
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from oteltest.sink import GrpcSink, HttpSink
from oteltest.sink.handler import RequestHandler

from gputap.exporters.otlp import encode_otlp, export_otlp
from gputap.exporters.otlp_transport import EXPORT_METHOD
from gputap.profiler.errors import ExportError
from gputap.profiler.store import Capture
from tests.synthetic import Plan
from tests.unit.exporters.captures import training

PROTOBUF = {"Content-Type": "application/x-protobuf"}


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of whoever runs the tests does not matter."""
    import os

    for name in list(os.environ):
        if name.startswith("OTEL_") or name.lower() in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture
def capture(tmp_path: Path) -> Capture:
    return training(tmp_path / "c", Plan(steps=3, ranks=2))


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def spans_in(requests: list[ExportTraceServiceRequest]) -> list[Span]:
    return [
        span
        for request in requests
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def expected(capture: Capture) -> Counter[bytes]:
    """What must arrive, span by span."""
    requests = [ExportTraceServiceRequest.FromString(m) for m in encode_otlp(capture)]
    return told(requests)


def told(requests: list[ExportTraceServiceRequest]) -> Counter[bytes]:
    return Counter(s.SerializeToString(deterministic=True) for s in spans_in(requests))


class Memory(RequestHandler):
    """Keeps what oteltest's sink received."""

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        self.headers: list[Mapping[str, str]] = []

    def handle_trace(self, request: Any, headers: Any) -> None:
        self.requests.append(request)
        self.headers.append(headers)

    def handle_logs(self, request: Any, headers: Any) -> None: ...

    def handle_metrics(self, request: Any, headers: Any) -> None: ...


def wait_for_port(port: int) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.01)
    raise TimeoutError(port)


# ----------------------------------------------------------------------------- oteltest's sink


def test_http_sink_of_a_third_party_receives_every_span(capture: Capture) -> None:
    memory, port = Memory(), free_port()
    sink = HttpSink(memory, logging.getLogger("sink"), port)
    sink.start()
    wait_for_port(port)
    try:
        result = export_otlp(capture, endpoint=f"http://127.0.0.1:{port}")
    finally:
        sink.stop()
    assert told(memory.requests) == expected(capture)
    assert result.spans == len(spans_in(memory.requests))
    assert (result.traces, result.rejected, result.retries) == (3, 0, 0)
    # That sink answers text/html, which no OTLP receiver does; we say so and go on.
    assert result.notes == ("the answer was text/html, not OTLP: is this an OTLP receiver?",)


def test_grpc_sink_of_a_third_party_receives_every_span(
    capture: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-scope-orgid=team7")
    memory, port = Memory(), free_port()
    sink = GrpcSink(memory, logging.getLogger("sink"), port=port)
    sink.start()
    try:
        result = export_otlp(capture, endpoint=f"grpc://127.0.0.1:{port}")
    finally:
        sink.stop()
    assert told(memory.requests) == expected(capture)
    assert result.notes == ()
    assert {h["x-scope-orgid"] for h in memory.headers} == {"team7"}


# ------------------------------------------------------------------------- HTTP, badly behaved

Reply = tuple[int, dict[str, str], bytes]
OK: Reply = (200, PROTOBUF, b"")


@dataclass
class Receiver:
    """An HTTP server that gives the scripted replies, the last one for ever."""

    replies: list[Reply] = field(default_factory=lambda: [OK])
    delay_s: float = 0.0
    tls: ssl.SSLContext | None = None
    requests: list[ExportTraceServiceRequest] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    port: int = 0

    def __enter__(self) -> Receiver:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                receiver.take(self)

            def log_message(self, *_: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        if self.tls is not None:
            self.server.socket = self.tls.wrap_socket(self.server.socket, server_side=True)
            self.server.handle_error = lambda *_: None  # type: ignore[method-assign]
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def take(self, handler: BaseHTTPRequestHandler) -> None:
        self.times.append(time.monotonic())
        body = handler.rfile.read(int(handler.headers["Content-Length"]))
        self.paths.append(handler.path)
        self.headers.append({k.lower(): v for k, v in handler.headers.items()})
        time.sleep(self.delay_s)
        status, headers, answer = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if status == 200:
            if handler.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            self.requests.append(ExportTraceServiceRequest.FromString(body))
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(answer)))
        handler.end_headers()
        handler.wfile.write(answer)

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"


def test_settings_of_the_environment_are_used(
    capture: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Receiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20abc,x-a=1")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
        result = export_otlp(capture)
    assert told(receiver.requests) == expected(capture)
    assert set(receiver.paths) == {"/v1/traces"}
    for headers in receiver.headers:
        assert headers["authorization"] == "Bearer abc"
        assert headers["x-a"] == "1"
        assert headers["content-encoding"] == "gzip"
        assert headers["content-type"] == "application/x-protobuf"
    assert result.target == f"{receiver.url}/v1/traces"


def test_the_traces_endpoint_is_taken_as_it_is(
    capture: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Receiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"{receiver.url}/my/path")
        export_otlp(capture)
    assert set(receiver.paths) == {"/my/path"}


def test_an_endpoint_given_goes_before_the_environment(
    capture: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    with Receiver() as receiver:
        export_otlp(capture, endpoint=receiver.url)
    assert told(receiver.requests) == expected(capture)


def test_429_is_tried_again_when_the_receiver_says(capture: Capture) -> None:
    with Receiver([(429, {"Retry-After": "1"}, b"slow down"), OK]) as receiver:
        result = export_otlp(capture, endpoint=receiver.url)
    assert told(receiver.requests) == expected(capture)
    assert result.retries == 1
    assert receiver.times[1] - receiver.times[0] >= 1.0


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_passing_failure_is_tried_again(capture: Capture, status: int) -> None:
    with Receiver([(status, {}, b""), (status, {"Retry-After": "0"}, b""), OK]) as receiver:
        result = export_otlp(capture, endpoint=receiver.url)
    assert told(receiver.requests) == expected(capture)
    assert result.retries == 2


def test_a_receiver_that_never_recovers_is_given_up_on(capture: Capture) -> None:
    with Receiver([(503, {}, b"")]) as receiver:
        started = time.monotonic()
        with pytest.raises(ExportError, match=r"HTTP 503.*gave up after \d+ attempts"):
            export_otlp(capture, endpoint=receiver.url, timeout_s=2.0)
    assert time.monotonic() - started < 4.0


@pytest.mark.parametrize(
    ("status", "hint"), [(400, "malformed"), (401, "HEADERS"), (404, "path"), (500, "capture")]
)
def test_a_refusal_is_not_tried_again(capture: Capture, status: int, hint: str) -> None:
    with Receiver([(status, {}, b"no")]) as receiver:
        with pytest.raises(ExportError, match=f"refuses spans: HTTP {status}") as raised:
            export_otlp(capture, endpoint=receiver.url)
        assert len(receiver.times) == 1
    assert hint in raised.value.hint


def test_a_failure_in_the_middle_says_what_had_been_sent(capture: Capture) -> None:
    with Receiver([OK, (401, {}, b"")]) as receiver:
        with pytest.raises(ExportError, match=r"\d+ spans had been sent before"):
            export_otlp(capture, endpoint=receiver.url)


def test_a_redirect_is_not_followed(capture: Capture) -> None:
    with Receiver([(302, {"Location": "http://127.0.0.1:1/"}, b"")]) as receiver:
        with pytest.raises(ExportError, match="HTTP 302"):
            export_otlp(capture, endpoint=receiver.url)


def test_rejected_spans_are_counted_and_said(capture: Capture) -> None:
    partial = ExportTracePartialSuccess(rejected_spans=7, error_message="attribute too long")
    body = ExportTraceServiceResponse(partial_success=partial).SerializeToString()
    with Receiver([(200, PROTOBUF, body), OK]) as receiver:
        result = export_otlp(capture, endpoint=receiver.url)
    assert result.rejected == 7
    assert result.notes == ("attribute too long",)


@pytest.mark.parametrize("content_type", ["application/x-protobuf", "text/html; charset=utf-8", ""])
def test_a_garbage_answer_is_said(capture: Capture, content_type: str) -> None:
    with Receiver([(200, {"Content-Type": content_type}, b"\xff\xff<html>")]) as receiver:
        result = export_otlp(capture, endpoint=receiver.url)
    assert result.rejected == 0
    assert "is this an OTLP receiver?" in result.notes[0]


def test_a_slow_receiver_is_waited_for(capture: Capture) -> None:
    with Receiver(delay_s=0.4) as receiver:
        result = export_otlp(capture, endpoint=receiver.url)
    assert told(receiver.requests) == expected(capture)
    assert result.seconds >= 0.4


def test_one_slower_than_its_time_out_is_tried_again(
    capture: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    with Receiver(delay_s=1.5) as receiver:
        with pytest.raises(ExportError, match="no answer within 1 s"):
            export_otlp(capture, endpoint=receiver.url, timeout_s=3.0)
        assert len(receiver.times) >= 2


def test_garbage_instead_of_http_is_an_export_error(capture: Capture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            for _ in range(20):
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65536)
                    connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with pytest.raises(ExportError, match="gave up"):
            export_otlp(
                capture, endpoint=f"http://127.0.0.1:{server.getsockname()[1]}", timeout_s=1.0
            )
        server.shutdown(socket.SHUT_RDWR)
    thread.join(5)


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_nobody_listening_is_said_at_once(capture: Capture, scheme: str) -> None:
    url = f"{scheme}://127.0.0.1:{free_port()}"
    started = time.monotonic()
    with pytest.raises(ExportError, match="cannot be reached") as raised:
        export_otlp(capture, endpoint=url)
    assert time.monotonic() - started < 3.0
    assert "capture is complete" in raised.value.hint
    assert raised.value.exit_code == 1


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_an_unknown_host_is_said_at_once(capture: Capture, scheme: str) -> None:
    with pytest.raises(ExportError, match="cannot be reached"):
        export_otlp(capture, endpoint=f"{scheme}://no-such-host.invalid:4317")


# ----------------------------------------------------------------------------------------- TLS


@dataclass(frozen=True)
class Certificates:
    ca: Path
    server: Path
    server_key: Path
    client: Path
    client_key: Path


def openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=60)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder = tmp_path_factory.mktemp("certificates")
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    ca, ca_key = folder / "ca.pem", folder / "ca.key"
    openssl(
        "req", "-x509", *key, "-keyout", str(ca_key), "-out", str(ca), "-subj", "/CN=test ca",
        "-addext", "keyUsage=critical,keyCertSign,cRLSign",
    )  # fmt: skip
    (folder / "ext").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    for name in ("server", "client"):
        request = str(folder / f"{name}.csr")
        openssl(
            "req", "-new", *key[:-2], "-keyout", str(folder / f"{name}.key"), "-out", request,
            "-subj", f"/CN={name}",
        )  # fmt: skip
        openssl(
            "x509", "-req", "-in", request, "-CA", str(ca), "-CAkey", str(ca_key), "-days", "2",
            "-CAcreateserial", "-out", str(folder / f"{name}.pem"), "-extfile", str(folder / "ext"),
        )  # fmt: skip
    return Certificates(
        ca, folder / "server.pem", folder / "server.key", folder / "client.pem",
        folder / "client.key",
    )  # fmt: skip


def server_context(certificates: Certificates, *, ask_client: bool = False) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server, certificates.server_key)
    if ask_client:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(certificates.ca)
    return context


def test_tls_with_our_own_ca(
    capture: Capture, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(certificates.ca))
    with Receiver(tls=server_context(certificates)) as receiver:
        export_otlp(capture, endpoint=receiver.url)
    assert told(receiver.requests) == expected(capture)


def test_mutual_tls(
    capture: Capture, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(certificates.ca))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", str(certificates.client))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CLIENT_KEY", str(certificates.client_key))
    with Receiver(tls=server_context(certificates, ask_client=True)) as receiver:
        export_otlp(capture, endpoint=receiver.url)
    assert told(receiver.requests) == expected(capture)


def test_an_unknown_ca_is_refused_at_once(capture: Capture, certificates: Certificates) -> None:
    with Receiver(tls=server_context(certificates)) as receiver:
        with pytest.raises(ExportError, match="TLS connection failed") as raised:
            export_otlp(capture, endpoint=receiver.url)
    assert "OTEL_EXPORTER_OTLP_CERTIFICATE" in raised.value.hint


# ---------------------------------------------------------------------------------------- gRPC

Serve = Callable[[bytes, grpc.ServicerContext], bytes]


class Service(grpc.GenericRpcHandler):
    """A trace service made of one function."""

    def __init__(self, serve: Serve) -> None:
        self.serve = serve

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        return (
            grpc.unary_unary_rpc_method_handler(self.serve)
            if details.method == EXPORT_METHOD
            else None
        )


@pytest.fixture
def grpc_server() -> Iterator[Callable[..., str]]:
    servers = []

    def start(serve: Serve, credentials: grpc.ServerCredentials | None = None) -> str:
        server = grpc.server(futures.ThreadPoolExecutor(2))
        server.add_generic_rpc_handlers((Service(serve),))
        if credentials is None:
            port = server.add_insecure_port("127.0.0.1:0")
        else:
            port = server.add_secure_port("127.0.0.1:0", credentials)
        server.start()
        servers.append(server)
        return f"{'grpcs' if credentials else 'grpc'}://127.0.0.1:{port}"

    yield start
    for server in servers:
        server.stop(None).wait()


def test_grpc_unavailable_is_tried_again(capture: Capture, grpc_server: Callable[..., str]) -> None:
    received: list[ExportTraceServiceRequest] = []
    failures = [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED]

    def serve(raw: bytes, context: grpc.ServicerContext) -> bytes:
        if failures:
            context.abort(failures.pop(0), "not now")
        received.append(ExportTraceServiceRequest.FromString(raw))
        return b""

    result = export_otlp(capture, endpoint=grpc_server(serve))
    assert told(received) == expected(capture)
    assert result.retries == 2


def test_grpc_exhausted_is_tried_again_only_if_asked_to(
    capture: Capture, grpc_server: Callable[..., str]
) -> None:
    ask = [RetryInfo(retry_delay=Duration(nanos=300_000_000)), None]

    def serve(raw: bytes, context: grpc.ServicerContext) -> bytes:
        if ask:
            info = ask.pop(0)
            if info is not None:
                context.set_trailing_metadata(
                    (("google.rpc.retryinfo-bin", info.SerializeToString()),)
                )
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
        return b""

    with pytest.raises(ExportError, match="refuses spans: gRPC RESOURCE_EXHAUSTED: full"):
        export_otlp(capture, endpoint=grpc_server(serve))
    assert ask == []


def test_grpc_partial_success_is_counted(capture: Capture, grpc_server: Callable[..., str]) -> None:
    partial = ExportTracePartialSuccess(rejected_spans=2, error_message="two too many")
    raw = ExportTraceServiceResponse(partial_success=partial).SerializeToString()
    result = export_otlp(capture, endpoint=grpc_server(lambda *_: raw))
    assert result.rejected == 2 * result.messages
    assert result.notes == ("two too many",)


def test_grpc_refusals_name_the_code(capture: Capture, grpc_server: Callable[..., str]) -> None:
    def serve(raw: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "who are you")
        return b""

    with pytest.raises(ExportError, match="UNAUTHENTICATED: who are you") as raised:
        export_otlp(capture, endpoint=grpc_server(serve))
    assert "OTEL_EXPORTER_OTLP_HEADERS" in raised.value.hint


def test_grpc_over_tls_and_gzip(
    capture: Capture,
    certificates: Certificates,
    grpc_server: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    received: list[ExportTraceServiceRequest] = []

    def serve(raw: bytes, context: grpc.ServicerContext) -> bytes:
        received.append(ExportTraceServiceRequest.FromString(raw))
        return b""

    credentials = grpc.ssl_server_credentials(
        [(certificates.server_key.read_bytes(), certificates.server.read_bytes())]
    )
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(certificates.ca))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    export_otlp(capture, endpoint=grpc_server(serve, credentials))
    assert told(received) == expected(capture)


def test_the_capture_is_the_same_after_a_failure(capture: Capture) -> None:
    before = expected(capture)
    with pytest.raises(ExportError):
        export_otlp(capture, endpoint=f"http://127.0.0.1:{free_port()}")
    assert expected(Capture.open(capture.path)) == before
    assert Capture.open(capture.path).damaged == ()
