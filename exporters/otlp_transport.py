"""Sends encoded OTLP messages with the settings of the official exporters.

Endpoint, headers, certificates, compression and time-out come from OTEL_EXPORTER_OTLP_* by way of
OpenTelemetry's own exporter, which is asked what it would do. Bytes, retries and answers are ours:
its retry hides rejected spans and takes seconds to say that nobody listens.
"""

from __future__ import annotations

import gzip
import math
import os
import random
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timezone
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol
from urllib.parse import urlsplit, urlunsplit

from gputap.profiler.errors import ExportError, UsageError

if TYPE_CHECKING:
    import requests

TRACES_PATH: Final = "/v1/traces"
EXPORT_METHOD: Final = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"

FIRST_BACKOFF_S: Final = 0.5
MAX_BACKOFF_S: Final = 16.0
JITTER: Final = 0.2

_RETRY_STATUS: Final = frozenset({429, 502, 503, 504})

ProtocolName = Literal["http/protobuf", "grpc"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a receiver said to one message that it took."""

    rejected: int = 0
    """Spans that it did not take (partial success)."""
    message: str = ""
    """Its words, or what is odd about the answer."""


@dataclass(frozen=True, slots=True)
class Retry:
    """The receiver did not take a message now but may later."""

    reason: str
    after_s: float | None = None
    """How long it asks us to wait."""


class Sender(Protocol):
    """One connection to one receiver."""

    target: str
    """Where messages go, for people."""
    timeout_s: float
    """Longest wait for one answer."""

    def send(self, message: bytes, timeout_s: float, *, first: bool) -> Answer | Retry:
        """Send once. Raises ExportError if trying again is of no use."""

    def close(self) -> None:
        """Close the connection."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to send, taken apart. `url` None: the environment or the exporter's default decides."""

    protocol: ProtocolName
    url: str | None


def resolve(endpoint: str | None, environment: Mapping[str, str] = os.environ) -> Endpoint:
    """Choose protocol and URL.

    `grpc://host:4317` (`grpcs://` with TLS) means gRPC; `http(s)://` follows
    OTEL_EXPORTER_OTLP_PROTOCOL, which is http/protobuf by default; without a path `/v1/traces` is
    appended. Raises UsageError for anything else.
    """
    if endpoint is None:
        return Endpoint(_protocol(environment), None)
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https", "grpc", "grpcs") or not parts.netloc:
        raise UsageError(
            f"{endpoint!r} is not an OTLP endpoint.",
            hint="Give http(s)://host:4318 or grpc(s)://host:4317.",
        )
    if parts.scheme in ("grpc", "grpcs"):
        scheme = "https" if parts.scheme == "grpcs" else "http"
        return Endpoint("grpc", f"{scheme}://{parts.netloc}")
    protocol = _protocol(environment)
    if protocol == "grpc":
        return Endpoint("grpc", f"{parts.scheme}://{parts.netloc}")
    path = parts.path if parts.path.strip("/") else TRACES_PATH
    return Endpoint(protocol, urlunsplit(parts._replace(path=path)))


def _protocol(environment: Mapping[str, str]) -> ProtocolName:
    names = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    name, value = next(((n, environment[n]) for n in names if environment.get(n)), ("", ""))
    if value in ("", "http/protobuf"):
        return "http/protobuf"
    if value == "grpc":
        return "grpc"
    raise UsageError(f"{name}={value} is not supported.", hint="Use http/protobuf or grpc.")


def connect(endpoint: str | None) -> Sender:
    """The sender for `endpoint`, or for the environment's if None. Nothing is sent yet."""
    where = resolve(endpoint)
    if where.protocol == "grpc":
        from gputap.exporters.otlp_grpc import GrpcSender

        return GrpcSender(where.url)
    return HttpSender(where.url)


def deliver(
    sender: Sender,
    message: bytes,
    *,
    deadline: float,
    first: bool,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[Answer, int]:
    """Send until it is taken; the answer and the number of retries.

    Waits grow exponentially with jitter, or are what the receiver asked for; none goes past
    `deadline` (of `time.monotonic`). Raises ExportError when the receiver refuses or time is up.
    """
    for attempt in range(10_000):
        left = deadline - time.monotonic()
        outcome = sender.send(message, max(0.1, min(sender.timeout_s, left)), first=first)
        if isinstance(outcome, Answer):
            return outcome, attempt
        wait_s = _backoff(attempt) if outcome.after_s is None else outcome.after_s
        if time.monotonic() + wait_s > deadline:
            asked = "" if outcome.after_s is None else f" and asks to wait {outcome.after_s:.0f} s"
            raise ExportError(
                f"{sender.target} does not take spans: {outcome.reason}{asked};"
                f" gave up after {attempt + 1} attempts.",
                hint="Send again when the receiver is well: `gputap export` sends the same spans.",
            )
        sleep(wait_s)
    raise AssertionError("unreachable: the deadline ends the loop")


def _backoff(attempt: int) -> float:
    return min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2.0**attempt) * random.uniform(
        1 - JITTER, 1 + JITTER
    )


# ------------------------------------------------------------------------------------- HTTP


class HttpSender:
    """OTLP over HTTP with protobuf."""

    def __init__(self, url: str | None) -> None:
        """Ask OpenTelemetry's exporter for its settings, with `url` instead of its own if given."""
        self._session, self._call = _http_settings(url)
        self.target = _without_secrets(str(self._call["url"]))
        timeout = self._call.get("timeout")
        self.timeout_s = (
            float(timeout) if isinstance(timeout, int | float) and timeout > 0 else 10.0
        )
        merged = {k.lower(): v for k, v in self._session.headers.items()}
        merged |= {k.lower(): v for k, v in (self._call.get("headers") or {}).items()}
        self._encoding = _as_text(merged.get("content-encoding", "")).lower()

    def send(self, message: bytes, timeout_s: float, *, first: bool) -> Answer | Retry:
        """Post once."""
        import requests

        try:
            response = self._session.request(
                "POST",
                self._call["url"],
                data=self._compressed(message),
                headers=self._call.get("headers"),
                verify=self._call.get("verify"),
                cert=self._call.get("cert"),
                timeout=timeout_s,
                allow_redirects=False,
            )
        except requests.exceptions.SSLError as exc:
            raise ExportError(
                f"{self.target}: the TLS connection failed: {_cause(exc)}.",
                hint="Set OTEL_EXPORTER_OTLP_CERTIFICATE to the CA's file, and"
                " ..._CLIENT_CERTIFICATE and ..._CLIENT_KEY if the receiver wants to know you.",
            ) from exc
        except requests.exceptions.Timeout as exc:
            if first and isinstance(exc, requests.exceptions.ConnectTimeout):
                raise _unreachable(self.target, exc) from exc
            return Retry(f"no answer within {timeout_s:.0f} s")
        except requests.exceptions.ConnectionError as exc:
            if first and _never_connected(exc):
                raise _unreachable(self.target, exc) from exc
            return Retry(_cause(exc))
        except (requests.exceptions.RequestException, OSError, ValueError) as exc:
            raise ExportError(f"{self.target}: {_cause(exc)}.", hint=SETTINGS_HINT) from exc
        return self._judge(response)

    def close(self) -> None:
        """Close the session."""
        self._session.close()

    def _compressed(self, message: bytes) -> bytes:
        if self._encoding == "gzip":
            return gzip.compress(message, 1)  # level 1: a fifth of the time, nearly the size
        if self._encoding == "deflate":
            return zlib.compress(message, 1)
        return message

    def _judge(self, response: requests.Response) -> Answer | Retry:
        status = response.status_code
        if 200 <= status < 300:
            return parse_answer(response.content, response.headers.get("Content-Type", ""))
        reason = f"HTTP {status} {response.reason or ''}".strip()
        if status in _RETRY_STATUS:
            return Retry(reason, _retry_after(response.headers.get("Retry-After")))
        raise ExportError(f"{self.target} refuses spans: {reason}.", hint=_status_hint(status))


def _http_settings(url: str | None) -> tuple[requests.Session, dict[str, Any]]:
    """The session and the request that OpenTelemetry's HTTP exporter would make.

    It is given a session that only notes the request for an empty batch: this uses nothing but its
    public interface, and so works alike with every version since 1.25.
    """
    import requests
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    noted: dict[str, Any] = {}

    class NotingSession(requests.Session):
        def request(self, method: Any, url: Any, *args: Any, **kwargs: Any) -> requests.Response:
            noted.update(kwargs, url=url)
            noted.setdefault("verify", self.verify)
            noted.setdefault("cert", self.cert)
            response = requests.Response()
            response.status_code = 200
            response._content = b""
            return response

    session = NotingSession()
    try:
        OTLPSpanExporter(endpoint=url, session=session).export([])
    except (ValueError, OSError, ImportError) as exc:
        raise ExportError(f"The OTLP settings are wrong: {exc}.", hint=SETTINGS_HINT) from exc
    if "url" not in noted:
        raise ExportError("The OTLP exporter did not say where it would send.", hint=SETTINGS_HINT)
    real = requests.Session()
    real.headers.update(session.headers)
    real.auth = session.auth
    return real, noted


def parse_answer(body: bytes, content_type: str) -> Answer:
    """Read the receiver's answer; an odd one is told, the spans count as taken."""
    from google.protobuf.message import DecodeError
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
        ExportTraceServiceResponse,
    )

    if not body:
        return Answer()
    if "protobuf" not in content_type:
        kind = content_type.split(";")[0] or "of no type"
        return Answer(message=f"the answer was {kind}, not OTLP: is this an OTLP receiver?")
    try:
        partial = ExportTraceServiceResponse.FromString(body).partial_success
    except DecodeError:
        return Answer(message="the answer could not be parsed: is this an OTLP receiver?")
    return Answer(int(partial.rejected_spans), str(partial.error_message))


