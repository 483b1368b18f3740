from __future__ import annotations

import gzip
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace, TracePacket, TrackEvent

from gputap.exporters import source
from gputap.exporters.perfetto import export_perfetto
from gputap.profiler.errors import ExportError
from gputap.profiler.schema import EventFlag
from gputap.profiler.store import Capture
from tests import synthetic
from tests.synthetic import START_NS, Plan, event, gloo_tid, main_tid, write_events
from tests.unit.exporters.captures import training


@dataclass
class Slice:
    """A slice as a reader of the file sees it."""

    track: str
    name: str
    category: str
    start: int
    depth: int
    arguments: dict[str, Any]
    flows: list[int]
    ended_flows: list[int]
    end: int = -1


@dataclass
class Reader:
    """Reads a trace like Perfetto does: sequences, interning, defaults, a stack per track."""

    tracks: dict[int, Any] = field(default_factory=dict)
    slices: list[Slice] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> Reader:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        reader = cls()
        by_sequence: dict[int, list[TracePacket]] = defaultdict(list)
        for packet in Trace.FromString(raw).packet:
            if packet.HasField("track_descriptor"):
                descriptor = packet.track_descriptor
                assert descriptor.uuid not in reader.tracks
                reader.tracks[descriptor.uuid] = descriptor
            elif not packet.HasField("clock_snapshot"):
                by_sequence[packet.trusted_packet_sequence_id].append(packet)
        for packets in by_sequence.values():
            reader.slices += reader._sequence(packets)
        return reader

    def title(self, uuid: int) -> str:
        track = self.tracks[uuid]
        return str(track.thread.thread_name or track.name)

    def _sequence(self, packets: list[TracePacket]) -> Iterator[Slice]:
        first, *rest = packets
        assert first.sequence_flags == TracePacket.SEQ_INCREMENTAL_STATE_CLEARED
        names = {n.iid: n.name for n in first.interned_data.event_names}
        categories = {c.iid: c.name for c in first.interned_data.event_categories}
        keys = {k.iid: k.name for k in first.interned_data.debug_annotation_names}
        strings = {
            s.iid: s.str.decode() for s in first.interned_data.debug_annotation_string_values
        }
        uuid = first.trace_packet_defaults.track_event_defaults.track_uuid
        stack: list[Slice] = []
        now = 0
        for packet in rest:
            assert packet.sequence_flags == TracePacket.SEQ_NEEDS_INCREMENTAL_STATE
            assert packet.timestamp >= now
            now = packet.timestamp
            told = packet.track_event
            if told.type == TrackEvent.TYPE_SLICE_END:
                stack[-1].end = now
                yield stack.pop()
                continue
            assert told.type == TrackEvent.TYPE_SLICE_BEGIN
            stack.append(
                Slice(
                    track=self.title(uuid),
                    name=names[told.name_iid],
                    category=categories[told.category_iids[0]] if told.category_iids else "",
                    start=now,
                    depth=len(stack),
                    arguments={
                        keys[a.name_iid]: strings[a.string_value_iid]
                        if a.string_value_iid
                        else a.int_value
                        for a in told.debug_annotations
                    },
                    flows=list(told.flow_ids),
                    ended_flows=list(told.terminating_flow_ids),
                )
            )
        assert not stack, "a slice was never ended"


def exported(capture: Capture, path: Path, **options: Any) -> Reader:
    export_perfetto(capture, path, **options)
    return Reader.read(path)


def test_every_event_is_a_slice_with_its_name_time_and_depth(tmp_path: Path) -> None:
    capture = training(tmp_path / "c", Plan(steps=3, ranks=2, layers=4))
    result = export_perfetto(capture, tmp_path / "t.pftrace")
    reader = Reader.read(tmp_path / "t.pftrace")
    rows = capture.table("events").to_pylist()
    on_threads = [s for s in reader.slices if s.category not in ("step", "")]
    told = Counter(
        (s.name, s.category, s.start, s.end - s.start, s.depth)
        for s in on_threads
        if s.track not in ("collectives", "steps")
    )
    assert told == Counter(
        (r["name"], r["kind"], r["start_ns"], r["duration_ns"], r["depth"]) for r in rows
    )
    assert result.events == len(rows)
    assert result.slices == len(reader.slices) == len(rows) + 2 * 3 + 2 * 3
    assert result.bytes == (tmp_path / "t.pftrace").stat().st_size


