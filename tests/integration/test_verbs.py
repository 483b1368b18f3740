"""The verbs besides attach, on a real process and a real capture."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.tapped import capture, gputap, run_all
from tests.workload import Workload


@pytest.fixture(scope="module")
def taken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A capture of twenty whole steps."""
    path = tmp_path_factory.mktemp("verbs") / "capture"
    with Workload("transformer", "--steps", "20", "--hold", "--linger") as workload:
        capture([workload.pid], path, lambda: run_all(workload))
        workload.stop()
    return path


def test_ps_and_doctor_know_the_process() -> None:
    with Workload("sleeper") as workload:
        listed = json.loads(gputap("ps", "--json").stdout)
        mine = next(row for row in listed if row["pid"] == workload.pid)
        plain = gputap("ps").stdout
        diagnosis = gputap("doctor", workload.pid)
        data = json.loads(gputap("doctor", workload.pid, "--json").stdout)
        workload.stop()
    assert mine["level"] == "framework"
    assert mine["torch"].startswith("2.")
    assert any(line.split()[:1] == [str(workload.pid)] for line in plain.splitlines())
    assert diagnosis.returncode == 0
    assert "framework  possible" in diagnosis.stdout
    assert data["level_obtainable"] == "framework"


def test_report_again_gives_the_same_json(taken: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    first = gputap("report", taken, "--json", "-o", page)
    second = gputap("report", taken, "--json", "-o", page)
    assert first.returncode == 0, first.stderr
    assert first.stdout == second.stdout
    report = json.loads(first.stdout)
    keys = {"schema", "level", "ranks", "kernels", "operators", "modules", "collectives"}
    assert keys | {"findings", "abstained"} <= set(report)
    assert report["ranks"][0]["steps_found"] == 20
    for step in report["ranks"][0]["steps"]:
        assert sum(step["phases"].values()) == step["dur_ns"]
    assert page.exists()


def test_query_prints_rows_and_refuses_to_write(taken: Path) -> None:
    sql = "SELECT kind, count(*) AS n FROM events GROUP BY 1 ORDER BY 1"
    rows = json.loads(gputap("query", taken, sql, "--json").stdout)
    assert {"autograd", "operator", "user_scope"} <= {row["kind"] for row in rows}
    assert "operator" in gputap("query", taken, sql).stdout
    for bad in (
        "SELEC",
        "DROP TABLE events",
        "COPY events TO '/tmp/x.csv'",
        "SELECT * FROM nothing",
    ):
        refused = gputap("query", taken, bad)
        assert refused.returncode == 2, bad
        assert "Traceback" not in refused.stderr


def test_export_writes_a_trace_that_perfetto_s_protos_read(taken: Path, tmp_path: Path) -> None:
    from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace

    path = tmp_path / "trace.perfetto-trace"
    done = gputap("export", taken, "--to", "perfetto", "-o", path)
    assert done.returncode == 0, done.stderr
    trace = Trace.FromString(path.read_bytes())
    begins = sum(p.track_event.type == 1 for p in trace.packet if p.HasField("track_event"))
    ends = sum(p.track_event.type == 2 for p in trace.packet if p.HasField("track_event"))
    assert begins == ends > 1000
    assert gputap("export", taken, "--to", "papyrus").returncode == 2


def test_detach_from_an_untapped_process_is_fine() -> None:
    with Workload("sleeper") as workload:
        done = gputap("detach", workload.pid)
        workload.stop()
    assert done.returncode == 0
    assert "nothing to let go of" in done.stderr


def test_demo_names_its_planted_fault(tmp_path: Path) -> None:
    done = gputap("demo", "-o", tmp_path / "demo", "-d", "4s", "--json", timeout_s=150)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["findings"][0]["rule"] == "input_bound"
    assert (tmp_path / "demo" / "report.html").exists()
