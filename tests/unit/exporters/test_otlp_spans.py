from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from gputap.exporters import otlp, otlp_encode
from gputap.profiler import schema
from gputap.profiler.store import Capture, CaptureWriter, RankManifest
from tests.synthetic import JOB, START_NS, Plan, event, events_table, main_tid, table_of
from tests.synthetic import capture as synthetic_capture
from tests.unit.exporters.captures import training

ROOT = b""


def attributes(span: Any) -> dict[str, Any]:
    """Attributes of a span or resource as Python values."""
    out = {}
    for pair in span.attributes:
        kind = pair.value.WhichOneof("value")
        value = getattr(pair.value, kind)
        out[pair.key] = [v.string_value for v in value.values] if kind == "array_value" else value
    return out


def spans_of(capture: Capture, **options: Any) -> dict[int, list[Span]]:
    """Spans by rank."""
    out: dict[int, list[Span]] = {}
    for message in otlp.encode_otlp(capture, **options):
        request = ExportTraceServiceRequest.FromString(message)
        for resource_spans in request.resource_spans:
            rank = attributes(resource_spans.resource)["gputap.rank"]
            for scope_spans in resource_spans.scope_spans:
                out.setdefault(rank, []).extend(scope_spans.spans)
    return out


def by_kind(spans: Iterable[Span], kind: str) -> list[Span]:
    return [s for s in spans if attributes(s)["gputap.kind"] == kind]


def assert_sound(spans: list[Span]) -> None:
    """Parents exist in the trace and hold their children in time; ids are distinct."""
    known = {(s.trace_id, s.span_id): s for s in spans}
    assert len(known) == len(spans)
    for span in spans:
        assert span.end_time_unix_nano >= span.start_time_unix_nano
        if span.parent_span_id:
            parent = known[span.trace_id, span.parent_span_id]
            assert parent.start_time_unix_nano <= span.start_time_unix_nano
            assert span.end_time_unix_nano <= parent.end_time_unix_nano


EVENT_KINDS = {"operator", "autograd", "user_scope", "torchscript", "gc"}


def events_told(spans: list[Span]) -> int:
    """Recorded events that spans stand for or count."""
    told = 0
    for span in spans:
        found = attributes(span)
        is_event = found["gputap.kind"] in EVENT_KINDS or span.name == "c10d::allreduce_"
        told += is_event or "gputap.scope" in found
        told += found.get("gputap.rolled_up.events", 0)
    return told


def path_to(spans: list[Span], span: Span) -> list[str]:
    """Names from the root to `span`."""
    known = {s.span_id: s for s in spans}
    names = [span.name]
    while span.parent_span_id:
        span = known[span.parent_span_id]
        names.append(span.name)
    return names[::-1]


def test_every_step_is_a_trace_that_its_ranks_share(tmp_path: Path) -> None:
    found = spans_of(training(tmp_path / "c", Plan(steps=4, ranks=2)))
    traces = [{s.trace_id for s in found[rank]} for rank in (0, 1)]
    assert traces[0] == traces[1] == {otlp_encode.trace_id(JOB, step) for step in range(4)}
    for rank in (0, 1):
        roots = [s for s in found[rank] if not s.parent_span_id]
        assert [s.name for s in roots] == ["step"] * 4
        assert {attributes(s)["gputap.rank"] for s in roots} == {rank}
    assert_sound(found[0] + found[1])


def test_phases_modules_and_operators_nest(tmp_path: Path) -> None:
    capture = training(tmp_path / "c", Plan(steps=1, layers=2, gc_step=None))
    spans = spans_of(capture)[0]
    paths = Counter(tuple(path_to(spans, s)[1:]) for s in spans if s.parent_span_id)
    engine = "autograd::engine::evaluate_function: AddmmBackward0"
    assert paths == Counter(
        {
            ("data_wait",): 1,
            ("forward",): 1,
            ("forward", "Model"): 1,
            ("forward", "Model", "aten::mse_loss"): 1,
            ("forward", "Model", "layers.0"): 1,
            ("forward", "Model", "layers.0", "aten::linear"): 1,
            ("forward", "Model", "layers.0", "aten::linear", "aten::addmm"): 1,
            ("forward", "Model", "layers.1"): 1,
            ("forward", "Model", "layers.1", "aten::linear"): 1,
            ("forward", "Model", "layers.1", "aten::linear", "aten::addmm"): 1,
            ("optimizer",): 2,
            ("backward",): 1,
            ("backward", engine): 2,
            ("backward", engine, "AddmmBackward0"): 2,
            ("backward", engine, "AddmmBackward0", "aten::mm"): 2,
            ("optimizer", "aten::_foreach_add_"): 1,
        }
    )


