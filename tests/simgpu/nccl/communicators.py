"""What ranks do to communicators, and what NCCL refuses. As in `scenarios`."""

from __future__ import annotations

import ctypes
import os
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.simgpu.nccl.library import Config, NcclError, Op, Result, Type
from tests.simgpu.nccl.scenarios import ONES, SUM_OF_ONES, ones, sum_in_place

if TYPE_CHECKING:
    from tests.simgpu.nccl.rank import World


def alone(world: World) -> float:
    """One rank: a copy, and no kernel."""
    world.connect()
    buffer, values = ones(world)
    target = world.cuda.put(np.zeros_like(values))
    tail = (world.comm, world.stream)
    world.nccl.collective("ncclAllReduce", buffer, target, ONES, *SUM_OF_ONES, *tail)
    world.nccl.collective("ncclAllReduce", target, target, ONES, *SUM_OF_ONES, *tail)
    world.cuda.synchronize(world.stream)
    return float(world.cuda.get(target, values)[0])


def life(world: World) -> dict[str, Any]:
    """A communicator's numbers, and its orderly end."""
    world.connect()
    names = ("ncclCommCount", "ncclCommUserRank", "ncclCommCuDevice")
    numbers = {name: world.nccl.number(name, world.comm) for name in names}
    buffer, values = ones(world)
    handle = ctypes.c_void_p()
    size = ctypes.c_size_t(values.nbytes)
    world.nccl.call("ncclCommRegister", world.comm, buffer, size, ctypes.byref(handle))
    sum_in_place(world, buffer)
    world.nccl.call("ncclCommDeregister", world.comm, handle)
    numbers["state"] = world.nccl.number("ncclCommGetAsyncError", world.comm)
    world.nccl.call("ncclCommFinalize", world.comm)
    numbers["sum"] = int(world.cuda.get(buffer, values)[0])
    numbers["after_finalize"] = result_of(lambda: sum_in_place(world, buffer))
    world.nccl.call("ncclCommDestroy", world.comm)
    return numbers


def split(world: World) -> list[int]:
    """Halves of which the order is reversed; the sum of the half's ranks; a half of the half."""
    world.connect()
    half = world.nccl.split(world.comm, world.rank % 2, -world.rank)
    quarter = world.nccl.split(half, world.rank, 0)
    nothing = world.nccl.split(world.comm, -1, 0)
    value = np.array([world.rank], np.int64)
    got = world.cuda.put(value)
    rest = (1, Type.INT64, Op.SUM, half, world.stream)
    world.nccl.collective("ncclAllReduce", got, got, *rest)
    world.cuda.synchronize(world.stream)
    return [
        world.nccl.number("ncclCommUserRank", half),
        world.nccl.number("ncclCommCount", half),
        int(world.cuda.get(got, value)[0]),
        world.nccl.number("ncclCommCount", quarter),
        nothing.value or 0,
    ]


def without_blocking(world: World) -> dict[str, Any]:
    """Rank 0 asks for a communicator before the others are there, and does not wait."""
    world.cuda.set_device(world.rank % world.cuda.device_count())
    unique_id = world.share_id()
    config = Config(blocking=0)
    if world.rank == 1:
        world.hear("connect")
    arguments = (ctypes.byref(world.comm), world.ranks, unique_id, world.rank)
    code = world.nccl.library.ncclCommInitRankConfig(*arguments, ctypes.byref(config))
    early = world.nccl.number("ncclCommGetAsyncError", world.comm) if world.rank == 0 else 7
    used = result_of(lambda: world.nccl.number("ncclCommCount", world.comm))
    if world.rank == 0:
        world.say("asked")
    while (state := world.nccl.number("ncclCommGetAsyncError", world.comm)) == Result.IN_PROGRESS:
        time.sleep(0.001)
    count = world.nccl.number("ncclCommCount", world.comm)
    return {"code": code, "early": early, "used": used, "state": state, "count": count}


def disagreeing(world: World) -> list[int]:
    """Each rank sums another number of values: the stream goes on, the communicator tells."""
    world.connect()
    buffer, _ = ones(world)
    sum_in_place(world, buffer, ONES - world.rank)
    world.cuda.synchronize(world.stream)
    return [world.nccl.number("ncclCommGetAsyncError", world.comm)]


def result_of(call: Any) -> int:
    try:
        call()
    except NcclError as exc:
        return exc.result
    return Result.SUCCESS


def refused(world: World) -> dict[str, int]:
    """Calls that NCCL refuses, and how; a call after them works."""
    world.connect()
    buffer, values = ones(world)
    nccl, comm, stream = world.nccl, world.comm, world.stream
    both, tail = (buffer, buffer, ONES), (comm, stream)
    none = ctypes.c_void_p()
    summed = (Type.FLOAT32, Op.SUM)

    def empty_group_with_a_bad_call() -> None:
        nccl.call("ncclGroupStart")
        sum_in_place(world, buffer)
        result_of(lambda: nccl.collective("ncclAllReduce", *both, *summed, none, stream))
        nccl.call("ncclGroupEnd")

    whatever = ctypes.c_int(99)
    results = {
        "no comm": lambda: nccl.collective("ncclAllReduce", *both, *summed, none, stream),
        "no comm count": lambda: nccl.number("ncclCommCount", none),
        "type": lambda: nccl.collective("ncclAllReduce", *both, whatever, Op.SUM, *tail),
        "op": lambda: nccl.collective("ncclAllReduce", *both, Type.FLOAT32, whatever, *tail),
        "root": lambda: nccl.collective("ncclBroadcast", *both, Type.FLOAT32, whatever, *tail),
        "peer": lambda: nccl.collective("ncclSend", buffer, 1, Type.FLOAT32, whatever, *tail),
        "group end": lambda: nccl.call("ncclGroupEnd"),
        "group": empty_group_with_a_bad_call,
        "rank": lambda: nccl.init_rank(2, nccl.unique_id(), 2),
        "no id": lambda: nccl.call("ncclGetUniqueId", None),
        "works": lambda: sum_in_place(world, buffer),
    }
    codes = {name: int(result_of(call)) for name, call in results.items()}
    world.cuda.synchronize(stream)
    codes["sum"] = int(world.cuda.get(buffer, values)[0])
    return codes


def messages(world: World) -> list[Any]:
    """Version, whether ids differ, and what is said of a wrong call."""
    first, second = world.share_id(), world.nccl.unique_id()
    try:
        world.nccl.call("ncclGetVersion", None)
    except NcclError as exc:
        return [world.nccl.version(), bytes(first) != bytes(second), str(exc)]
    return []


def after_fork(world: World) -> int:
    """A child that was forked after CUDA had begun cannot use NCCL; its result."""
    world.connect()
    reader, writer = os.pipe()
    if os.fork() == 0:
        unique_id = world.nccl.unique_id()
        os.write(writer, bytes([result_of(lambda: world.nccl.init_rank(1, unique_id, 0))]))
        os._exit(0)
    os.wait()
    return os.read(reader, 1)[0]
