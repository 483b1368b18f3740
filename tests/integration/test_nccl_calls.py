"""NCCL asked for collectives by a library that is not torch's, in a torch process (simulated)."""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gputap.injectors.library.device import DeviceConfig
from gputap.profiler.analysis.report import analyse
from gputap.profiler.nccl_calls import OPS
from gputap.profiler.store import Capture
from tests import tapped
from tests.agent_driver import Target, wait_until
from tests.simgpu.nccl.wheel import real_nccl
from tests.simulated import SimWorkload, capture, simcuda, stack
from tests.told import TARGETS

# Operation, count, type, bytes of this rank's input, reduction, root or peer.
EVERY_KIND = [
    ("ncclAllReduce", 1000, "float32", 4000, "sum", None),
    ("ncclReduce", 1001, "bfloat16", 2002, "max", 1),
    ("ncclReduceScatter", 1002, "int64", 2 * 8016, "sum", None),
    ("ncclAllGather", 1003, "int8", 1003, None, None),
    ("ncclAlltoAll", 1004, "float32", 2 * 4016, None, None),
    ("ncclGather", 1005, "float32", 4020, None, 0),
    ("ncclScatter", 1006, "float32", 2 * 4024, None, 1),
    ("ncclBroadcast", 1007, "float32", 4028, None, 0),
    ("ncclBcast", 1008, "float32", 4032, None, 1),
]


def built(out: Path, nccl: Path, source: str = "asks_nccl.c", binding: str = "lazy") -> Path:
    libraries, _ = stack()
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    # `lazy`: slots are filled at the first call. `now`: at loading, and read-only from then on.
    link = ["-L", str(nccl), "-l:libnccl.so.2", "-L", str(libraries), "-l:libcudart.so.13"]
    link += [f"-Wl,-z,relro,-z,{binding}", f"-Wl,-rpath,{nccl}:{libraries}"]
    command = ["cc", "-Wall", "-Werror", "-shared", "-fPIC", str(TARGETS / source), "-o"]
    subprocess.run([*command, str(out), *link], check=True)
    return out


@pytest.fixture(scope="module", params=["lazy", "now"])
def binding(request: pytest.FixtureRequest) -> str:
    word: str = request.param
    return word


