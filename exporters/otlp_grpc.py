"""OTLP over gRPC, on the channel that the official exporter configures."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

from gputap.exporters.otlp_transport import (
    EXPORT_METHOD,
    SETTINGS_HINT,
    Answer,
    Retry,
    parse_answer,
    unreachable,
)
from gputap.profiler.errors import ExportError

if TYPE_CHECKING:
    import grpc

CONNECT_S: Final = 5.0
"""How long the first connection may take."""


class _Channel:
    """Takes the place of the exporter's generated stub, to get at its channel."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.channel = channel


class GrpcSender:
    """Sends encoded messages over the exporter's own channel."""

    def __init__(self, url: str | None) -> None:
        """Ask OpenTelemetry's exporter for its channel, to `url` instead of its own if given."""
        self._exporter = _exporter(url)
        client = self._exporter._client
        if not isinstance(client, _Channel):
            raise ExportError(
                "This version of opentelemetry-exporter-otlp-proto-grpc is not supported.",
                hint="Use http/protobuf: `--otlp http://host:4318`.",
            )
        self._channel = client.channel
        self._metadata = tuple(self._exporter._headers or ())
        self.timeout_s = float(self._exporter._timeout or 10)
        self.target = f"grpc://{self._exporter._endpoint}"
        self._export = self._channel.unary_unary(EXPORT_METHOD)

    def send(self, message: bytes, timeout_s: float, *, first: bool) -> Answer | Retry:
        """Call once."""
        import grpc

        if first:
            self._connect(min(timeout_s, CONNECT_S))
        try:
            raw = self._export(message, metadata=self._metadata, timeout=timeout_s)
        except grpc.RpcError as exc:
            return self._judge(exc)
        return parse_answer(raw, "protobuf")

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def _connect(self, timeout_s: float) -> None:
        """Raise ExportError at the first failure to connect: gRPC alone would wait and retry."""
        import grpc

        failed = (grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN)
        settled = threading.Event()
        seen: list[grpc.ChannelConnectivity] = []

        def note(state: grpc.ChannelConnectivity) -> None:
            if state is grpc.ChannelConnectivity.READY or state in failed:
                seen.append(state)
                settled.set()

        self._channel.subscribe(note, try_to_connect=True)
        try:
            if not settled.wait(timeout_s):
                raise unreachable(self.target, f"no connection within {timeout_s:.0f} s")
        finally:
            self._channel.unsubscribe(note)
        if seen[0] in failed:
            raise unreachable(self.target, self._why_not())

    def _why_not(self) -> str:
        """gRPC's words for why it has no connection."""
        import grpc

        try:
            self._export(b"", timeout=1.0)
        except grpc.RpcError as exc:
            return str(exc.details() or exc.code().name).strip().rstrip(".")
        return "the connection came and went"

    def _judge(self, error: Any) -> Retry:
        import grpc

        code, words = error.code(), (error.details() or "").strip().rstrip(".")
        asked = _retry_info(error)
        again = {
            grpc.StatusCode.CANCELLED,
            grpc.StatusCode.DEADLINE_EXCEEDED,
            grpc.StatusCode.ABORTED,
            grpc.StatusCode.OUT_OF_RANGE,
            grpc.StatusCode.UNAVAILABLE,
            grpc.StatusCode.DATA_LOSS,
        }
        reason = f"gRPC {code.name}{': ' if words else ''}{words}"
        if code in again or (code is grpc.StatusCode.RESOURCE_EXHAUSTED and asked is not None):
            return Retry(reason, asked)
        raise ExportError(f"{self.target} refuses spans: {reason}.", hint=_hint(code)) from error


def _exporter(url: str | None) -> Any:
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    class RawExporter(OTLPSpanExporter):
        """The official exporter, whose stub is our `_Channel`. Versions differ in who sets it."""

        @property
        def _stub(self) -> Any:
            return _Channel

        @_stub.setter
        def _stub(self, stub: Any) -> None:
            """Ignore the generated stub."""

    # A scheme given by the user goes before OTEL_EXPORTER_OTLP_INSECURE.
    insecure = None if url is None else url.startswith("http://")
    try:
        return RawExporter(endpoint=url, insecure=insecure)
    except Exception as exc:
        # The exporter raises plain exceptions of its own for wrong settings.
        raise ExportError(f"The OTLP settings are wrong: {exc}.", hint=SETTINGS_HINT) from exc


def _retry_info(error: Any) -> float | None:
    """Seconds that the server asks us to wait, if it does."""
    from google.protobuf.message import DecodeError
    from google.rpc.error_details_pb2 import RetryInfo
    from google.rpc.status_pb2 import Status

    trailers = dict(error.trailing_metadata() or ())
    info = RetryInfo()
    try:
        for detail in Status.FromString(trailers.get("grpc-status-details-bin", b"")).details:
            if detail.Unpack(info):
                return _seconds(info)
        if "google.rpc.retryinfo-bin" in trailers:
            return _seconds(RetryInfo.FromString(trailers["google.rpc.retryinfo-bin"]))
    except DecodeError:
        pass
    return None


def _seconds(info: Any) -> float:
    return float(info.retry_delay.seconds) + float(info.retry_delay.nanos) / 1e9


def _hint(code: Any) -> str:
    import grpc

    if code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
        return "Give credentials with OTEL_EXPORTER_OTLP_HEADERS."
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return "The server has no OTLP trace service: is this the right port?"
    return "The capture is complete on disk; `gputap export` sends it again."