def test_phase_spans_last_as_long_as_what_was_built(tmp_path: Path) -> None:
    plan = Plan(steps=1)
    spans = spans_of(training(tmp_path / "c", plan))[0]
    lengths = {
        s.name: s.end_time_unix_nano - s.start_time_unix_nano
        for s in by_kind(spans, "phase")
        if attributes(s).get("gputap.scope") != "Optimizer.zero_grad#SGD.zero_grad"
    }
    assert lengths == {
        "data_wait": plan.data_wait_ns,
        "forward": plan.layers * plan.forward_op_ns + plan.loss_ns,
        "backward": plan.layers * plan.backward_op_ns,
        "optimizer": plan.optimizer_ns,
    }


@pytest.mark.parametrize("budget", [1, 2, 3, 7, 15, 40, 2000])
@pytest.mark.parametrize("ranks", [1, 3])
def test_the_budget_holds_and_what_is_left_out_is_counted(
    tmp_path: Path, budget: int, ranks: int
) -> None:
    capture = training(tmp_path / "c", Plan(steps=3, ranks=ranks, layers=5))
    found = spans_of(capture, budget=budget)
    spans = [s for rank in found.values() for s in rank]
    assert max(Counter(s.trace_id for s in spans).values()) <= budget
    assert_sound(spans)
    for rank, of_rank in found.items():
        if budget >= ranks:
            names = capture.table("events", ["name"], rank=rank)["name"].to_pylist()
            assert events_told(of_rank) == len(names) - names.count("gloo:all_reduce")


def test_what_is_left_out_is_said_in_words(tmp_path: Path) -> None:
    capture = training(tmp_path / "c", Plan(steps=1, layers=2, gc_step=None))
    root = attributes(spans_of(capture, budget=1)[0][0])
    # loader 1000, forward 2 x 200 + 50, zero_grad 30, backward 2 x 400, optimizer 300 us; children
    # of what is left out are not counted twice.
    assert root["gputap.rolled_up_ns"] == 2_580_000
    assert root["gputap.rolled_up.events"] == 15
    assert root["gputap.rolled_up"] == "15 more operators and scopes, 2.580 ms; 3 more module calls"


def test_the_longest_are_kept(tmp_path: Path) -> None:
    rows = [event(START_NS + 1000 * i, 10 + i, f"aten::op{i}") for i in range(100)]
    capture = with_steps(tmp_path / "c", rows, [(START_NS, 1_000_000)])
    spans = by_kind(spans_of(capture, budget=7)[0], "operator")
    assert sorted(s.name for s in spans) == [f"aten::op{i}" for i in range(95, 100)]


def test_unrecorded_steps_have_a_root_and_the_known_phases_only(tmp_path: Path) -> None:
    capture = training(tmp_path / "c", Plan(steps=2, recorded_every=2, gc_step=None))
    trace = otlp_encode.trace_id(JOB, 1)
    spans = [s for s in spans_of(capture)[0] if s.trace_id == trace]
    assert sorted(s.name for s in spans) == ["data_wait", "optimizer", "optimizer", "step"]
    root = attributes(next(s for s in spans if not s.parent_span_id))
    assert root["gputap.step.recorded"] is False
    assert root["gputap.step.data_wait_ns"] == 1_000_000
    assert not {"gputap.step.forward_ns", "gputap.step.gap_ns"} & set(root)


def test_every_span_says_level_and_timing_source(tmp_path: Path) -> None:
    found = spans_of(training(tmp_path / "c", Plan(ranks=2)))
    for span in found[0] + found[1]:
        said = attributes(span)
        assert said["gputap.level"] == "framework"
        expected = "host_work" if said["gputap.kind"] == "collective" else "host_call"
        if span.name != "c10d::allreduce_":
            assert said["gputap.timing_source"] == expected


def test_collectives_come_with_their_size_and_once(tmp_path: Path) -> None:
    spans = spans_of(training(tmp_path / "c", Plan(steps=2, ranks=2)))[1]
    found = [s for s in spans if s.name == "all_reduce"]
    assert len(found) == 2
    assert not [s for s in spans if s.name == "gloo:all_reduce"]
    said = attributes(found[0])
    assert said["gputap.collective.bytes"] == 4 << 20
    assert said["gputap.collective.world_size"] == 2
    assert said["thread.id"] == main_tid(1) + 7


