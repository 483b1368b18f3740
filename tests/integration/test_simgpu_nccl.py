"""The simulated NCCL: right results, kernels that show who waited for whom, and its faults."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import simulated
from tests.gpu.behaviours_nccl import ALONE, CLAIMS
from tests.simgpu import truth
from tests.simgpu.nccl.job import Job, run
from tests.simgpu.nccl.library import Result, Type

COMMUNICATORS = "tests.simgpu.nccl.communicators:"
REDUCED = [kind for kind in Type if kind <= Type.BFLOAT16]
LONGER_THAN_A_SLOT = 140_001 * 4  # floats; 2 MiB and a bit, so chunks of all ranks overlap


@pytest.fixture(scope="module")
def folder() -> Path:
    return simulated.libraries()


def kernels(path: Path) -> list[truth.Operation]:
    return [operation for operation in truth.read(path) if operation.kind == "kernel"]


# ---- results ---------------------------------------------------------------------------------


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("kind", REDUCED, ids=lambda kind: kind.name.lower())
def test_reductions_are_right_to_the_bit(folder: Path, kind: Type, ranks: int) -> None:
    assert run("reductions", ranks, folder, [kind], 1001 * ranks) == [[]] * ranks


def test_all_values_of_two_bytes(folder: Path) -> None:
    assert run("every_half", 4, folder, [Type.FLOAT16, Type.BFLOAT16]) == [[]] * 4


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_values_move_where_they_should(folder: Path, ranks: int) -> None:
    assert run("moves", ranks, folder, list(Type), 333) == [[]] * ranks


def test_long_arrays_go_in_chunks(folder: Path) -> None:
    assert run("reductions", 4, folder, [Type.FLOAT32], LONGER_THAN_A_SLOT) == [[]] * 4
    assert run("moves", 4, folder, [Type.FLOAT32], LONGER_THAN_A_SLOT // 4) == [[]] * 4


@pytest.mark.parametrize("count", [5, LONGER_THAN_A_SLOT // 4])
def test_in_place(folder: Path, count: int) -> None:
    assert run("in_place", 4, folder, count) == [[]] * 4


def test_sums_with_a_factor_of_host_or_device(folder: Path) -> None:
    assert run("scaled_sum", 2, folder, REDUCED) == [[]] * 2


@pytest.mark.parametrize("kind", ["processes", "threads"])
@pytest.mark.parametrize("ranks", [2, 4])
def test_under_sanitizers(ranks: int, kind: str) -> None:
    built = simulated.libraries("address,undefined")
    done = subprocess.run(
        [built / "nccl" / "nccl_selftest", str(ranks), kind],
        env={**os.environ, "SIMGPU_DEVICES": str(ranks)},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


# ---- what comes when -------------------------------------------------------------------------


def test_a_late_rank_makes_the_kernel_of_the_early_one_long(folder: Path, tmp_path: Path) -> None:
    with Job("early_and_late", 2, folder, logs=tmp_path) as job:
        job.share_id()
        job.ranks[0].expect("said launched")
        job.ranks[1].tell("hear launch")
        results = job.results()
    assert results == [{"done_early": False, "sum": 2.0}, {"done_early": False, "sum": 2.0}]
    (early,), (late,) = kernels(tmp_path / "0.csv"), kernels(tmp_path / "1.csv")
    assert early.start_ns < late.start_ns
    assert early.end_ns == late.end_ns
    assert late.end_ns - late.start_ns == 6000 + 700 * 2 + 4096 * 1000 // 360_000


def test_work_behind_a_collective_waits_for_its_data(folder: Path) -> None:
    with Job("work_behind", 2, folder) as job:
        job.share_id()
        job.ranks[0].expect("said launched")
        job.ranks[1].tell("hear launch")
        results = job.results()
    assert results[0] == {"before": 0.0, "after": 2.0}
    assert results[1]["after"] == 2.0


def test_many_launches_in_flight_on_two_streams(folder: Path, tmp_path: Path) -> None:
    assert run("many_in_flight", 2, folder, 400, logs=tmp_path) == [1.0, 1.0]
    ours = sorted(kernels(tmp_path / "0.csv"), key=lambda kernel: kernel.start_ns)
    assert len(ours) == 400
    assert all(a.end_ns <= b.start_ns for a, b in itertools.pairwise(ours))
    assert len({kernel.correlation_id for kernel in ours}) == 400


def test_fault_late(folder: Path, tmp_path: Path) -> None:
    env = {"SIMGPU_FAULTS": "nccl_late=1:50ms"}
    called_ns = run("late_by_fault", 2, folder, env=env, logs=tmp_path)
    (late,) = kernels(tmp_path / "1.csv")
    assert late.start_ns >= called_ns[1] + 50_000_000
    assert kernels(tmp_path / "0.csv")[0].end_ns == late.end_ns


def test_fault_missing_leaves_the_others_waiting(folder: Path, tmp_path: Path) -> None:
    env = {"SIMGPU_FAULTS": "nccl_missing=1:1"}
    results = run("missing", 2, folder, env=env, logs=tmp_path)
    assert [result["first"] for result in results] == [2.0, 2.0]
    assert [result["waits"] for result in results] == [True, False]
    assert len(kernels(tmp_path / "1.csv")) == 1
    assert kernels(tmp_path / "0.csv")[1].end_ns >= results[0]["aborted_ns"]


def test_a_process_may_end_with_kernels_in_flight(folder: Path, tmp_path: Path) -> None:
    with Job("leave_early", 2, folder, logs=tmp_path) as job:
        job.share_id()
        assert job.results() == [None, None]
        assert [rank.process.wait(timeout=60) for rank in job.ranks] == [0, 0]
    assert len(kernels(tmp_path / "0.csv")) <= 100


def test_a_killed_rank_leaves_the_others_waiting(folder: Path) -> None:
    with Job("peer_killed", 2, folder) as job:
        job.share_id()
        job.ranks[1].expect("said connected")
        job.ranks[1].process.kill()
        job.ranks[1].process.wait()
        job.ranks[0].tell("hear killed")
        assert job.ranks[0].expect("result") == '{"waits": true}'


# ---- groups ----------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, LONGER_THAN_A_SLOT])
def test_a_ring_of_sends_in_groups(folder: Path, count: int) -> None:
    assert run("ring", 3, folder, count) == [True] * 3


def test_sends_without_groups(folder: Path) -> None:
    assert run("ping_pong", 2, folder, 100_000) == [True] * 2


def test_a_group_is_one_kernel(folder: Path, tmp_path: Path) -> None:
    assert run("fused", 2, folder, logs=tmp_path) == [[2.0] * 4] * 2
    assert len(kernels(tmp_path / "0.csv")) == 2


def test_one_process_with_all_devices(folder: Path) -> None:
    assert run("all_devices", 1, folder, env={"SIMGPU_DEVICES": "4"}) == [[6.0] * 4]


def test_kernels_are_named_as_those_of_nccl(folder: Path, tmp_path: Path) -> None:
    run("kernels", 4, folder, logs=tmp_path)
    tail = "24ncclDevKernelArgsStorageILm4096EE"
    assert [kernel.name for kernel in kernels(tmp_path / "3.csv")] == [
        "_Z39ncclDevKernel_AllReduce_Sum_f32_RING_LL" + tail,
        "_Z40ncclDevKernel_AllReduce_Sum_bf16_RING_LL" + tail,
        "_Z39ncclDevKernel_AllReduce_Sum_u64_RING_LL" + tail,
        "_Z39ncclDevKernel_AllReduce_Sum_f32_TREE_LL" + tail,
        "_Z35ncclDevKernel_Reduce_Sum_u8_RING_LL" + tail,
        "_Z43ncclDevKernel_ReduceScatter_Sum_f16_RING_LL" + tail,
        "_Z31ncclDevKernel_AllGather_RING_LL" + tail,
        "_Z31ncclDevKernel_Broadcast_RING_LL" + tail,
        "_Z22ncclDevKernel_SendRecv" + tail,
    ]


@pytest.mark.parametrize("algorithm", ["RING", "TREE"])
def test_the_algorithm_can_be_chosen(folder: Path, tmp_path: Path, algorithm: str) -> None:
    run("kernels", 2, folder, env={"NCCL_ALGO": algorithm.lower()}, logs=tmp_path)
    sums = [it.name for it in kernels(tmp_path / "0.csv") if "AllReduce" in it.name]
    assert len(sums) == 4
    assert all(f"_{algorithm}_LL" in name for name in sums)


def test_with_the_virtual_clock_each_run_is_the_same(folder: Path, tmp_path: Path) -> None:
    env = {"SIMGPU_CLOCK": "virtual", "SIMGPU_FAULTS": "nccl_late=2:5ms"}
    seen = []
    for run_number in range(2):
        logs = tmp_path / str(run_number)
        logs.mkdir()
        run("kernels", 3, folder, env=env, logs=logs)
        seen.append(
            [
                [(it.name, it.start_ns, it.end_ns) for it in kernels(logs / f"{rank}.csv")]
                for rank in range(3)
            ]
        )
    assert seen[0] == seen[1]
    ends = [[end_ns for _, _, end_ns in rank] for rank in seen[0]]
    assert ends[0] == ends[1] == ends[2]


def test_captured_into_a_graph(folder: Path) -> None:
    assert run("captured", 2, folder) == [[2.0, 4.0, 8.0, 16.0]] * 2


# ---- communicators ---------------------------------------------------------------------------


def test_one_rank_runs_no_kernel(folder: Path, tmp_path: Path) -> None:
    assert run(COMMUNICATORS + "alone", 1, folder, logs=tmp_path) == [1.0]
    kinds = [operation.kind for operation in truth.read(tmp_path / "0.csv")]
    assert "kernel" not in kinds
    assert kinds.count("memcpy") == 2 + 1 + 1  # two put, one of NCCL (not in place), one got


def test_life_of_a_communicator(folder: Path) -> None:
    results = run(COMMUNICATORS + "life", 2, folder, env={"SIMGPU_DEVICES": "2"})
    for rank, numbers in enumerate(results):
        assert numbers == {
            "ncclCommCount": 2,
            "ncclCommUserRank": rank,
            "ncclCommCuDevice": rank,
            "state": Result.SUCCESS,
            "sum": 2,
            "after_finalize": Result.INVALID_USAGE,
        }


def test_split(folder: Path) -> None:
    odd, even = [2, 4, 1, 0], [2, 2, 1, 0]
    results = run(COMMUNICATORS + "split", 4, folder)
    assert results == [[1, *even], [1, *odd], [0, *even], [0, *odd]]


def test_a_communicator_that_does_not_block(folder: Path) -> None:
    with Job(COMMUNICATORS + "without_blocking", 2, folder) as job:
        job.share_id()
        job.ranks[0].expect("said asked")
        job.ranks[1].tell("hear connect")
        results = job.results()
    assert [result["code"] for result in results] == [Result.IN_PROGRESS] * 2
    assert (results[0]["early"], results[0]["used"]) == (7, Result.INVALID_ARGUMENT)
    assert [(result["state"], result["count"]) for result in results] == [(0, 2)] * 2


def test_ranks_that_disagree_are_told(folder: Path) -> None:
    assert run(COMMUNICATORS + "disagreeing", 2, folder) == [[Result.INVALID_USAGE]] * 2


def test_what_is_refused(folder: Path) -> None:
    wrong = dict.fromkeys(("no comm", "no comm count", "type", "op", "root", "peer"), 4)
    wrong |= {"group end": 5, "group": 4, "rank": 4, "no id": 4}
    assert run(COMMUNICATORS + "refused", 2, folder) == [{**wrong, "works": 0, "sum": 2}] * 2


@pytest.mark.parametrize(("level", "printed"), [("", False), ("WARN", True)])
def test_what_is_refused_is_printed_if_asked_for(folder: Path, level: str, printed: bool) -> None:
    code = "import ctypes, sys; print(ctypes.CDLL(sys.argv[1]).ncclGroupEnd())"
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder / "libnccl.so.2")],
        env={**os.environ, "NCCL_DEBUG": level},
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) == Result.INVALID_USAGE
    assert ("ncclGroupEnd: not in a group call" in done.stderr) is printed


def test_not_in_a_forked_child(folder: Path) -> None:
    assert run(COMMUNICATORS + "after_fork", 1, folder) == [Result.UNHANDLED_CUDA_ERROR]


def test_nothing_is_left_in_shared_memory(folder: Path) -> None:
    run(COMMUNICATORS + "life", 2, folder)
    own = f"simnccl.{os.geteuid()}."
    with Job("early_and_late", 2, folder) as job:
        job.share_id()
        pids = [str(rank.process.pid) for rank in job.ranks]
        job.ranks[0].expect("said launched")
        left = [name for name in os.listdir("/dev/shm") if name.startswith(own)]
        assert not [name for name in left if name.split(".")[2] in pids]


def test_version_and_messages(folder: Path) -> None:
    message = "ncclGetVersion: INVALID_ARGUMENT (ncclGetVersion: version is NULL)"
    assert run(COMMUNICATORS + "messages", 1, folder) == [[22809, True, message]]


# ---- conformance -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "ranks"), [*((name, 2) for name in CLAIMS), *((name, 1) for name in ALONE)]
)
def test_behaves_as_nccl_is_said_to(name: str, ranks: int, folder: Path) -> None:
    """The same claims are tried on real GPUs by `tests/gpu`."""
    env = {"LD_LIBRARY_PATH": str(folder), "SIMGPU_DEVICES": "2"}
    with Job(f"tests.gpu.behaviours_nccl:{name}", ranks, None, env=env) as job:
        job.share_id()
        job.relay()
