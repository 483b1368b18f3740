"""Sends a capture as OTLP traces: one trace per step, shared by all ranks of the job.

Ids follow from job, step and rank, so sending a capture twice gives the same spans, and ranks
captured apart meet in one trace.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

import gputap
from gputap.exporters import otlp_encode as encode
from gputap.exporters.otlp_transport import Answer, Sender, connect, deliver
from gputap.exporters.source import CaptureSource, Columns, WithSteps, read
from gputap.exporters.span_tree import STEP_COLUMNS, build
from gputap.exporters.spans import RankSpans, rank_spans
from gputap.profiler.errors import ExportError, UsageError

if TYPE_CHECKING:
    from gputap.exporters.nesting import Ints
    from gputap.profiler.manifest import RankManifest

DEFAULT_BUDGET: Final = 2000
"""Spans per trace, all ranks together. Jaeger's page is slow above."""

DEFAULT_TIMEOUT_S: Final = 60.0

SCOPE_NAME: Final = "gputap"


@dataclass(frozen=True, slots=True)
class OtlpResult:
    """What was sent and what became of it."""

    target: str
    traces: int
    spans: int
    """Sent, rejected ones included."""
    rejected: int
    """Spans that the receiver said it did not take."""
    events_sent: int
    """Recorded events that a span stands for."""
    events_rolled_up: int
    """Recorded events that are only counted, on the span around them."""
    events_outside: int
    """Recorded events outside of every step; in no trace."""
    messages: int
    retries: int
    bytes: int
    """Encoded, before compression."""
    seconds: float
    notes: tuple[str, ...]
    """What else there is to say: left out ranks, odd answers. Each once."""


@dataclass(slots=True)
class _Tally:
    """Counts while sending."""

    spans: int = 0
    rejected: int = 0
    events_sent: int = 0
    events_rolled_up: int = 0
    events_outside: int = 0
    messages: int = 0
    retries: int = 0
    size: int = 0

    def took(self, message: bytes, spans: int, answer: Answer, retries: int) -> None:
        self.messages += 1
        self.spans += spans
        self.size += len(message)
        self.rejected += answer.rejected
        self.retries += retries


def export_otlp(
    capture: CaptureSource,
    *,
    endpoint: str | None = None,
    budget: int = DEFAULT_BUDGET,
    steps: Collection[int] | None = None,
    timeout_s: float = DEFAULT_TIMEOUT_S,
) -> OtlpResult:
    """Send the capture's steps (or only `steps`) to `endpoint` or where OTEL_* says.

    `budget` is the most spans per trace over all ranks; `timeout_s` the longest that one message
    may take, retries included. Raises ExportError when the receiver cannot be reached or refuses,
    UsageError for a wrong endpoint or budget. The capture is only read.
    """
    if budget < 1:
        raise UsageError(f"A budget of {budget} spans per trace sends nothing.")
    started = time.monotonic()
    capture = WithSteps(capture)
    wanted, notes = _plan(capture, budget, steps)
    sender = connect(endpoint)
    tally = _Tally()
    traces: set[int] = set()
    try:
        for rank, rows, share in wanted:
            found = _spans_of_rank(capture, rank, rows, share, tally, whole=steps is None)
            traces.update(rows.ints["step"].tolist())
            notes += _send(sender, capture, rank, found, tally, timeout_s)
    except ExportError as exc:
        if tally.messages:
            exc.message += f" {tally.spans:,} spans had been sent before."
            exc.args = (exc.message,)
        raise
    finally:
        sender.close()
    return OtlpResult(
        target=sender.target,
        traces=len(traces),
        spans=tally.spans,
        rejected=tally.rejected,
        events_sent=tally.events_sent,
        events_rolled_up=tally.events_rolled_up,
        events_outside=tally.events_outside,
        messages=tally.messages,
        retries=tally.retries,
        bytes=tally.size,
        seconds=time.monotonic() - started,
        notes=tuple(dict.fromkeys(notes)),
    )


def encode_otlp(
    capture: CaptureSource, *, budget: int = DEFAULT_BUDGET, steps: Collection[int] | None = None
) -> Iterator[bytes]:
    """The messages that `export_otlp` would send."""
    capture = WithSteps(capture)
    for rank, rows, share in _plan(capture, budget, steps)[0]:
        found = _spans_of_rank(capture, rank, rows, share, _Tally(), whole=False)
        for message, _ in _messages(capture, rank, found):
            yield message