def test_processes_and_threads_have_names(tmp_path: Path) -> None:
    reader = exported(training(tmp_path / "c", Plan(ranks=2)), tmp_path / "t")
    processes = [t for t in reader.tracks.values() if t.HasField("process")]
    assert [(p.process.pid, p.process.process_name) for p in processes] == [
        (main_tid(0), "rank 0 host0 10000"),
        (main_tid(1), "rank 1 host0 10100"),
    ]
    threads = {
        (t.thread.pid, t.thread.tid): t.thread.thread_name
        for t in reader.tracks.values()
        if t.HasField("thread")
    }
    assert threads == {
        (main_tid(0), main_tid(0)): "MainThread",
        (main_tid(0), gloo_tid(0)): "pt_gloo_runner",
        (main_tid(1), main_tid(1)): "MainThread",
        (main_tid(1), gloo_tid(1)): "pt_gloo_runner",
    }
    uuids = {p.uuid for p in processes}
    children = [t for t in reader.tracks.values() if not t.HasField("process")]
    assert all(t.parent_uuid in uuids for t in children)


def test_steps_have_a_track_with_their_figures(tmp_path: Path) -> None:
    capture = training(tmp_path / "c", Plan(steps=2, recorded_every=2))
    steps = [s for s in exported(capture, tmp_path / "t").slices if s.track == "steps"]
    assert [s.name for s in steps] == ["step 0", "step 1"]
    assert steps[0].arguments["forward_ns"] == 650_000
    assert steps[0].arguments["recorded"] == "yes"
    assert steps[1].arguments["recorded"] == "no"
    assert "forward_ns" not in steps[1].arguments


def test_arguments_hold_module_and_shapes(tmp_path: Path) -> None:
    rows = [
        event(START_NS, 10, "aten::mm", module="a.b", module_class="Linear", shapes="[[2]]"),
        event(START_NS + 20, 10, "aten::mm", module="", module_class="Net"),
        event(START_NS + 40, 10, "aten::mm"),
    ]
    reader = exported(write_events(tmp_path / "c", rows), tmp_path / "t")
    assert [s.arguments for s in reader.slices if s.track == "main"] == [
        {"module": "a.b", "module_class": "Linear", "shapes": "[[2]]"},
        {"module": "", "module_class": "Net"},
        {},
    ]


def test_arrows_go_from_the_innermost_forward_operator_to_its_node(tmp_path: Path) -> None:
    capture = training(tmp_path / "c", Plan(steps=2, layers=3))
    result = export_perfetto(capture, tmp_path / "t")
    slices = Reader.read(tmp_path / "t").slices
    out = {flow: s for s in slices for flow in s.flows}
    into = {flow: s for s in slices for flow in s.ended_flows}
    assert len(out) == len(into) == result.flows == 6
    assert out.keys() == into.keys()
    assert {s.name for s in out.values()} == {"aten::addmm"}
    assert {s.name for s in into.values()} == {"AddmmBackward0"}
    first_forward, *_, last_forward = sorted(out, key=lambda f: out[f].start)[:3]
    assert into[first_forward].start > into[last_forward].start  # backward goes the other way


def test_overlapping_collectives_go_on_lanes(tmp_path: Path) -> None:
    flags = EventFlag.ASYNC_END
    rows = [event(START_NS, 1000, "aten::mm")]
    for i in range(3):
        row = event(START_NS + 100 * i, 2000, "work", "collective")
        rows.append(row | {"flags": int(flags)})
    rows.append(event(START_NS + 900, 200, "aten::odd"))
    result = export_perfetto(write_events(tmp_path / "c", rows), tmp_path / "t")
    slices = Reader.read(tmp_path / "t").slices
    assert result.lanes == 4
    assert Counter(s.track for s in slices) == Counter(
        {
            "main": 1,
            **{f"main 10000 (overlap {n})": 1 for n in (1, 2, 3, 4)},
        }
    )
    assert all(s.depth == 0 for s in slices)


def test_equal_times_and_empty_slices_keep_their_order(tmp_path: Path) -> None:
    rows = [
        event(START_NS, 100, "outer"),
        event(START_NS, 100, "inner", depth=1),
        event(START_NS + 50, 0, "instant", depth=2),
        event(START_NS + 100, 0, "at the end"),
        event(START_NS + 100, 50, "next"),
    ]
    slices = exported(write_events(tmp_path / "c", rows), tmp_path / "t").slices
    assert {s.name: s.depth for s in slices} == {
        "outer": 0,
        "inner": 1,
        "instant": 2,
        "at the end": 1,  # inside `next`, which begins at the same time
        "next": 0,
    }