def test_events_say_where_they_are_in_the_code(tmp_path: Path) -> None:
    spans = spans_of(training(tmp_path / "c", Plan(steps=1)))[0]
    linear = attributes(next(s for s in spans if s.name == "aten::linear"))
    assert linear["code.file.path"] == "/app/train.py"  # not the frame in site-packages
    assert linear["code.function.name"] == "train"
    assert linear["gputap.module"].startswith("layers.")


def test_only_the_steps_asked_for(tmp_path: Path) -> None:
    found = spans_of(training(tmp_path / "c", Plan(steps=5)), steps=[1, 3])[0]
    assert {attributes(s)["gputap.step"] for s in found} == {1, 3}


def test_exporting_twice_gives_the_same_spans(tmp_path: Path) -> None:
    capture = training(tmp_path / "c", Plan(ranks=2))
    assert list(otlp.encode_otlp(capture)) == list(otlp.encode_otlp(capture))


def test_with_more_ranks_than_budget_the_slowest_are_sent(tmp_path: Path) -> None:
    plan = Plan(steps=2, ranks=5, slow_rank=3, slow_rank_ns=1_000_000)
    capture = training(tmp_path / "c", plan)
    steps = [capture.table("steps", rank=r)["duration_ns"].to_pylist() for r in range(5)]
    longest = {max(range(5), key=lambda r: (steps[r][s], -r)) for s in range(2)}
    assert set(spans_of(capture, budget=1)) == longest
    plan_rows, notes = otlp._plan(capture, 1, None)
    assert sum(len(rows) for _, rows, _ in plan_rows) == 2
    assert notes[0].startswith("8 rank-steps left out")


def test_the_resource_names_job_rank_and_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    capture = training(tmp_path / "c")
    monkeypatch.delenv("OTEL_SERVICE_NAME", raising=False)
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "team=red,host.name=lies")
    said = otlp.resource_attributes(capture, capture.ranks[0])
    assert said["service.name"] == JOB
    assert (said["team"], said["host.name"]) == ("red", "host0")
    assert (said["gputap.job"], said["gputap.rank"], said["process.pid"]) == (JOB, 0, 10_000)
    assert said["telemetry.sdk.name"] == "opentelemetry"


@pytest.mark.parametrize(
    ("name", "value"),
    [("OTEL_SERVICE_NAME", "trainer"), ("OTEL_RESOURCE_ATTRIBUTES", "service.name=trainer")],
)
def test_the_service_name_of_the_environment_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    capture = training(tmp_path / "c")
    monkeypatch.setenv(name, value)
    assert otlp.resource_attributes(capture, capture.ranks[0])["service.name"] == "trainer"


def with_steps(path: Path, rows: list[dict[str, Any]], steps: list[tuple[int, int]]) -> Capture:
    """A capture of these events, with steps (start, length) on the main thread."""
    table = [
        {
            "step": i, "start_ns": start, "duration_ns": length, "tid": 10_000,
            "boundary": "optimizer", "recorded": True, "whole": True, "micro_steps": 1,
            **dict.fromkeys(
                ("data_wait_ns", "forward_ns", "backward_ns", "optimizer_ns", "other_ns"), 0
            ),
            "gc_ns": 0, "collective_ns": 0, "events": len(rows),
        }
        for i, (start, length) in enumerate(steps)
    ]  # fmt: skip
    with CaptureWriter(path, job=JOB, created_ns=START_NS) as writer:
        writer.set_rank(RankManifest(rank=0, host="host0", pid=10_000))
        writer.write("events", events_table(rows), rank=0)
        writer.write("steps", table_of(schema.STEPS, table), rank=0)
    return Capture.open(path)


def module(name: str) -> dict[str, Any]:
    return {"module": name, "module_class": name.title() or "Net"}


def test_a_module_called_again_later_is_two_spans(tmp_path: Path) -> None:
    names = ["a", "a", "b", "a"]
    rows = [
        event(START_NS + 100 * i, 50, "aten::relu", seq=i, **module(n)) for i, n in enumerate(names)
    ]
    spans = spans_of(with_steps(tmp_path / "c", rows, [(START_NS, 10_000)]))[0]
    calls = sorted(by_kind(spans, "module"), key=lambda s: s.start_time_unix_nano)
    hulls = [
        (s.name, s.start_time_unix_nano - START_NS, s.end_time_unix_nano - START_NS) for s in calls
    ]
    assert hulls == [("a", 0, 150), ("b", 200, 250), ("a", 300, 350)]