def _plan(
    capture: CaptureSource, budget: int, steps: Collection[int] | None
) -> tuple[list[tuple[RankManifest, Columns, Ints]], list[str]]:
    """For each rank its steps and its share of the budget in each of them.

    With more ranks than budget only the ranks that took longest in a step are sent.
    """
    ranks, tables = [], []
    for rank in capture.ranks:
        rows = read(capture, "steps", STEP_COLUMNS, rank.rank)
        if steps is not None:
            rows = rows.take(np.flatnonzero(np.isin(rows.ints["step"], list(steps))))
        ranks.append(rank)
        tables.append(rows)
    if sum(map(len, tables)) == 0:
        return [], ["no steps to send: the capture has none" + (" of these" if steps else "")]
    kept, ranks_in_step = _longest_ranks(tables, budget)
    plan, left_out = [], 0
    for rank, rows, keep in zip(ranks, tables, kept, strict=True):
        left_out += int((~keep).sum())
        chosen = rows.take(np.flatnonzero(keep))
        share = budget // np.array([ranks_in_step[s] for s in chosen.ints["step"].tolist()])
        if len(chosen):
            plan.append((rank, chosen, share.astype(np.int64)))
    notes = [
        f"{left_out:,} rank-steps left out: more ranks than a budget of {budget:,} spans per trace"
        " has room for; sent are those that took longest"
    ]
    return plan, notes if left_out else []


def _longest_ranks(tables: Sequence[Columns], budget: int) -> tuple[list[Any], dict[int, int]]:
    """Which rows of each table to send, and how many ranks that makes in each step."""
    step = np.concatenate([t.ints["step"] for t in tables])
    length = np.concatenate([t.ints["duration_ns"] for t in tables])
    order = np.lexsort((-length, step))
    place = np.empty(len(step), np.int64)
    place[order] = np.arange(len(step)) - np.searchsorted(step[order], step[order])
    keep = place < budget
    numbers, counts = np.unique(step[keep], return_counts=True)
    edges = np.cumsum([len(t) for t in tables])[:-1]
    return np.split(keep, edges), dict(zip(numbers.tolist(), counts.tolist(), strict=True))


def _spans_of_rank(
    capture: CaptureSource,
    rank: RankManifest,
    steps: Columns,
    share: Ints,
    tally: _Tally,
    *,
    whole: bool,
) -> RankSpans:
    tree = build(capture, rank.rank, steps)
    found = rank_spans(capture, tree, share, rank)
    tally.events_sent += found.events_sent
    tally.events_rolled_up += found.events_rolled_up
    tally.events_outside += tree.outside if whole else 0
    return found


def _messages(
    capture: CaptureSource, rank: RankManifest, found: RankSpans
) -> Iterator[tuple[bytes, int]]:
    resource = encode.encode_resource(resource_attributes(capture, rank))
    scope = encode.encode_scope(SCOPE_NAME, gputap.__version__)
    return encode.encode_requests(found.columns, resource=resource, scope=scope)


def _send(
    sender: Sender,
    capture: CaptureSource,
    rank: RankManifest,
    found: RankSpans,
    tally: _Tally,
    timeout_s: float,
) -> list[str]:
    """Send one rank's spans; returns what the receiver remarked."""
    remarks = []
    for message, count in _messages(capture, rank, found):
        deadline = time.monotonic() + timeout_s
        answer, retries = deliver(sender, message, deadline=deadline, first=tally.messages == 0)
        tally.took(message, count, answer, retries)
        if answer.message:
            remarks.append(answer.message)
    return remarks


def resource_attributes(capture: CaptureSource, rank: RankManifest) -> dict[str, Any]:
    """Who the spans are from: OpenTelemetry's resource of this environment, and the rank.

    service.name is OTEL_SERVICE_NAME, else of OTEL_RESOURCE_ATTRIBUTES, else the job.
    """
    from opentelemetry.sdk.resources import Resource

    job = capture.manifest.job
    ours: dict[str, str | int] = {
        "host.name": rank.host,
        "gputap.job": job,
        "gputap.rank": rank.rank,
        "service.instance.id": f"{rank.host}/{rank.pid or f'rank {rank.rank}'}",
    }
    if rank.pid:
        ours["process.pid"] = rank.pid
    if rank.world_size is not None:
        ours["gputap.world_size"] = rank.world_size
    attributes: dict[str, Any] = dict(Resource.create(ours).attributes)
    # Without a name the SDK says unknown_service, or unknown_service:python.
    if str(attributes.get("service.name", "unknown_service")).startswith("unknown_service"):
        attributes["service.name"] = job or SCOPE_NAME
    return attributes