@pytest.fixture(scope="module")
def library(binding: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("nccl") / "asks_nccl.so"
    return built(out, stack()[0], binding=binding)


@pytest.fixture(scope="module")
def with_the_real_one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    nccl = real_nccl() / "nvidia" / "nccl" / "lib"
    return built(tmp_path_factory.mktemp("real") / "asks_nccl.so", nccl)


def on_two_devices() -> Target:
    used = '(torch.ones(8, device="simcuda") * 2).sum().item()'
    return Target(simcuda(SIMGPU_DEVICES="2") + used)


@pytest.fixture
def target(library: Path) -> Iterator[Target]:
    with on_two_devices() as target:
        opened = target.do(f"lib = ctypes.CDLL({str(library)!r}); value = lib.open_two()")
        assert opened == 0
        yield target
        assert target.end() == 0


def captured(target: Target, path: Path, during: Callable[[], object], **options: Any) -> Capture:
    return tapped.capture([target.pid], path, during, device=DeviceConfig(), **options)


def test_every_kind_of_call_is_there_with_its_arguments(target: Target, tmp_path: Path) -> None:
    def during() -> None:
        assert target.do("value = lib.every_kind()") == 0

    got = captured(target, tmp_path / "capture", during)
    comms = target.do("value = [hex(p) for p in (ctypes.c_size_t * 2).in_dll(lib, 'comms')]")
    streams = target.do("value = [hex(p) for p in (ctypes.c_size_t * 2).in_dll(lib, 'streams')]")
    rows = got.query("SELECT * FROM nccl_calls ORDER BY start_ns").to_pylist()
    calls = [row for row in rows if row["op"]]
    ends = [row for row in rows if not row["op"]]
    assert [row["name"] for row in ends] == ["ncclGroupEnd"] * 10
    expected = [(*kind, rank) for kind in EVERY_KIND for rank in (0, 1)]
    expected += [
        ("ncclSend", 1009, "float32", 4036, None, 1, 0),
        ("ncclRecv", 1009, "float32", 4036, None, 0, 1),
    ]
    columns = ("name", "count", "dtype", "bytes", "reduction", "peer", "comm_rank")
    assert [tuple(row[c] for c in columns) for row in calls] == expected
    for row in calls:
        rank = row["comm_rank"]
        assert (row["communicator"], row["stream"]) == (comms[rank], streams[rank])
        assert (row["comm_size"], row["device_id"], row["return_value"]) == (2, rank, 0)
        assert row["op"] == OPS[row["name"]]
        assert row["tid"] == target.pid


def test_they_are_collectives_timed_by_their_kernels(target: Target, tmp_path: Path) -> None:
    def during() -> None:
        assert target.do("value = [lib.all_reduce(n * 1000) for n in range(1, 9)]") == [0] * 8

    got = captured(target, tmp_path / "capture", during)
    rows = got.query("SELECT * FROM collectives ORDER BY enqueued_ns").to_pylist()
    assert [row["bytes"] for row in rows] == [4000 * n for n in range(1, 9) for _ in (0, 1)]
    assert {(r["op"], r["backend"], r["world_size"]) for r in rows} == {("all_reduce", "nccl", 2)}
    kernels = got.query(
        "SELECT start_ns, duration_ns FROM device WHERE category = 'communication'"
    ).to_pylist()
    timed = Counter((r["start_ns"], r["duration_ns"]) for r in rows)
    assert timed == Counter((k["start_ns"], k["duration_ns"]) for k in kernels)
    assert {row["timing_source"] for row in rows} == {"device"}
    for row in rows:  # two ranks: an all-reduce loads the bus as much as its payload
        assert row["busbw"] == row["algbw"] == row["bytes"] / row["duration_ns"] * 1e9
    assert [row["group_rank"] for row in rows] == [0, 1] * 8
    assert len({row["communicator"] for row in rows}) == 2
    report = analyse(got)
    assert sum(c.count for c in report.collectives) == 16


def test_torchs_own_collectives_are_not_counted_twice(tmp_path: Path) -> None:
    with SimWorkload("ddp", log=tmp_path / "truth", ranks=2) as job:
        got = capture(job.pids, tmp_path / "capture", lambda: job.more(300, pid=job.pids[0]))
        job.stop()
    assert got.rows("nccl_calls") == 0
    assert got.rows("collectives") > 0


def test_what_nccl_refuses_is_told_and_is_no_collective(target: Target, tmp_path: Path) -> None:
    def during() -> None:
        assert target.do("value = lib.refused()") == 4
        assert target.do("value = lib.without_communicator()") == 11

    got = captured(target, tmp_path / "capture", during)
    rows = got.query("SELECT * FROM nccl_calls ORDER BY start_ns").to_pylist()
    assert (rows[0]["dtype"], rows[0]["bytes"], rows[0]["return_value"]) == (None, None, 4)
    assert_refused(rows[1:])
    assert got.rows("collectives") == 0


def assert_refused(rows: list[dict[str, Any]]) -> None:
    """The calls of `without_communicator`, with their arguments, and nothing of a communicator."""
    expected = [(name, count, dtype, red, peer) for name, count, dtype, _, red, peer in EVERY_KIND]
    expected += [("ncclSend", 1009, "float32", None, 1), ("ncclRecv", 1009, "float32", None, 0)]
    columns = ("name", "count", "dtype", "reduction", "peer")
    assert [tuple(row[c] for c in columns) for row in rows] == expected
    for row in rows:
        assert row["return_value"] == 4
        assert (row["comm_rank"], row["comm_size"], row["device_id"]) == (None, None, None)
        assert row["communicator"] == "0x0"


def test_calls_of_nvidias_own_nccl_are_read_alike(with_the_real_one: Path, tmp_path: Path) -> None:
    with Target(f"lib = ctypes.CDLL({str(with_the_real_one)!r})") as target:

        def during() -> None:
            assert target.do("value = lib.without_communicator()") == 11

        got = tapped.capture([target.pid], tmp_path / "capture", during)
        assert target.end() == 0
    assert_refused(got.query("SELECT * FROM nccl_calls ORDER BY start_ns").to_pylist())


def test_a_library_that_is_loaded_in_the_window_is_seen(library: Path, tmp_path: Path) -> None:
    with on_two_devices() as target:

        def during() -> None:
            assert target.do(f"lib = ctypes.CDLL({str(library)!r}); value = lib.open_two()") == 0
            # The agent looks for new libraries ten times a second.
            wait_until(lambda: target.do("lib.all_reduce(10)") is None and is_hooked(target))

        got = captured(target, tmp_path / "capture", during)
        assert target.end() == 0
    assert got.rows("nccl_calls") >= 3


def is_hooked(target: Target) -> bool:
    """A call of the library's was recorded."""
    with tapped.agent_memory(target.pid) as memory:
        return "ncclAllReduce" in memory.strings(final=True)


def test_the_slots_are_as_before_when_it_is_over(target: Target, tmp_path: Path) -> None:
    for turn in range(3):
        captured(target, tmp_path / f"capture{turn}", lambda: target.do("lib.all_reduce(10)"))
    assert target.do("value = [lib.all_reduce(n) for n in range(1, 5)]") == [0] * 4
    got = captured(target, tmp_path / "again", lambda: target.do("lib.all_reduce(10)"))
    assert got.rows("nccl_calls") == 3


def test_libraries_that_come_and_go_are_never_written_to_at_the_wrong_time(
    library: Path, binding: str, tmp_path: Path
) -> None:
    """While the loader links one, its slots are the loader's; unloaded, they are nobody's."""
    slow = built(tmp_path / "slow.so", stack()[0], "slow_to_link.c", binding)
    with on_two_devices() as target:
        # NCCL stays, and is hooked.
        target.do(f"import _ctypes; lib = ctypes.CDLL({str(library)!r}); lib.open_two()")

        def during() -> None:
            calls = target.do(
                f"""
value, until = 0, time.monotonic() + 4
while time.monotonic() < until:
    loaded = ctypes.CDLL({str(slow)!r})
    assert loaded.call() == 4
    _ctypes.dlclose(loaded._handle)
    value += 1
lib.all_reduce(10)
"""
            )
            assert calls > 50

        got = captured(target, tmp_path / "capture", during)
        assert target.end() == 0
    ends = got.query("SELECT count(*) AS n FROM nccl_calls WHERE name = 'ncclGroupEnd'")
    assert ends.to_pylist() == [{"n": 1}]
