"""What torch's allocator held, step by step, of jobs on the simulated GPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from perfetto.protos.perfetto.trace import perfetto_trace_pb2

from gputap.dashboards.html_device import gpus
from gputap.dashboards.view import memory_sentences
from gputap.exporters.perfetto import export_perfetto
from gputap.injectors.library import ask
from gputap.injectors.library.client import AgentClient
from gputap.injectors.library.snippets import source
from gputap.profiler.analysis.report import analyse
from gputap.profiler.errors import AttachFailed
from gputap.profiler.store import Capture
from tests import tapped
from tests.agent_driver import Target
from tests.simulated import SimWorkload, capture, simcuda, until

MIB = 1 << 20
SMALL = {"SIMGPU_MEMORY": str(96 * MIB)}


def until_read(pid: int, count: int) -> None:
    """Wait until the agent has looked at the allocator so often."""
    with tapped.agent_memory(pid) as memory:
        until(lambda: memory.get("samples_count") >= count)


def taken(job: SimWorkload, path: Path, readings: int) -> Capture:
    return capture([job.pid], path, lambda: until_read(job.pid, readings))


def test_what_each_step_keeps_is_seen_to_the_byte(tmp_path: Path) -> None:
    with SimWorkload("creep", "--keep", "3", "--pause", "0.1", log=tmp_path / "truth") as job:
        got = taken(job, tmp_path / "capture", 14)
    rows = got.query(
        "SELECT step, memory_allocated AS allocated, memory_reserved AS reserved,"
        " memory_peak AS peak FROM steps WHERE memory_allocated IS NOT NULL ORDER BY step"
    ).to_pylist()
    assert len(rows) >= 3
    first = rows[0]
    for row in rows:
        assert row["allocated"] - first["allocated"] == 3 * MIB * (row["step"] - first["step"])
        assert row["allocated"] <= row["peak"] <= row["reserved"]
    (memory,) = analyse(got).ranks[0].memory
    assert memory.device == "simcuda:0"
    assert memory.step_ends == len(rows)
    assert [memory.allocated_least, memory.allocated_most, memory.allocated] == [
        first["allocated"], rows[-1]["allocated"], rows[-1]["allocated"],
    ]  # fmt: skip
    # A block of the driver's (2 MiB each) holds what a step keeps: two of them, four MiB.
    assert memory.segments >= len(rows) - 1
    assert memory.retries == memory.ooms == 0
    (creep,) = [f for f in analyse(got).findings if f.rule == "memory_creep"]
    assert "grows by 3 MiB a step" in creep.claim


def test_a_cache_that_is_given_back_is_counted(tmp_path: Path) -> None:
    options = ("--keep", "0", "--vary", "8", "--pause", "0.01")
    with SimWorkload("creep", *options, log=tmp_path / "truth", env=SMALL) as job:
        got = taken(job, tmp_path / "capture", 14)
    report = analyse(got)
    (memory,) = report.ranks[0].memory
    samples = got.query(
        "SELECT value FROM samples WHERE metric = 'gputap.memory.alloc_retries' ORDER BY time_ns"
    ).column(0)
    retries = samples[-1].as_py() - samples[0].as_py()
    assert memory.retries == retries > 0
    assert memory.reserved_peak <= 96 * MIB
    counted = got.query("SELECT sum(alloc_retries), sum(alloc_ooms) FROM steps").to_pylist()[0]
    assert 0 < next(iter(counted.values())) <= retries
    assert [f.rule for f in report.findings if "alloc" in f.rule] == ["alloc_retries"]
    (said,) = memory_sentences(report)
    assert f"{memory.retries} times the whole cache was given back" in said
    assert "simcuda:0" in gpus(report)


def test_the_manifest_says_what_it_cost(tmp_path: Path) -> None:
    with SimWorkload("creep", log=tmp_path / "truth") as job:
        got = taken(job, tmp_path / "capture", 6)
    manifest = json.loads((tmp_path / "capture" / "manifest.json").read_text())
    memory = manifest["ranks"][0]["memory"]
    assert memory["readings"] >= 6
    assert memory["missed"] == memory["nonsense"] == 0
    assert memory["failure"] == ""
    window = got.ranks[0].window_ns
    assert 0 < memory["cost_ns"] < window


def test_counters_are_in_the_perfetto_trace(tmp_path: Path) -> None:
    with SimWorkload("creep", log=tmp_path / "truth") as job:
        got = taken(job, tmp_path / "capture", 6)
    result = export_perfetto(got, tmp_path / "trace")
    trace = perfetto_trace_pb2.Trace.FromString((tmp_path / "trace").read_bytes())
    tracks = {
        packet.track_descriptor.uuid: packet.track_descriptor
        for packet in trace.packet
        if packet.HasField("track_descriptor") and packet.track_descriptor.HasField("counter")
    }
    values: dict[str, list[tuple[int, int]]] = {track.name: [] for track in tracks.values()}
    for packet in trace.packet:
        if packet.track_event.type == perfetto_trace_pb2.TrackEvent.TYPE_COUNTER:
            track = tracks[packet.track_event.track_uuid]
            values[track.name].append((packet.timestamp, packet.track_event.counter_value))
    assert sum(map(len, values.values())) == result.counters > 0
    expected = got.query(
        "SELECT time_ns, value FROM samples WHERE metric = 'gputap.memory.allocated' ORDER BY 1"
    ).to_pylist()
    assert values["memory allocated simcuda:0"] == [
        (row["time_ns"], int(row["value"])) for row in expected
    ]
    units = {track.name: track.counter.unit for track in tracks.values()}
    assert (
        units["memory reserved simcuda:0"] == perfetto_trace_pb2.CounterDescriptor.UNIT_SIZE_BYTES
    )
    assert "memory ooms simcuda:0" not in units  # never above zero


def test_every_figure_is_the_one_that_torch_gives() -> None:
    kept = """
