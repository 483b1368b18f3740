from __future__ import annotations

import shutil
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gputap.profiler import schema
from gputap.profiler.errors import CaptureUnreadable, ProfilerError, UsageError
from gputap.profiler.parts import MAX_NAME, parse_partition, partition
from gputap.profiler.store import Capture, CaptureWriter, RankManifest
from tests import synthetic
from tests.synthetic import START_NS

NAMES = [column.name for column in schema.EVENTS.columns]


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> synthetic.Truth:
    path = tmp_path_factory.mktemp("captures") / "two"
    return synthetic.build(path, ranks=2, steps=4, part_steps=1)


def one_event(path: Path, job: str = "job", host: str = "host") -> Capture:
    with CaptureWriter(path, job=job) as writer:
        writer.set_rank(RankManifest(rank=0, host=host))
        writer.write("events", synthetic.events_table([synthetic.event(1, 2, "a")]), rank=0)
    return Capture.open(path)


# ----------------------------------------------------------------------------------- reading


def test_tables_of_all_ranks_and_of_one(two_ranks: synthetic.Truth) -> None:
    capture = Capture.open(two_ranks.path)
    assert [rank.rank for rank in capture.ranks] == [0, 1]
    assert capture.notes == ()
    everything = capture.table("events")
    assert everything.schema.names == [*NAMES, "job", "host", "rank"]
    assert everything.num_rows == sum(two_ranks.rows.values()) == capture.rows("events")
    second = capture.table("events", ["rank", "tid"], rank=1)
    assert second.num_rows == two_ranks.rows[1] == capture.rows("events", rank=1)
    assert set(second.column("rank").to_pylist()) == {1}
    assert capture.table("events", rank=7).num_rows == 0


def test_dictionaries_mean_the_same_in_every_part(two_ranks: synthetic.Truth) -> None:
    names = Capture.open(two_ranks.path).table("events", ["name"]).column("name")
    assert names.num_chunks == 8
    dictionaries = [chunk.dictionary.to_pylist() for chunk in names.chunks]
    assert all(dictionary == dictionaries[0] for dictionary in dictionaries)


def test_rows_are_in_order_of_thread_and_time(two_ranks: synthetic.Truth) -> None:
    capture = Capture.open(two_ranks.path)
    for file in capture.files:
        if file.table == "events":
            rows = pa.parquet.ParquetFile(file.path).read(["tid", "start_ns"]).to_pylist()
            keys = [(row["tid"], row["start_ns"]) for row in rows]
            assert keys == sorted(keys)


def test_a_table_that_was_not_written_is_empty_with_its_columns(two_ranks: synthetic.Truth) -> None:
    capture = Capture.open(two_ranks.path)
    table = capture.table("samples")
    assert table.num_rows == 0
    assert table.schema.field("value").type == pa.float64()
    assert table.schema.field("rank").type == pa.int32()
    assert capture.query("SELECT * FROM samples").schema.names == table.schema.names


def test_partition_columns_alone(two_ranks: synthetic.Truth) -> None:
    table = Capture.open(two_ranks.path).table("threads", ["host", "rank"], rank=0)
    assert table.to_pylist() == [{"host": "host0", "rank": 0}] * 2


def test_unknown_tables_and_columns_are_usage_errors(two_ranks: synthetic.Truth) -> None:
    capture = Capture.open(two_ranks.path)
    with pytest.raises(UsageError, match="no table 'kernels'") as caught:
        capture.table("kernels")
    assert "events" in caught.value.hint
    with pytest.raises(UsageError, match="no column 'speed'") as caught:
        capture.table("events", ["speed"])
    assert "duration_ns" in caught.value.hint


def test_the_manifest_file_is_as_good_as_its_directory(two_ranks: synthetic.Truth) -> None:
    assert Capture.open(f"{two_ranks.path}/manifest.json").rows("events") > 0


