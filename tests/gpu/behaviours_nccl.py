"""What the simulated stack says about NCCL: each function is one claim, of two ranks or of any.

Each rank is a process (`tests.simgpu.nccl.rank`), against the simulated libraries or the real ones;
so nothing here may know which they are. What one rank says, the other hears.
"""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Callable
from typing import Final

import numpy as np

from gputap.profiler.cupti.abi import ActivityKind
from tests.gpu.stack import Stack
from tests.simgpu.nccl import scenarios
from tests.simgpu.nccl.library import NcclError, Op, Result, Type, root
from tests.simgpu.nccl.rank import World

CLAIMS: Final[dict[str, Callable[[World], None]]] = {}
ALONE: Final[list[str]] = []
"""Claims that one rank can make, too."""
DRIVER_LAUNCHES: Final = {307, 442, 652, 653}
K: Final = ActivityKind
COUNT: Final = 4096


def claim(function: Callable[[World], None]) -> Callable[[World], None]:
    """Makes a function one."""
    CLAIMS[function.__name__] = function
    return function


def claim_of_any(function: Callable[[World], None]) -> Callable[[World], None]:
    """Makes a function one that needs no second rank."""
    ALONE.append(function.__name__)
    return claim(function)


def all_reduce(world: World, buffer: ctypes.c_void_p, count: int = COUNT) -> None:
    rest = (Type.FLOAT32, Op.SUM, world.comm, world.stream)
    world.nccl.collective("ncclAllReduce", buffer, buffer, count, *rest)


def ones(world: World) -> ctypes.c_void_p:
    return world.cuda.put(np.ones(COUNT, np.float32))


def first_value(world: World, buffer: ctypes.c_void_p) -> float:
    return float(world.cuda.get(buffer, np.ones(1, np.float32))[0])


def connect_warm(world: World) -> None:
    """The first collective connects the ranks, and its call may wait for the others."""
    world.connect()
    all_reduce(world, ones(world))
    world.cuda.synchronize(world.stream)


def refusal(call: Callable[[], object]) -> Result:
    try:
        call()
    except NcclError as exc:
        return exc.result
    return Result.SUCCESS


# ---- results -----------------------------------------------------------------------------------


@claim
def reductions_are_exact_with_two_ranks(world: World) -> None:
    """One step, so that no order of steps can matter."""
    assert scenarios.reductions(world, [*range(Type.BFLOAT16 + 1)], 1000) == []


@claim
def values_move_where_they_should(world: World) -> None:
    assert scenarios.moves(world, [Type.UINT8, Type.FLOAT32], 333) == []


@claim
def buffers_may_be_the_same(world: World) -> None:
    assert scenarios.in_place(world, 1000) == []


@claim
def factors_are_read_where_they_reside(world: World) -> None:
    assert scenarios.scaled_sum(world, [Type.INT32, Type.FLOAT16, Type.FLOAT32]) == []


@claim
def sends_in_a_group_cannot_lock(world: World) -> None:
    assert scenarios.ring(world, 1 << 20)


@claim
def sends_without_a_group_are_in_order(world: World) -> None:
    assert scenarios.ping_pong(world, 1000)


@claim
def a_graph_may_hold_collectives(world: World) -> None:
    assert scenarios.captured(world) == [2.0, 4.0, 8.0, 16.0]


# ---- what comes when ---------------------------------------------------------------------------


@claim
def a_call_does_not_wait_for_the_other_ranks(world: World) -> None:
    connect_warm(world)
    buffer = ones(world)
    if world.rank == 1:
        world.hear("launched")
    all_reduce(world, buffer)
    if world.rank == 0:
        assert not world.cuda.is_done(world.stream)
        world.say("launched")
    world.cuda.synchronize(world.stream)
    assert first_value(world, buffer) == 2.0


@claim
def the_kernel_of_an_early_rank_lasts_until_the_late_one_comes(world: World) -> None:
    stack = Stack()
    connect_warm(world)
    buffer = ones(world)
    with stack.capture(K.CONCURRENT_KERNEL) as capture:
        if world.rank == 1:
            world.hear("launched")
        came_ns = time.time_ns()
        all_reduce(world, buffer)
        if world.rank == 0:
            world.say("launched")
            world.hear("came")
        else:
            world.say("came")
    (kernel,) = (record for record in capture.kernels() if "ncclDevKernel" in record.name)
    if world.rank == 1:
        assert kernel.start >= came_ns - 1_000_000, "GPU times are interpolated: 1 ms of doubt"
        world.say(f"start {kernel.start}")
    else:
        late_start = int(sys.stdin.readline().split()[2])
        assert kernel.start <= late_start <= kernel.end + 1_000_000


@claim
def work_behind_a_collective_sees_its_result(world: World) -> None:
    connect_warm(world)
    buffer = ones(world)
    target = world.cuda.put(np.zeros(COUNT, np.float32))
    if world.rank == 1:
        world.hear("launched")
    all_reduce(world, buffer)
    size = ctypes.c_size_t(COUNT * 4)
    world.cuda.call("cudaMemcpyAsync", target, buffer, size, ctypes.c_int(3), world.stream)
    if world.rank == 0:
        world.say("launched")
    world.cuda.synchronize(world.stream)
    assert first_value(world, target) == 2.0