def test_ranks_with_the_same_pid_stay_apart(tmp_path: Path) -> None:
    plan = Plan(ranks=2, steps=1)
    capture = training(tmp_path / "c", plan)
    for manifest in capture.manifest.ranks:
        object.__setattr__(manifest, "pid", 1)
    reader = exported(capture, tmp_path / "t")
    pids = [t.process.pid for t in reader.tracks.values() if t.HasField("process")]
    assert len(set(pids)) == 2
    assert max(pids) > 1 << 22


def test_one_rank_alone(tmp_path: Path) -> None:
    capture = training(tmp_path / "c", Plan(ranks=3))
    reader = exported(capture, tmp_path / "t", rank=1)
    names = [t.name for t in reader.tracks.values() if t.HasField("process")]
    assert names == ["rank 1 host0 10100"]
    with pytest.raises(ExportError, match="no rank 9"):
        export_perfetto(capture, tmp_path / "t", rank=9)


def test_gz_holds_the_same(tmp_path: Path) -> None:
    capture = training(tmp_path / "c")
    export_perfetto(capture, tmp_path / "t.pftrace")
    export_perfetto(capture, tmp_path / "t.pftrace.gz")
    assert (
        gzip.decompress((tmp_path / "t.pftrace.gz").read_bytes())
        == (tmp_path / "t.pftrace").read_bytes()
    )


def test_the_clock_is_unix_time(tmp_path: Path) -> None:
    export_perfetto(training(tmp_path / "c"), tmp_path / "t")
    first = Trace.FromString((tmp_path / "t").read_bytes()).packet[0]
    assert {c.clock_id: c.timestamp for c in first.clock_snapshot.clocks} == {
        1: START_NS,
        6: START_NS,
    }


def test_a_path_that_cannot_be_written_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    capture = training(tmp_path / "c")
    with pytest.raises(ExportError, match="cannot be written"):
        export_perfetto(capture, tmp_path / "missing" / "t.pftrace")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ExportError, match="cannot be written"):
        export_perfetto(capture, tmp_path / "folder")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c", "folder"]


def test_a_capture_without_events_makes_a_valid_file(tmp_path: Path) -> None:
    reader = exported(write_events(tmp_path / "c", []), tmp_path / "t")
    assert reader.slices == []


def test_of_a_long_capture_the_newest_events_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = synthetic.capture(tmp_path / "c", steps=40, part_steps=10)
    sizes = [file.rows for file in taken.files if file.table == "events"]
    monkeypatch.setattr(source, "MOST_EVENTS", sizes[-1] + sizes[-2])
    result = export_perfetto(taken, tmp_path / "trace")
    assert result.events == sizes[-1] + sizes[-2]
    written = Reader.read(tmp_path / "trace").slices
    steps = [s for s in written if s.category == "step"]
    assert len(steps) == 40


def test_gpu_streams_have_tracks_and_arrows_from_the_calls(tmp_path: Path) -> None:
    call = {"start_ns": START_NS + 100, "duration_ns": 50, "tid": 10_000, "correlation_id": 7}
    work = {"correlation_id": 7, "device_id": 1, "category": "gemm", "flags": 0}
    rows = [
        {"start_ns": START_NS + 400, "stream_id": 7, "kind": "kernel", "bytes": None},
        {"start_ns": START_NS + 300, "stream_id": 7, "kind": "kernel", "bytes": None},
        {"start_ns": START_NS + 350, "stream_id": 9, "kind": "memcpy", "bytes": 64},
        {"start_ns": START_NS + 360, "stream_id": 9, "kind": "sync", "bytes": None},
    ]
    named = [{"duration_ns": 60, "short_name": f"k{i}", "name": f"kernel {i}"} for i in range(4)]
    capture = write_events(
        tmp_path / "capture",
        [event(START_NS, 1000, "aten::mm"), event(START_NS + 50, 1, "tiny")],
        cuda_api=[{**call, "name": "cudaLaunchKernel", "group": "launch"}],
        device=[work | row | name for row, name in zip(rows, named, strict=True)],
    )
    export_perfetto(capture, tmp_path / "trace")
    reader = Reader.read(tmp_path / "trace")
    found = {s.name: s for s in reader.slices}
    assert found["cudaLaunchKernel"].depth == 1
    assert found["cudaLaunchKernel"].category == "cuda_api"
    assert found["cudaLaunchKernel"].flows == found["k1"].ended_flows != []
    assert found["k0"].ended_flows == []
    assert (found["k0"].track, found["k2"].track) == ("stream 7", "stream 9")
    assert found["k2"].arguments["bytes"] == 64
    assert found["k1"].arguments["name"] == "kernel 1"
    assert (found["k1"].start, found["k1"].end) == (START_NS + 300, START_NS + 360)
    assert "k3" not in found
    assert {"GPU 1"} < {track.name for track in reader.tracks.values()}