def test_what_is_no_capture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CaptureUnreadable, match="does not exist"):
        Capture.open(tmp_path / "nothing")
    with pytest.raises(CaptureUnreadable, match=r"has no manifest\.json"):
        Capture.open(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(CaptureUnreadable, match="is not a directory"):
        Capture.open(tmp_path / "file")
    (tmp_path / "manifest.json").mkdir()
    with pytest.raises(CaptureUnreadable, match="cannot be read"):
        Capture.open(tmp_path)


def test_a_rank_without_a_manifest_entry_is_still_there(tmp_path: Path) -> None:
    capture = one_event(tmp_path / "c")
    old = "events/job=job/host=host/rank=0"
    shutil.copytree(tmp_path / "c" / old, tmp_path / "c" / old.replace("rank=0", "rank=5"))
    capture = Capture.open(tmp_path / "c")
    assert [(r.rank, r.host, r.pid) for r in capture.ranks] == [(0, "host", 0), (5, "host", 0)]
    assert capture.rows("events") == 2


def test_columns_of_a_later_schema_read_as_null(tmp_path: Path) -> None:
    capture = one_event(tmp_path / "c")
    path = capture.files[0].path
    old = pa.parquet.ParquetFile(path).read(["start_ns", "name"])
    path.unlink()
    path = path.with_name("part-00001.parquet")
    pa.parquet.write_table(old, path)
    manifest = tmp_path / "c" / "manifest.json"
    manifest.write_text(manifest.read_text().replace("part-00000", "part-00009"))
    capture = Capture.open(tmp_path / "c")
    assert capture.table("events", ["start_ns", "seq", "kind"]).to_pylist() == [
        {"start_ns": 1, "seq": None, "kind": None}
    ]
    assert capture.query("SELECT start_ns, seq, kind, rank FROM events").to_pylist() == [
        {"start_ns": 1, "seq": None, "kind": None, "rank": 0}
    ]
    assert [d.reason for d in capture.damaged] == ["it is missing"]


# --------------------------------------------------------------------------------------- SQL


def test_sql_over_ranks(two_ranks: synthetic.Truth) -> None:
    result = Capture.open(two_ranks.path).query(
        "SELECT rank, count(*) AS n, min(start_ns) AS first FROM events GROUP BY rank ORDER BY rank"
    )
    assert result.to_pylist() == [
        {"rank": 0, "n": two_ranks.rows[0], "first": START_NS},
        {"rank": 1, "n": two_ranks.rows[1], "first": START_NS},
    ]


def test_views_have_the_columns_and_types_of_the_schema(two_ranks: synthetic.Truth) -> None:
    with Capture.open(two_ranks.path).duckdb() as connection:
        for table in schema.TABLES:
            described = connection.execute(f"DESCRIBE {table.name}").fetchall()
            names = [row[0] for row in described]
            assert names == [*(column.name for column in table.columns), "job", "host", "rank"]
            assert described[-1][1] == "INTEGER"


def test_nulls_stay_nulls(two_ranks: synthetic.Truth) -> None:
    capture = Capture.open(two_ranks.path)
    sql = "SELECT count(*) AS n FROM events WHERE module IS NULL"
    table = capture.table("events", ["module"])
    assert capture.query(sql).to_pylist() == [{"n": table.column("module").null_count}]


@pytest.mark.parametrize(
    "sql",
    [
        "COPY events TO '{root}/x.csv'",
        "COPY events TO '/tmp/x.csv'",
        "EXPLAIN ANALYZE COPY events TO '{root}/x.csv'",
        "CREATE TABLE t AS SELECT 1",
        "DROP VIEW events",
        "ATTACH '{root}/x.db'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET threads = 1",
        "CHECKPOINT",
        "EXPORT DATABASE '{root}/x'",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM glob('/etc/*')",
        "SELECT * FROM read_parquet('https://example.org/x.parquet')",
        "SELECT * FROM secret_table",
        "SELECT 1; SELECT 2",
        "SELECT 1; COPY events TO '{root}/x.csv'",
        "",
        "-- nothing",
        "SELEC name FROM events",
        "SELECT nope FROM events",
        "SELECT name::INTEGER FROM events",
    ],
)
def test_queries_only_read_the_capture(two_ranks: synthetic.Truth, sql: str) -> None:
    secret_table = pa.table({"x": [1]})
    before = sorted(Path(two_ranks.path).rglob("*"))
    with pytest.raises(UsageError):
        Capture.open(two_ranks.path).query(sql.format(root=two_ranks.path))
    assert sorted(Path(two_ranks.path).rglob("*")) == before
    assert secret_table.num_rows == 1


@pytest.mark.parametrize(
    "sql",
    [
        "DESCRIBE events",
        "SUMMARIZE steps",
        "SHOW TABLES",
        "FROM threads",
        "WITH a AS (SELECT 1) FROM a",
    ],
)
def test_queries_that_look_around(two_ranks: synthetic.Truth, sql: str) -> None:
    assert Capture.open(two_ranks.path).query(sql).num_rows > 0


def test_duckdbs_message_reaches_the_user(two_ranks: synthetic.Truth) -> None:
    with pytest.raises(UsageError, match=r"(?s)nope.*Candidate") as caught:
        Capture.open(two_ranks.path).query("SELECT nope FROM events")
    assert "events" in caught.value.hint


# ------------------------------------------------------------------------- with no help from us


def test_duckdb_reads_it_alone(two_ranks: synthetic.Truth) -> None:
    sql = f"""SELECT job, host, rank, count(*) FROM
        read_parquet('{two_ranks.path}/events/**/*.parquet', hive_partitioning = true)
        GROUP BY ALL ORDER BY rank"""
    expected = [("synthetic", "host0", rank, two_ranks.rows[rank]) for rank in (0, 1)]
    assert duckdb.sql(sql).fetchall() == expected


def test_pandas_reads_it_alone(two_ranks: synthetic.Truth) -> None:
    frame = pd.read_parquet(f"{two_ranks.path}/events")
    assert frame.groupby("rank", observed=True).size().to_dict() == two_ranks.rows
    assert set(frame["job"]) == {"synthetic"}
    assert set(frame.columns) == {*NAMES, "job", "host", "rank"}


def test_pyarrow_reads_it_alone(two_ranks: synthetic.Truth) -> None:
    dataset = ds.dataset(f"{two_ranks.path}/events", partitioning="hive")
    assert dataset.count_rows(filter=ds.field("rank") == 1) == two_ranks.rows[1]


JOBS = ["a/b=c", "../..", "100%", "héllo wörld 🔥", "a+b&c", "it's", "12", "", "x" * 500, "é" * 200]


@pytest.mark.parametrize("job", JOBS)
def test_any_job_name_makes_one_safe_folder(tmp_path: Path, job: str) -> None:
    capture = one_event(tmp_path / "c", job=job, host=job)
    assert capture.manifest.job == job
    (folder,) = (tmp_path / "c" / "events").iterdir()
    assert len(folder.name.encode()) <= 255
    assert len(list((tmp_path / "c").iterdir())) == 2
    (row,) = capture.table("events", ["job", "host", "rank"]).to_pylist()
    (same,) = capture.query("SELECT job, host, rank FROM events").to_pylist()
    assert row == same
    if 0 < len(job) < 100:
        assert row == {"job": job, "host": job, "rank": 0}
        read = duckdb.sql(
            f"FROM read_parquet('{tmp_path}/c/events/*/*/*/*.parquet', hive_partitioning = true,"
            " hive_types_autocast = false) SELECT job"
        )
        assert read.fetchall() == [(job,)]


@settings(deadline=None)
@given(st.text(), st.text(), st.integers(0, 1 << 31))
def test_partitions_survive_a_round_trip(job: str, host: str, rank: int) -> None:
    folder = partition(job, host, rank)
    assert folder.count("/") == 2
    assert all(len(piece) <= MAX_NAME + 40 for piece in folder.split("/"))
    parsed = parse_partition(folder)
    assert parsed is not None
    assert parsed[2] == rank
    if 0 < len(job) < 16 and job.isprintable():
        assert parsed[0] == job


def test_long_names_that_differ_late_stay_apart() -> None:
    assert partition("x" * 500 + "a", "h", 0) != partition("x" * 500 + "b", "h", 0)


@pytest.mark.parametrize(
    "folder", ["", "a", "job=a/host=b", "job=a/host=b/rank=x", "a/b/c", "x=1/host=b/rank=0"]
)
def test_other_folders_are_no_partitions(folder: str) -> None:
    assert parse_partition(folder) is None


# ------------------------------------------------------------------------------------- damage


def parts(path: Path) -> list[Path]:
    return sorted(path.rglob("*.parquet"))


@pytest.fixture
def victim(two_ranks: synthetic.Truth, tmp_path: Path) -> Path:
    shutil.copytree(two_ranks.path, tmp_path / "c")
    return tmp_path / "c"


@pytest.mark.parametrize("keep", [0, 3, 8, 500, -1])
def test_a_cut_part_is_left_out_and_said(victim: Path, keep: int) -> None:
    total = Capture.open(victim).rows("events")
    part = parts(victim)[1]
    part.write_bytes(part.read_bytes()[:keep])
    capture = Capture.open(victim)
    (damaged,) = capture.damaged
    assert damaged.path == str(part.relative_to(victim))
    assert "were written" in damaged.reason
    assert capture.notes == (f"1 damaged parts left out: {damaged.path}",)
    assert capture.rows("events") < total
    assert capture.table("events").num_rows == capture.rows("events")
    assert capture.query("SELECT count(*) AS n FROM events").to_pylist() == [
        {"n": capture.rows("events")}
    ]


def test_a_missing_part_is_said(victim: Path) -> None:
    parts(victim)[2].unlink()
    assert [d.reason for d in Capture.open(victim).damaged] == ["it is missing"]


def test_all_parts_damaged_is_unreadable(victim: Path) -> None:
    for part in parts(victim):
        part.write_bytes(b"PAR1")
    with pytest.raises(CaptureUnreadable, match=r"Every part .* is damaged"):
        Capture.open(victim)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_flipped_bit_in_a_closed_capture_is_always_found(
    victim: Path, data: st.DataObject
) -> None:
    part = data.draw(st.sampled_from(parts(victim)))
    whole = part.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    part.write_bytes(
        whole[:at] + bytes([whole[at] ^ 1 << data.draw(st.integers(0, 7))]) + whole[at + 1 :]
    )
    try:
        assert [d.reason for d in Capture.open(victim).damaged] == ["its checksum is wrong"]
    finally:
        part.write_bytes(whole)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_damage_in_a_killed_capture_never_leaves_the_error_tree(
    victim: Path, data: st.DataObject
) -> None:
    """No checksum of ours there: a footer may lie, but reading ends in rows or in our errors."""
    manifest = (victim / "manifest.json").read_text()
    head, _, _ = manifest.partition(' "parts"')
    (victim / "manifest.json").write_text(head + ' "state": "open", "version": 1}')
    part = data.draw(st.sampled_from(parts(victim)))
    whole = part.read_bytes()
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    part.write_bytes(damaged[: data.draw(st.integers(len(whole) // 2, len(whole)))])
    try:
        capture = Capture.open(victim)
        for table in schema.TABLES:
            capture.table(table.name)
        capture.query("SELECT name, module, sum(duration_ns), max(seq) FROM events GROUP BY ALL")
    except ProfilerError:
        pass
    finally:
        part.write_bytes(whole)
        (victim / "manifest.json").write_text(manifest)


@pytest.mark.parametrize("query_first", [True, False])
def test_a_damaged_page_of_a_killed_capture_is_found(victim: Path, query_first: bool) -> None:
    manifest = victim / "manifest.json"
    manifest.write_text(manifest.read_text().partition(' "parts"')[0] + ' "version": 1}')
    part = parts(victim)[0]
    column = pa.parquet.read_metadata(part).row_group(0).column(0)
    whole = bytearray(part.read_bytes())
    whole[column.data_page_offset + column.total_compressed_size - 3] ^= 1
    part.write_bytes(whole)
    capture = Capture.open(victim)
    total = capture.rows("events")
    assert capture.damaged == ()
    if not query_first:
        capture.table("events")
    (count,) = capture.query("SELECT count(*) AS n FROM events").to_pylist()
    assert count["n"] == capture.table("events").num_rows == capture.rows("events") < total
    assert [d.path for d in capture.damaged] == [str(part.relative_to(victim))]
