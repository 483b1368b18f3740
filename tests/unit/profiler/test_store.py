from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from gputap.profiler import columns, schema
from gputap.profiler.errors import CaptureNotWritable
from gputap.profiler.manifest import MANIFEST_NAME
from gputap.profiler.store import Capture, CaptureWriter, RankManifest, check_writable
from tests import synthetic

RANK = RankManifest(rank=0, host="h")


def rows(count: int, seed: int = 0) -> pa.Table:
    """Events that do not compress: 16 bytes each."""
    random = np.random.default_rng(seed)
    start, duration = random.integers(0, 1 << 62, (2, count))
    table = pa.table({"start_ns": columns.numbers(start), "duration_ns": columns.numbers(duration)})
    return table


def open_writer(path: Path, **options: object) -> CaptureWriter:
    writer = CaptureWriter(path, job="j", **options)  # type: ignore[arg-type]
    writer.set_rank(RANK)
    return writer


def test_the_manifest_is_there_before_the_first_part(tmp_path: Path) -> None:
    with open_writer(tmp_path / "c"):
        capture = Capture.open(tmp_path / "c")
        assert capture.manifest.state == "open"
        assert capture.ranks == (RANK,)
        assert "not closed" in capture.notes[0]


def test_a_part_is_readable_at_once(tmp_path: Path) -> None:
    with open_writer(tmp_path / "c") as writer:
        part = writer.write("events", rows(10), rank=0)
        assert part is not None
        assert part.path == "events/job=j/host=h/rank=0/part-00000.parquet"
        assert Capture.open(tmp_path / "c").rows("events") == 10
        assert writer.bytes_written == (tmp_path / "c" / part.path).stat().st_size


def test_closing_lists_every_part_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "c"
    with open_writer(path) as writer:
        for seed in range(3):
            writer.write("events", rows(5, seed), rank=0)
        assert writer.write("events", rows(0), rank=0) is None
        writer.write("threads", columns.table(schema.THREADS, {"tid": [1]}), rank=0)
    manifest = Capture.open(path).manifest
    assert manifest.state == "closed"
    assert (manifest.files("events"), manifest.rows("events")) == (3, 15)
    found = {str(p.relative_to(path)) for p in path.rglob("*") if p.is_file()}
    assert found == {MANIFEST_NAME} | {part.path for part in manifest.parts}