def test_modules_inside_an_operator_keep_their_own_operators(tmp_path: Path) -> None:
    # Activation checkpointing: one operator of block `a` runs the modules below it.
    rows = [
        event(START_NS, 1000, "CheckpointFunction", seq=0, **module("a")),
        event(START_NS + 100, 100, "aten::mm", depth=1, seq=1, **module("a.x")),
        event(START_NS + 300, 100, "aten::mm", depth=1, seq=2, **module("a.y")),
        event(START_NS + 500, 100, "aten::add", depth=1, seq=3, **module("a")),
    ]
    spans = spans_of(with_steps(tmp_path / "c", rows, [(START_NS, 10_000)]))[0]
    assert_sound(spans)
    paths = {tuple(path_to(spans, s)[2:]) for s in by_kind(spans, "operator")}
    assert paths == {
        ("a", "CheckpointFunction"),
        ("a", "a.x", "aten::mm"),
        ("a", "a.y", "aten::mm"),
        ("a", "CheckpointFunction", "aten::add"),
    }


def test_a_scope_of_the_user_around_the_step_hides_nothing(tmp_path: Path) -> None:
    rows = [
        event(START_NS, 9000, "my training step", "user_scope"),
        event(START_NS + 100, 100, "aten::mm", depth=1, seq=1, **module("a")),
        event(START_NS + 300, 100, "MmBackward0", "autograd", depth=1, seq=1),
        event(START_NS + 500, 100, "Optimizer.step#SGD.step", "user_scope", depth=1),
    ]
    spans = spans_of(with_steps(tmp_path / "c", rows, [(START_NS, 10_000)]))[0]
    assert {s.name for s in by_kind(spans, "phase")} == {"forward", "backward", "optimizer"}
    assert [s.name for s in by_kind(spans, "user_scope")] == ["my training step"]


def test_backward_on_a_thread_of_its_own_is_a_phase(tmp_path: Path) -> None:
    rows = [
        event(START_NS + 100, 100, "aten::mm", seq=1, **module("a")),
        event(START_NS + 300, 100, "MmBackward0", "autograd", tid=77, seq=1),
        event(START_NS + 350, 20, "aten::mm", tid=77, depth=1),
        event(START_NS + 450, 100, "MmBackward0", "autograd", tid=77, seq=0),
        event(START_NS + 300, 100, "aten::copy_", tid=99),
    ]
    spans = spans_of(with_steps(tmp_path / "c", rows, [(START_NS, 10_000)]))[0]
    assert_sound(spans)
    backward = next(s for s in spans if s.name == "backward")
    assert backward.end_time_unix_nano - backward.start_time_unix_nano == 250
    copy = next(s for s in spans if s.name == "aten::copy_")
    assert path_to(spans, copy) == ["step", "aten::copy_"]


def test_what_outlasts_its_step_is_cut_and_says_so(tmp_path: Path) -> None:
    rows = [event(START_NS + 900, 500, "aten::mm", seq=1, **module("a"))]
    spans = spans_of(with_steps(tmp_path / "c", rows, [(START_NS, 1000), (START_NS + 1000, 1000)]))[
        0
    ]
    assert_sound(spans)
    mm = next(s for s in spans if s.name == "aten::mm")
    assert mm.end_time_unix_nano == START_NS + 1000
    assert attributes(mm)["gputap.clipped"] is True


def test_shapes_are_sent(tmp_path: Path) -> None:
    shapes = json.dumps({"shapes": [[2, 3]], "dtypes": ["float"]})
    rows = [event(START_NS, 10, "aten::mm", shapes=shapes)]
    spans = spans_of(with_steps(tmp_path / "c", rows, [(START_NS, 1000)]))[0]
    mm = next(s for s in spans if s.name == "aten::mm")
    assert attributes(mm)["gputap.input.shapes"] == shapes


def test_a_capture_without_steps_sends_nothing_and_says_why(tmp_path: Path) -> None:
    capture = with_steps(tmp_path / "c", [event(START_NS, 10, "aten::mm")], [])
    assert spans_of(capture) == {}
    assert "no steps" in otlp._plan(capture, 10, None)[1][0]


def test_a_killed_gputap_left_no_steps_and_they_are_worked_out(tmp_path: Path) -> None:
    capture = synthetic_capture(tmp_path / "c", Plan(steps=3, ranks=2))
    assert capture.table("steps").num_rows == 0
    found = spans_of(capture)
    assert_sound(found[0] + found[1])
    roots = [s for s in found[1] if not s.parent_span_id]
    assert {s.trace_id for s in roots} == {otlp_encode.trace_id(JOB, step) for step in range(3)}
    assert [s.name for s in found[0] if attributes(s)["gputap.kind"] == "collective"]