def _retry_after(value: str | None) -> float | None:
    """Seconds from a Retry-After header: a number or a date."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        pass
    else:
        return max(0.0, seconds) if math.isfinite(seconds) else None
    try:
        when = parsedate_to_datetime(value)
    except (TypeError, ValueError):
        return None
    when = when if when.tzinfo else when.replace(tzinfo=timezone.utc)
    return max(0.0, when.timestamp() - time.time())


def _never_connected(exc: BaseException) -> bool:
    """True if there was no connection at all, rather than one that broke."""
    from urllib3.exceptions import MaxRetryError, NewConnectionError

    cause = exc.args[0] if exc.args else None
    reason = cause.reason if isinstance(cause, MaxRetryError) else cause
    return isinstance(reason, NewConnectionError)


def _unreachable(target: str, exc: BaseException) -> ExportError:
    return unreachable(target, _cause(exc))


def unreachable(target: str, why: str) -> ExportError:
    """Nobody listens at `target`."""
    return ExportError(
        f"{target} cannot be reached: {why}.",
        hint="Check the address and that the receiver runs (port 4318 for http, 4317 for grpc)."
        " The capture is complete on disk; `gputap export` sends it again.",
    )


def _cause(exc: BaseException) -> str:
    """The innermost reason of an exception, in one line."""
    seen: BaseException = exc
    while True:
        inner = getattr(seen, "reason", None) or (seen.args[0] if seen.args else None)
        if not isinstance(inner, BaseException):
            break
        seen = inner
    while seen.__cause__ is not None:
        seen = seen.__cause__
    if isinstance(seen, OSError) and seen.strerror:
        return seen.strerror
    lines = str(seen).strip().splitlines()
    return lines[0] if lines else type(seen).__name__


def _status_hint(status: int) -> str:
    hints = {
        400: "The receiver calls the data malformed; if it is an OTLP receiver, this is our bug.",
        401: "Give credentials with OTEL_EXPORTER_OTLP_HEADERS.",
        403: "Give credentials with OTEL_EXPORTER_OTLP_HEADERS.",
        404: "Give the whole URL, path included, or only http://host:port for /v1/traces.",
        405: "Give the whole URL, path included, or only http://host:port for /v1/traces.",
        413: "Lower --otlp-budget, or raise the receiver's limit above 4 MiB.",
        415: "The receiver wants another protocol: try grpc://host:4317.",
    }
    return hints.get(status, "The capture is complete on disk; `gputap export` sends it again.")


def _without_secrets(url: str) -> str:
    """`url` without user, password and query, which may hold keys."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _as_text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


SETTINGS_HINT: Final = "See the variables OTEL_EXPORTER_OTLP_*; `--otlp URL` goes before them."
