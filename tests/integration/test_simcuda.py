"""PyTorch on the simulated CUDA stack: right numbers, and on the device what CUDA would have there.

Checks run in processes of their own (`tests/simgpu/torch/checks`): simcuda renames a device type of
torch for good.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.simgpu import build as stack
from tests.simgpu import truth
from tests.simgpu.torch import build as backend
from tests.workload import Workload

torch = pytest.importorskip("torch")
pytest.importorskip("torch.distributed")

FOLDER = Path(stack.__file__).resolve().parent / "torch"
MIB = 1 << 20
TIMEOUT_S = 150


@pytest.fixture(scope="module")
def libraries() -> dict[str, str]:
    """Where everything is, as environment variables; skips if it cannot be built."""
    try:
        return {
            "SIMGPU_LIBRARIES": str(stack.ensure()),
            "SIMCUDA_MODULES": str(backend.ensure()),
            "OMP_NUM_THREADS": "1",
        }
    except (stack.CannotBuild, backend.CannotBuild) as exc:
        pytest.skip(str(exc))


class Server:
    """One process of `checks/child.py`: forks itself for each check."""

    def __init__(self, libraries: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(FOLDER / "checks" / "child.py")],
            env={**os.environ, **libraries},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._ended: dict[str, int] = {}

    def start(self, request: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()

    def status(self, answer: str) -> int:
        """The exit status of the check that was to answer there, once it has ended."""
        assert self.process.stdout is not None
        while answer not in self._ended:
            line = self.process.stdout.readline()
            assert line, "the server of the checks has ended"
            path, status = line.rsplit(maxsplit=1)
            self._ended[path] = int(status)
        return self._ended[answer]


@pytest.fixture(scope="module")
def server(libraries: dict[str, str]) -> Iterator[Server]:
    server = Server(libraries)
    yield server
    server.process.kill()
    server.process.communicate()


class Checks:
    """Runs checks: `run("operators", "different")`. `pytest-timeout` ends one that hangs."""

    def __init__(self, server: Server, folder: Path) -> None:
        self._server = server
        self._folder = folder
        self._numbers = itertools.count()

    def run(self, module: str, function: str, *arguments: Any, **env: str) -> Any:
        """What the check returned."""
        answer = self._start(0, module, function, arguments, env)
        return self._result(answer)

    def run_ranks(self, ranks: int, module: str, function: str, *arguments: Any) -> list[Any]:
        """What the check returned on each rank of a job."""
        store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        job = {
            "WORLD_SIZE": str(ranks),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(store.port),
            "TORCHELASTIC_USE_AGENT_STORE": "True",
            "TRACE": str(self._folder / "trace"),
        }
        answers = [
            self._start(rank, module, function, arguments, {**job, "RANK": str(rank)})
            for rank in range(ranks)
        ]
        return [self._result(answer) for answer in answers]

    def _start(
        self, rank: int, module: str, function: str, arguments: tuple[Any, ...], env: dict[str, str]
    ) -> Path:
        answer = self._folder / f"{function}-{next(self._numbers)}.{rank}"
        request = {
            "module": module,
            "function": function,
            "arguments": arguments,
            "env": {"SIMGPU_LOG": str(self._folder / "%p.csv"), **env},
            "answer": str(answer),
            # torch.profiler of these wheels writes thousands of lines there.
            "errors": f"{answer}.errors",
        }
        self._server.start(request)
        return answer

    def _result(self, answer: Path) -> Any:
        status = self._server.status(str(answer))
        errors = Path(f"{answer}.errors").read_text()
        talk = [line for line in errors.splitlines() if not line.startswith("USDT")]
        assert status == 0, "\n".join(talk[-60:])
        return json.loads(answer.read_text())


@pytest.fixture
def checks(server: Server, tmp_path: Path) -> Checks:
    return Checks(server, tmp_path)


@pytest.fixture
def env(libraries: dict[str, str], tmp_path: Path) -> dict[str, str]:
    return {**libraries, "SIMGPU_LOG": str(tmp_path / "%p.csv")}


def losses(env: dict[str, str], name: str, *arguments: str, ranks: int = 1) -> list[list[float]]:
    """The losses of each rank of a workload that runs to its end."""
    script = FOLDER / "workloads" / f"{name}.py"
    options = {"env": env, "ranks": ranks, "record_losses": True, "timeout_s": TIMEOUT_S}
    with Workload(script, *arguments, **options) as workload:  # type: ignore[arg-type]
        first = workload.wait()
        return [first, *(workload.losses(rank) for rank in range(1, ranks))]


# ---- numbers ---------------------------------------------------------------------------------


def test_operators_give_the_cpu_s_results_to_the_bit(checks: Checks) -> None:
    assert checks.run("operators", "different") == {}


def test_random_numbers_are_the_cpu_s(checks: Checks) -> None:
    assert checks.run("operators", "seeded") == [True] * 4


def test_a_convolutional_net_trains_as_on_the_cpu(checks: Checks) -> None:
    assert max(checks.run("operators", "convolution")) < 1e-6


@pytest.mark.parametrize(
    ("name", "arguments", "tolerance"),
    [
        ("mlp", (), 1e-6),
        ("transformer", ("--fp32",), 1e-5),
        # Autocast casts other operators on the CPU than on CUDA.
        ("transformer", (), 5e-3),
        ("pageable", ("--mib", "1"), 1e-6),
        ("pageable", ("--mib", "1", "--pinned"), 1e-6),
        ("host_bound", ("--gap-ms", "1"), 1e-5),
    ],
)
def test_workloads_have_the_losses_of_the_cpu(
    env: dict[str, str], name: str, arguments: tuple[str, ...], tolerance: float
) -> None:
    plain = [argument for argument in arguments if argument != "--pinned"]  # of no CPU's
    here = losses(env, name, "--steps", "12", "--device", "cpu", *plain)
    there = losses(env, name, "--steps", "12", *arguments)
    assert len(there[0]) == 12
    assert there[0] == pytest.approx(here[0], rel=tolerance)


@pytest.mark.parametrize("ranks", [2, 4])
def test_data_parallel_training_equals_gloo(env: dict[str, str], ranks: int) -> None:
    arguments = ("--steps", "8", "--ranks", str(ranks))
    here = losses(env, "ddp", "--device", "cpu", *arguments, ranks=ranks)
    there = losses(env, "ddp", *arguments, ranks=ranks)
    for rank in range(ranks):
        assert there[rank] == pytest.approx(here[rank], rel=1e-4)


@pytest.mark.parametrize("kind", ["fsdp1", "fsdp2", "zero"])
def test_sharded_training_equals_plain_data_parallel_training(checks: Checks, kind: str) -> None:
    plain = checks.run_ranks(2, "collectives", "sharded", "cpu")
    sharded = checks.run_ranks(2, "collectives", "sharded", kind)
    for here, there in zip(plain, sharded, strict=True):
        assert there == pytest.approx(here, rel=1e-4)


# ---- kernels ---------------------------------------------------------------------------------


def test_a_step_launches_the_kernels_that_its_operators_demand(checks: Checks) -> None:
    assert checks.run("operators", "step_kernels") == [
        "ampere_sgemm_32x128_tn",
        "vectorized_elementwise_kernel[GeluCUDAKernelImpl]",
        "vectorized_layer_norm_kernel",
        "ampere_sgemm_32x128_tn",
        "softmax_warp_forward",
        "nll_loss_forward_reduce_cuda_kernel_2d",
        "vectorized_elementwise_kernel[FillFunctor]",
        "nll_loss_backward_reduce_cuda_kernel_2d",
        "softmax_warp_backward",
        *["ampere_sgemm_32x128_tn"] * 2,
        "reduce_kernel[sum_functor]",
        "layer_norm_grad_input_kernel_vectorized",
        "GammaBetaBackwardCUDAKernelTemplate",
        "vectorized_elementwise_kernel[GeluBackwardCUDAKernelImpl]",
        "ampere_sgemm_32x128_tn",
        "reduce_kernel[sum_functor]",
        "multi_tensor_apply_kernel[BinaryOpListAlphaFunctor]",
    ]


def test_attention_is_fused_by_type(checks: Checks) -> None:
    assert checks.run("operators", "attention_kernels") == {
        "torch.bfloat16": [
            "flash_fwd_kernel",
            "flash_bwd_dot_do_o_kernel",
            "flash_bwd_dq_dk_dv_loop_seqk_parallel_kernel",
        ],
        "torch.float32": [
            "fmha_cutlassF_f32_aligned_64x64_rf_sm80",
            "fmha_cutlassB_f32_aligned_64x64_k64_sm80",
        ],
    }


def test_views_and_questions_launch_nothing(checks: Checks) -> None:
    assert checks.run("operators", "quiet") == []


def test_kernel_names_are_mangled_names(checks: Checks) -> None:
    assert checks.run("operators", "undemangled") == []


def test_kernels_last_as_on_an_h100_at_60_percent(checks: Checks) -> None:
    product, fill, least = checks.run("operators", "durations")
    assert product == int(2 * 1024**3 / (989e3 * 0.6))
    # A fill reads and writes its tensor here: two times 64 MiB.
    assert fill == int(2 * (64 * MIB) / (3350 * 0.6))
    assert least == 1700


def test_autocast_casts_what_it_casts_on_cuda(checks: Checks) -> None:
    types = ["torch.bfloat16", "torch.float32", "torch.float32", "torch.bfloat16"]
    assert checks.run("operators", "autocast_types") == types


def test_a_profiler_sees_each_operator_once(checks: Checks) -> None:
    seen = ["aten::matmul", "aten::mm", "aten::add", "aten::softmax", "aten::_softmax"]
    assert checks.run("operators", "profiled") == seen


# ---- device ----------------------------------------------------------------------------------


def test_allocated_and_reserved_memory(checks: Checks) -> None:
    small, large, shorter = 1024, 3 * MIB, (3 * MIB - 5000 + 511) // 512 * 512
    reserved = small + 4 * MIB  # large blocks are multiples of 2 MiB
    assert checks.run("device", "memory") == {
        "start": [0, 0, 0],
        "two tensors": [small + large, reserved, small + large],
        "one is cached": [small, reserved, small + large],
        "reused": [small + shorter, reserved, small + large],
        "calls of the device": [2, 0],
        "emptied": [0, 0, 0],
        "given back": [reserved],
    }


def test_out_of_memory_is_an_error_after_a_retry(checks: Checks) -> None:
    seen = checks.run("device", "out_of_memory", SIMGPU_MEMORY=str(64 * MIB))
    assert "Tried to allocate 30.00 MiB" in seen.pop("message")
    assert seen == {
        "ooms": [1, 1],
        "retries": [1, 2],
        "fits": 60 * MIB,
        "reserved": 60 * MIB,
    }


def test_streams_and_their_order(checks: Checks) -> None:
    seen = checks.run("device", "streams")
    assert len(seen.pop("kernels")) == 4
    assert all(seen.values()), seen


def test_streams_overlap(checks: Checks) -> None:
    # By the virtual clock each call takes 2 us, and the first kernel takes 66.
    assert checks.run("device", "overlap", SIMGPU_CLOCK="virtual") == [True, True]


def test_events_measure_the_device_s_time(checks: Checks) -> None:
    assert checks.run("device", "events") == {"ready": True, "at least busy": True}


def test_recorded_streams_delay_the_reuse_of_memory(checks: Checks) -> None:
    # A kernel's least 1.7 us become a second.
    slow = {"SIMCUDA_SLOWDOWN": "600000"}
    assert checks.run("device", "recorded_stream", **slow) == [False, True]


def test_copies_by_kind_of_memory(checks: Checks) -> None:
    to_device, to_host, on_device = 1, 2, 8
    pageable, pinned, device = 1, 2, 3
    packing = [0]
    assert checks.run("device", "copies") == [
        [to_device, pageable, device, 4000],
        [to_device, pinned, device, 4000],
        [on_device, device, device, 4000],
        [to_host, device, pinned, 4000],
        packing,
        [to_host, device, pageable, 2000],
        [to_host, device, pageable, 4],
        packing,
        [to_host, device, pageable, 2000],
    ]


def test_several_devices(checks: Checks) -> None:
    assert checks.run("device", "several_devices", SIMGPU_DEVICES="2") == [2, 1, 0, [1]]


# ---- graphs ----------------------------------------------------------------------------------


def test_a_replay_computes_and_is_one_launch(checks: Checks) -> None:
    seen = checks.run("device", "graph")
    once = [
        "ampere_sgemm_32x128_tn",
        "vectorized_elementwise_kernel[launch_clamp_scalar]",
        "ampere_sgemm_32x128_tn",
    ]
    assert seen == {
        "right": [True] * 5,
        "kernels": once * 5,
        "correlations": 5,
        "nodes": 3,
        "launched outside": [],
    }


def test_a_whole_training_step_as_a_graph(checks: Checks) -> None:
    eager, replayed = checks.run("device", "trained_in_graph")
    assert replayed == pytest.approx(eager, rel=1e-6)


def test_decoding_by_a_graph_gives_the_tokens_of_eager_decoding(
    env: dict[str, str], tmp_path: Path
) -> None:
    eager = losses(env, "graph", "--steps", "20", "--eager")
    for log in tmp_path.glob("*.csv"):
        log.unlink()
    assert losses(env, "graph", "--steps", "20") == eager
    (log,) = tmp_path.glob("*.csv")
    replayed = [o for o in truth.read(log) if o.graph_id and o.kind == "kernel"]
    assert len({o.correlation_id for o in replayed}) == 20
    assert len(replayed) == 20 * len({o.graph_node_id for o in replayed})


# ---- collectives -----------------------------------------------------------------------------


@pytest.mark.parametrize("ranks", [2, 4])
def test_collectives_give_what_gloo_gives(checks: Checks, ranks: int, tmp_path: Path) -> None:
    here = checks.run_ranks(ranks, "collectives", "all_of_them", "gloo")
    assert checks.run_ranks(ranks, "collectives", "all_of_them", "simnccl") == here
    logs = [truth.read(path) for path in tmp_path.glob("*.csv")]
    nccl = [sum("ncclDevKernel" in o.name for o in log) for log in logs]
    assert sum(count > 30 for count in nccl) == ranks


def test_collectives_that_gloo_does_not_have(checks: Checks) -> None:
    first = {
        "AVG": [1.5, 3.0, 4.5],
        "scaled": [1.5, 3.0, 4.5],
        "bf16": [3.0, 6.0, 9.0],
        "all_to_all": [[1.0, 2.0], [2.0, 4.0]],
        "all_reduce_coalesced": [[3.0, 6.0], [3.0, 6.0, 9.0]],
        "coalescing manager": [[3.0, 6.0], [3.0, 6.0, 9.0, 12.0]],
        "host": [2.0, 2.0],
    }
    second = {**first, "all_to_all": [[3.0, 4.0], [6.0, 8.0]]}
    assert checks.run_ranks(2, "collectives", "only_here") == [first, second]


def test_waiting_for_a_collective_does_not_block_the_host(checks: Checks) -> None:
    total = 3.0 * 1000 * 1001 / 2 + 1000
    assert checks.run_ranks(2, "collectives", "asynchronous") == [
        [False, False, total],
        [None, None, total],
    ]


def test_a_profiler_sees_collectives_as_with_nccl(checks: Checks) -> None:
    for path, names, recorded in checks.run_ranks(2, "collectives", "profiled"):
        assert names.count("record_param_comms") == 2
        assert {"nccl:all_reduce", "nccl:_all_gather_base"} <= set(names)
        events = json.loads(Path(path).read_text())["traceEvents"]
        reduce, gather = (e["args"] for e in events if e.get("name") == "record_param_comms")
        assert reduce["Collective name"] == "allreduce"
        assert reduce["In msg nelems"] == reduce["Out msg nelems"] == 10
        assert reduce["Group size"] == 2
        assert reduce["dtype"] == "Float"
        assert gather["Collective name"] == "_allgather_base"
        assert (gather["In msg nelems"], gather["Out msg nelems"]) == (10, 20)
        assert [
            (e["profiling_name"], e["input_sizes"], e["collective_seq_id"], e["state"])
            for e in recorded
        ] == [
            ("nccl:all_reduce", [[4]], 1, "completed"),
            ("nccl:all_reduce", [[10]], 2, "completed"),
            ("nccl:_all_gather_base", [[10]], 3, "completed"),
        ]


def test_a_straggler_makes_the_other_ranks_kernels_long(
    env: dict[str, str], tmp_path: Path
) -> None:
    with Workload(
        FOLDER / "workloads" / "ddp.py",
        *("--steps", "6", "--straggler", "1", "200"),
        env=env,
        ranks=2,
        timeout_s=TIMEOUT_S,
    ) as workload:
        early, late = workload.pids
        workload.wait()
    longest = []
    for pid in (early, late):
        log = truth.read(tmp_path / f"{pid}.csv")
        reductions = [o for o in log if "AllReduce" in o.name]
        assert reductions
        longest.append(sum(o.end_ns - o.start_ns for o in reductions))
    # Six steps of 200 ms, of which the early rank spends nearly all in its kernels.
    assert longest[0] > 600e6
    assert longest[0] > longest[1]


def test_collectives_are_refused_in_a_graph(checks: Checks) -> None:
    messages = checks.run_ranks(2, "collectives", "in_graph")
    assert all("no collectives in a CUDA graph" in message for message in messages)


# ---- workloads -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mlp", "graph", "ddp"])
def test_workloads_end_cleanly_at_sigterm(env: dict[str, str], name: str) -> None:
    ranks = 2 if name == "ddp" else 1
    script = FOLDER / "workloads" / f"{name}.py"
    with Workload(script, env=env, ranks=ranks, timeout_s=TIMEOUT_S) as workload:
        workload.stop()
        assert workload.steps >= 3


def test_workloads_print_their_losses_and_end_after_seconds(env: dict[str, str]) -> None:
    script = FOLDER / "workloads" / "mlp.py"
    done = subprocess.run(
        [sys.executable, str(script), "--seconds", "0.1"],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=True,
    )
    ready, losses_line, last = done.stdout.splitlines()
    assert ready.startswith("ready ")
    steps = int(last.removeprefix("done "))
    assert len(json.loads(losses_line)["losses"]) == steps >= 3


# ---- build -----------------------------------------------------------------------------------


def test_without_a_compiler_the_reason_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(backend.CannotBuild, match="simcuda needs cmake, which is not installed"):
        backend.ensure()