@claim
def an_abort_ends_kernels_that_wait(world: World) -> None:
    connect_warm(world)
    buffer = ones(world)
    if world.rank == 0:
        all_reduce(world, buffer)
        assert not world.cuda.is_done(world.stream)
    world.nccl.call("ncclCommAbort", world.comm)
    world.cuda.synchronize(world.stream)


# ---- records -----------------------------------------------------------------------------------


def captured_kernels(world: World, work: Callable[[], None]) -> list[str]:
    """Names of NCCL's kernels in `work`, of which each must have its driver call."""
    stack = Stack()
    with stack.capture(K.CONCURRENT_KERNEL, K.DRIVER, K.RUNTIME) as capture:
        work()
        world.cuda.synchronize(world.stream)
    kernels = [record for record in capture.kernels() if "nccl" in record.name]
    calls = {record.correlationId: record.cbid for record in capture.of(K.DRIVER)}
    assert all(calls[kernel.correlationId] in DRIVER_LAUNCHES for kernel in kernels)
    runtime = {record.correlationId for record in capture.of(K.RUNTIME)}
    assert not any(kernel.correlationId in runtime for kernel in kernels)
    return [kernel.name for kernel in kernels]


@claim
def a_collective_is_a_kernel_launched_by_the_driver(world: World) -> None:
    world.connect()
    buffer = ones(world)
    (name,) = captured_kernels(world, lambda: all_reduce(world, buffer))
    assert "ncclDevKernel_AllReduce_Sum_f32_" in name


@claim
def a_group_is_one_kernel(world: World) -> None:
    world.connect()
    buffers = [ones(world), ones(world)]

    def group() -> None:
        world.nccl.call("ncclGroupStart")
        for buffer in buffers:
            all_reduce(world, buffer)
        world.nccl.call("ncclGroupEnd")

    assert len(captured_kernels(world, group)) == 1


@claim
def every_operator_runs_in_the_kernel_of_the_sum(world: World) -> None:
    """And signed integers in that of unsigned ones."""
    world.connect()
    buffer = ones(world)
    rest = (COUNT, Type.INT32, Op.MAX, world.comm, world.stream)
    (name,) = captured_kernels(
        world, lambda: world.nccl.collective("ncclAllReduce", buffer, buffer, *rest)
    )
    assert "ncclDevKernel_AllReduce_Sum_u32_" in name


@claim
def all_to_all_is_a_kernel_of_sends(world: World) -> None:
    world.connect()
    source, target = ones(world), ones(world)
    rest = (COUNT // 2, Type.FLOAT32, world.comm, world.stream)
    (name,) = captured_kernels(
        world, lambda: world.nccl.collective("ncclAlltoAll", source, target, *rest)
    )
    assert "ncclDevKernel_SendRecv" in name


@claim_of_any
def nothing_to_do_is_no_kernel(world: World) -> None:
    world.connect()
    buffer = ones(world)
    assert captured_kernels(world, lambda: all_reduce(world, buffer, 0)) == []


@claim_of_any
def one_rank_alone_runs_no_kernel(world: World) -> None:
    world.connect()
    own = world.nccl.split(world.comm, world.rank, 0)
    source, target = ones(world), world.cuda.put(np.zeros(COUNT, np.float32))
    rest = (COUNT, Type.FLOAT32, Op.SUM, own, world.stream)
    work = captured_kernels(
        world, lambda: world.nccl.collective("ncclAllReduce", source, target, *rest)
    )
    assert work == []
    assert first_value(world, target) == 1.0


# ---- communicators -----------------------------------------------------------------------------


@claim_of_any
def a_communicator_knows_its_numbers(world: World) -> None:
    world.connect()
    names = ("ncclCommCount", "ncclCommUserRank", "ncclCommGetAsyncError")
    numbers = [world.nccl.number(name, world.comm) for name in names]
    assert numbers == [world.ranks, world.rank, Result.SUCCESS]
    world.nccl.call("ncclCommFinalize", world.comm)
    world.nccl.call("ncclCommDestroy", world.comm)


@claim
def a_split_orders_ranks_by_key(world: World) -> None:
    world.connect()
    reversed_ = world.nccl.split(world.comm, 7, -world.rank)
    assert world.nccl.number("ncclCommUserRank", reversed_) == 1 - world.rank
    assert world.nccl.split(world.comm, -1, 0).value is None


@claim_of_any
def wrong_arguments_are_refused(world: World) -> None:
    world.connect()
    buffer, none = ones(world), ctypes.c_void_p()
    nccl, tail = world.nccl, (world.comm, world.stream)
    both, wrong = (buffer, buffer, COUNT), ctypes.c_int(99)
    for call in (
        lambda: nccl.number("ncclCommCount", none),
        lambda: nccl.call("ncclGetUniqueId", None),
        lambda: nccl.collective("ncclAllReduce", *both, wrong, Op.SUM, *tail),
        lambda: nccl.collective("ncclAllReduce", *both, Type.FLOAT32, wrong, *tail),
        lambda: nccl.collective("ncclBroadcast", *both, Type.FLOAT32, root(world.ranks), *tail),
    ):
        assert refusal(call) is Result.INVALID_ARGUMENT
    assert refusal(lambda: nccl.call("ncclGroupEnd")) is Result.INVALID_USAGE


@claim_of_any
def ids_differ(world: World) -> None:
    world.connect()
    assert bytes(world.nccl.unique_id()) != bytes(world.nccl.unique_id())