kept = [torch.empty(n << 20, dtype=torch.uint8, device="simcuda") for n in (1, 3, 9)]
del kept[1]
"""
    both = "\nimport torch\nresult = json.dumps([result, torch.accelerator.memory_stats()])"
    with Target(simcuda() + kept) as target:
        client = target.attach().client
        answer, stats = json.loads(client.run_python(source("memory") + both))
    columns = [
        "allocated_bytes.all.current", "allocated_bytes.all.peak",
        "reserved_bytes.all.current", "reserved_bytes.all.peak",
        "inactive_split_bytes.all.current", "allocation.all.allocated", "segment.all.allocated",
        "num_alloc_retries", "num_ooms",
    ]  # fmt: skip
    assert json.loads(answer)["rows"] == [["simcuda:0", *(stats[name] for name in columns)]]
    assert stats["allocated_bytes.all.current"] == 10 * MIB
    assert stats["allocated_bytes.all.peak"] == 13 * MIB


def test_an_agent_that_cannot_ask_is_no_reason_to_go_without_a_capture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(client: AgentClient, **_: object) -> None:
        """As for a process of libtorch without Python."""
        raise AttachFailed(f"pid {client.pid} refused")

    monkeypatch.setattr(ask, "sample_memory", refused)
    with SimWorkload("mlp", log=tmp_path / "truth") as job:
        got = capture([job.pid], tmp_path / "capture", lambda: job.more(100))
    assert got.rows("device") > 0
    assert got.rows("samples") == 0
    assert any("allocator cannot be asked" in why for why in got.ranks[0].level_reasons)


def test_a_process_without_a_device_is_not_asked(tmp_path: Path) -> None:
    with Target("def step(): torch.ones(3).add(1)") as target:
        got = tapped.capture([target.pid], tmp_path / "capture", lambda: target.do("step()"))
    assert got.rows("samples") == 0
    assert got.ranks[0].memory is None