def test_everything_is_the_owners_only(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "c"
    before = os.umask(0)
    try:
        with open_writer(path) as writer:
            writer.write("events", rows(5), rank=0)
    finally:
        os.umask(before)
    for found in [path, *path.rglob("*")]:
        mode = stat.S_IMODE(found.stat().st_mode)
        assert mode == (0o700 if found.is_dir() else 0o600), found


@pytest.mark.parametrize("table", schema.TABLES, ids=lambda table: table.name)
def test_every_table_keeps_its_types(tmp_path: Path, table: schema.Table) -> None:
    first = table.columns[0].name
    with open_writer(tmp_path / "c") as writer:
        writer.write(table.name, columns.table(table, {first: [1]}), rank=0)
    names = [column.name for column in table.columns]
    read = Capture.open(tmp_path / "c").table(table.name, names)
    assert read.schema.equals(schema.arrow_schema(table))
    assert read.column(first).to_pylist() == [1]


def test_a_column_that_the_schema_lacks_is_a_defect(tmp_path: Path) -> None:
    with open_writer(tmp_path / "c") as writer, pytest.raises(ValueError, match="no column x"):
        writer.write("events", pa.table({"x": [1]}), rank=0)


def test_a_rank_can_be_updated(tmp_path: Path) -> None:
    with open_writer(tmp_path / "c") as writer:
        writer.set_rank(RankManifest(rank=1, host="h"))
        writer.set_rank(RankManifest(rank=0, host="h", events=7))
    assert [r.events for r in Capture.open(tmp_path / "c").ranks] == [7, 0]


# -------------------------------------------------------------------------- where not to write


def test_an_empty_directory_is_used(tmp_path: Path) -> None:
    with open_writer(tmp_path):
        pass
    assert Capture.open(tmp_path).manifest.state == "closed"


def test_a_capture_is_replaced_only_when_asked(tmp_path: Path) -> None:
    synthetic.build(tmp_path / "c", ranks=2)
    (tmp_path / "c" / "report.html").write_text("old")
    with pytest.raises(CaptureNotWritable, match="already holds a capture"):
        CaptureWriter(tmp_path / "c", job="j")
    with open_writer(tmp_path / "c", overwrite=True) as writer:
        writer.write("events", rows(3), rank=0)
    capture = Capture.open(tmp_path / "c")
    assert (capture.rows("events"), capture.rows("stacks")) == (3, 0)
    assert not (tmp_path / "c" / "report.html").exists()


def test_files_that_are_not_ours_are_never_touched(tmp_path: Path) -> None:
    precious = tmp_path / "events" / "thesis.txt"
    precious.parent.mkdir()
    precious.write_text("precious")
    with pytest.raises(CaptureNotWritable, match="is not a capture"):
        CaptureWriter(tmp_path, job="j", overwrite=True)
    assert precious.read_text() == "precious"


def test_a_file_or_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CaptureNotWritable, match="is a file"):
        CaptureWriter(tmp_path / "file", job="j")
    with pytest.raises(CaptureNotWritable, match="a part of the path is a file"):
        CaptureWriter(tmp_path / "file" / "c", job="j")
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(CaptureNotWritable, match="symbolic link"):
        CaptureWriter(tmp_path / "link", job="j")
    with pytest.raises(CaptureNotWritable, match="name is too long"):
        CaptureWriter(tmp_path / ("x" * 300), job="j")


@pytest.mark.root
def test_somebody_elses_directory_is_refused(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    os.chown(tmp_path, 65534, 65534)
    with pytest.raises(CaptureNotWritable, match="belongs to uid 65534"):
        CaptureWriter(tmp_path, job="j")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_permission_denied(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(CaptureNotWritable, match="permission denied"):
        CaptureWriter(tmp_path / "c", job="j")


def test_asking_beforehand_writes_nothing(tmp_path: Path) -> None:
    check_writable(tmp_path / "a" / "b")
    check_writable(tmp_path)
    assert list(tmp_path.iterdir()) == []
    synthetic.build(tmp_path / "c")
    before = sorted(tmp_path.rglob("*"))
    check_writable(tmp_path / "c", overwrite=True)
    for path, says in (("c", "already holds"), ("c/events", "is not a capture")):
        with pytest.raises(CaptureNotWritable, match=says):
            check_writable(tmp_path / path)
    assert sorted(tmp_path.rglob("*")) == before
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(CaptureNotWritable, match="symbolic link"):
        check_writable(tmp_path / "link")
    with pytest.raises(CaptureNotWritable, match="is a file"):
        check_writable(tmp_path / "c" / "manifest.json" / "x")


# ----------------------------------------------------------------------------- trouble later on


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "quota"),
        (errno.EIO, "Input/output error"),
        (errno.EACCES, "permission denied"),
    ],
)
def test_what_was_written_before_trouble_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, says: str
) -> None:
    writer = open_writer(tmp_path / "c")
    writer.write("events", rows(4), rank=0)

    def failing(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", failing)
        with pytest.raises(CaptureNotWritable, match=says):
            writer.write("events", rows(4), rank=0)
    assert says in writer.failure
    with pytest.raises(CaptureNotWritable, match="given up"):
        writer.write("events", rows(4), rank=0)
    manifest = writer.close()
    assert (manifest.state, manifest.rows("events")) == ("truncated", 4)
    assert writer.close() == manifest
    capture = Capture.open(tmp_path / "c")
    assert capture.rows("events") == 4
    assert "cut short" in capture.notes[0]
    assert says in capture.notes[0]
    assert not list((tmp_path / "c").rglob("*.tmp"))


def test_a_directory_that_goes_away_is_an_error_of_ours(tmp_path: Path) -> None:
    writer = open_writer(tmp_path / "c")
    (tmp_path / "c").rename(tmp_path / "elsewhere")
    with pytest.raises(CaptureNotWritable, match="directory has gone"):
        writer.write("events", rows(4), rank=0)
    with pytest.raises(CaptureNotWritable, match="directory has gone"):
        writer.close()


def test_a_block_that_fails_leaves_a_truncated_capture(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="boom"), open_writer(tmp_path / "c") as writer:
        writer.write("events", rows(4), rank=0)
        raise RuntimeError("boom")
    capture = Capture.open(tmp_path / "c")
    assert (capture.manifest.state, capture.manifest.reason) == ("truncated", "boom")
    assert capture.rows("events") == 4


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a file system")
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not permitted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.root
def test_a_full_disk_keeps_the_parts_and_says_so(small_disk: Path) -> None:
    writer = open_writer(small_disk / "c")
    with pytest.raises(CaptureNotWritable, match="the disk is full") as caught:
        for seed in range(100):
            writer.write("events", rows(10_000, seed), rank=0)
    assert "Free some space" in caught.value.hint
    (small_disk / "c" / "filler").write_bytes(b"")
    _fill(small_disk / "c" / "filler")
    manifest = writer.close()
    assert manifest.state == "truncated"
    (small_disk / "c" / "filler").unlink()
    capture = Capture.open(small_disk / "c")
    assert capture.rows("events") == manifest.rows("events") > 0
    assert capture.damaged == ()


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        while True:
            try:
                file.write(b"\0" * 4096)
            except OSError:
                return


@pytest.mark.root
def test_a_disk_too_small_for_anything_is_refused(small_disk: Path) -> None:
    _fill(small_disk / "filler")
    with pytest.raises(CaptureNotWritable, match="the disk is full"):
        CaptureWriter(small_disk / "c", job="j")


@pytest.mark.root
def test_a_read_only_file_system_is_refused(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for attempt in (check_writable, open_writer):
        with pytest.raises(CaptureNotWritable, match="read-only"):
            attempt(small_disk / "c")


def run_python(code: str, *arguments: str) -> subprocess.Popen[str]:
    head = "import sys; from tests.unit.profiler.test_store import *; "
    return subprocess.Popen(
        [sys.executable, "-c", head + code, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).resolve().parents[3],
    )


def test_a_file_size_limit_is_an_error_of_ours(tmp_path: Path) -> None:
    code = """
import resource
writer = open_writer(Path(sys.argv[1]))
writer.write("events", rows(1000), rank=0)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
try:
    writer.write("events", rows(100_000), rank=0)
except CaptureNotWritable as error:
    print(error.message)
writer.close()
"""
    with run_python(code, str(tmp_path / "c")) as process:
        out, _ = process.communicate(timeout=60)
    assert "file size limit" in out
    assert Capture.open(tmp_path / "c").rows("events") == 1000


def test_a_killed_writer_leaves_every_closed_part_readable(tmp_path: Path) -> None:
    code = """
writer = open_writer(Path(sys.argv[1]))
for seed in range(10_000):
    writer.write("events", rows(2_000, seed), rank=0)
    print(seed, flush=True)
"""
    with run_python(code, str(tmp_path / "c")) as process:
        assert process.stdout is not None
        closed = 0
        while closed < 5:
            closed = int(process.stdout.readline()) + 1
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    capture = Capture.open(tmp_path / "c")
    assert capture.damaged == ()
    assert len(capture.files) >= closed
    assert capture.notes == (
        "the capture was not closed: gputap was killed or is still writing;"
        f" {len(capture.files)} parts readable",
    )
    first = capture.table("events", ["start_ns"]).column("start_ns")[:2000].to_pylist()
    assert first == rows(2000, 0).column("start_ns").to_pylist()
    count = capture.query("SELECT count(*) AS n FROM events").to_pylist()
    assert count == [{"n": 2000 * len(capture.files)}]
