"""What the ranks of the tests do. Each gives what JSON can hold; `world` is `rank.World`."""

from __future__ import annotations

import ctypes
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.simgpu.nccl import reference
from tests.simgpu.nccl.library import (
    Array,
    Op,
    Type,
    root,
)

if TYPE_CHECKING:
    from tests.simgpu.nccl.rank import World

ONES = 1024
SUM_OF_ONES = (Type.FLOAT32, Op.SUM)


def _give(world: World, name: str, own: Array, like: Array, count: int, *rest: Any) -> Array:
    """One collective on a fresh buffer; what it leaves there."""
    source, target = world.cuda.put(own), world.cuda.put(np.zeros_like(like))
    world.nccl.collective(name, source, target, count, *rest, world.comm, world.stream)
    world.cuda.synchronize(world.stream)
    return world.cuda.get(target, like)


def _same(got: Array, expected: Array) -> bool:
    return got.tobytes() == expected.tobytes()


def reductions(world: World, kinds: list[int], count: int) -> list[str]:
    """All reductions of random values; the names of those that are not right to the bit."""
    world.connect()
    wrong = []
    each = count // world.ranks
    mine = slice(world.rank * each, (world.rank + 1) * each)
    for kind, op in ((Type(kind), op) for kind in kinds for op in Op):
        all_of_it = [reference.contribution(kind, rank, count) for rank in range(world.ranks)]
        own, expected = all_of_it[world.rank], reference.reduce(kind, op, all_of_it)
        got = _give(world, "ncclAllReduce", own, expected, count, kind, op)
        if not _same(got, expected):
            wrong.append(f"all-reduce {op.name} {kind.name}")
        got = _give(world, "ncclReduce", own, expected, count, kind, op, root(1))
        if not _same(got, expected if world.rank == 1 else np.zeros_like(expected)):
            wrong.append(f"reduce {op.name} {kind.name}")
        got = _give(world, "ncclReduceScatter", own, expected[mine], each, kind, op)
        if not _same(got, expected[mine]):
            wrong.append(f"reduce-scatter {op.name} {kind.name}")
    return wrong


def every_half(world: World, kinds: list[int]) -> list[str]:
    """All values of two bytes, infinities and subnormal ones too, with each other in some order."""
    world.connect()
    wrong = []
    for kind in map(Type, kinds):
        bits = np.arange(1 << 16, dtype=np.uint16)
        orders = [bits, bits[::-1], np.roll(bits, 12345), bits ^ 0x8000]
        all_of_it = [bits] + [orders[rank % 4].copy() for rank in range(1, world.ranks)]
        if kind is Type.FLOAT16:
            all_of_it = [values.view(np.float16) for values in all_of_it]
        for op in (Op.SUM, Op.PROD, Op.AVG):
            with np.errstate(invalid="ignore"):
                expected = reference.reduce(kind, op, all_of_it)
            rest = (1 << 16, kind, op)
            got = _give(world, "ncclAllReduce", all_of_it[world.rank], expected, *rest)
            here, there = reference.widen(kind, got), reference.widen(kind, expected)
            numbers = ~np.isnan(there)
            if not (np.isnan(here) == ~numbers).all() or not _same(got[numbers], expected[numbers]):
                wrong.append(f"{op.name} {kind.name}")
    return wrong


def moves(world: World, kinds: list[int], count: int) -> list[str]:
    """What only moves values; `count` of each rank for each rank."""
    world.connect()
    wrong = []
    ranks, rank = world.ranks, world.rank
    for kind in map(Type, kinds):
        whole = [reference.contribution(kind, other, count * ranks) for other in range(ranks)]
        own, nothing = whole[rank], np.zeros_like(whole[0])
        mine = slice(rank * count, (rank + 1) * count)
        firsts = np.concatenate([values[:count] for values in whole])
        cases = {
            "ncclAllGather": (own[:count], firsts, ()),
            "ncclBroadcast": (own[:count], whole[1][:count], (root(1),)),
            "ncclAlltoAll": (own, np.concatenate([values[mine] for values in whole]), ()),
            "ncclGather": (own[:count], firsts if rank == 0 else nothing, (root(0),)),
            "ncclScatter": (own, whole[0][mine], (root(0),)),
        }
        for name, (source, expected, rest) in cases.items():
            if not _same(_give(world, name, source, expected, count, kind, *rest), expected):
                wrong.append(f"{name} {kind.name}")
    return wrong


def in_place(world: World, count: int) -> list[str]:
    """Into the buffer that it comes from, as each call allows."""
    world.connect()
    kind, ranks, rank = Type.FLOAT32, world.ranks, world.rank
    whole = [reference.contribution(kind, other, count * ranks) for other in range(ranks)]
    total = reference.reduce(kind, Op.SUM, whole)
    wrong = []
    own_part = rank * count * 4

    def part(buffer: ctypes.c_void_p) -> ctypes.c_void_p:
        return ctypes.c_void_p((buffer.value or 0) + own_part)

    def check(name: str, buffer: ctypes.c_void_p, expected: Array, at: int = 0) -> None:
        world.cuda.synchronize(world.stream)
        here = ctypes.c_void_p((buffer.value or 0) + at)
        if not _same(world.cuda.get(here, expected), expected):
            wrong.append(name)

    tail = (world.comm, world.stream)
    buffer = world.cuda.put(whole[rank])
    world.nccl.collective("ncclAllReduce", buffer, buffer, count * ranks, kind, Op.SUM, *tail)
    check("all-reduce", buffer, total)
    buffer = world.cuda.put(whole[rank])
    world.nccl.collective("ncclReduceScatter", buffer, part(buffer), count, kind, Op.SUM, *tail)
    check("reduce-scatter", buffer, total[rank * count : (rank + 1) * count], own_part)
    buffer = world.cuda.put(whole[rank])
    world.nccl.collective("ncclAllGather", part(buffer), buffer, count, kind, *tail)
    parts = [whole[other][other * count : (other + 1) * count] for other in range(ranks)]
    check("all-gather", buffer, np.concatenate(parts))
    buffer = world.cuda.put(whole[rank])
    world.nccl.collective("ncclBcast", buffer, count, kind, root(ranks - 1), *tail)
    check("broadcast", buffer, whole[ranks - 1][:count])
    return wrong


def scaled_sum(world: World, kinds: list[int]) -> list[str]:
    """Sums with a factor from the host, and from the device, where it is changed later."""
    world.connect()
    wrong = []
    for kind in map(Type, kinds):
        all_of_it = [reference.contribution(kind, rank, 999) for rank in range(world.ranks)]
        for residence, at_first in ((1, 3), (0, 5)):
            scalar = reference.narrow(kind, np.array([at_first]))
            pointer = scalar.ctypes.data_as(ctypes.c_void_p)
            if residence == 0:
                pointer = world.cuda.put(scalar)
            op = ctypes.c_int()
            arguments = (ctypes.byref(op), pointer, ctypes.c_int(kind), residence, world.comm)
            world.nccl.call("ncclRedOpCreatePreMulSum", *arguments)
            if residence == 0:
                three = reference.narrow(kind, np.array([3]))
                ctypes.memmove(pointer, three.ctypes.data, three.nbytes)
            expected = reference.reduce(kind, Op.SUM, all_of_it, factor=3)
            got = _give(world, "ncclAllReduce", all_of_it[world.rank], expected, 999, kind, op)
            if not _same(got, expected):
                wrong.append(f"{kind.name} {'host' if residence else 'device'}")
            world.nccl.call("ncclRedOpDestroy", op, world.comm)
    return wrong


# ---- what comes when --------------------------------------------------------------------------


def ones(world: World) -> tuple[ctypes.c_void_p, Array]:
    values = np.ones(ONES, np.float32)
    return world.cuda.put(values), values


def sum_in_place(world: World, buffer: ctypes.c_void_p, count: int = ONES) -> None:
    rest = (world.comm, world.stream)
    world.nccl.collective("ncclAllReduce", buffer, buffer, count, *SUM_OF_ONES, *rest)


def early_and_late(world: World) -> dict[str, Any]:
    """Rank 0 launches first, by a handshake. Its call must not wait for rank 1."""
    world.connect()
    buffer, values = ones(world)
    if world.rank == 0:
        sum_in_place(world, buffer)
        done = world.cuda.is_done(world.stream)
        world.say("launched")
    else:
        world.hear("launch")
        sum_in_place(world, buffer)
        done = False
    world.cuda.synchronize(world.stream)
    return {"done_early": done, "sum": float(world.cuda.get(buffer, values)[0])}


def work_behind(world: World) -> dict[str, Any]:
    """A copy to pinned memory behind a collective moves what that left, and not before."""
    world.connect()
    buffer, values = ones(world)
    pinned = ctypes.c_void_p()
    world.cuda.call("cudaMallocHost", ctypes.byref(pinned), ctypes.c_size_t(values.nbytes))
    ctypes.memset(pinned, 0, values.nbytes)
    seen = np.ctypeslib.as_array(ctypes.cast(pinned, ctypes.POINTER(ctypes.c_float)), shape=(ONES,))
    if world.rank == 1:
        world.hear("launch")
    sum_in_place(world, buffer)
    size = ctypes.c_size_t(values.nbytes)
    world.cuda.call("cudaMemcpyAsync", pinned, buffer, size, ctypes.c_int(2), world.stream)
    before = float(seen[0])
    if world.rank == 0:
        world.say("launched")
    world.cuda.synchronize(world.stream)
    return {"before": before, "after": float(seen[0])}


def many_in_flight(world: World, count: int) -> float:
    """Launches that nobody waits for, in place on two streams by turns; the last value."""
    world.connect()
    other = world.cuda.stream()
    buffer = world.cuda.put(np.ones(1, np.float64))
    for i in range(count):
        stream = other if i % 2 else world.stream
        arguments = (buffer, buffer, 1, Type.FLOAT64, Op.AVG, world.comm, stream)
        world.nccl.collective("ncclAllReduce", *arguments)
    for stream in (world.stream, other):
        world.cuda.synchronize(stream)
    return float(world.cuda.get(buffer, np.ones(1, np.float64))[0])


def late_by_fault(world: World) -> int:
    """When the call was made, on the clock of the log."""
    world.connect()
    buffer, _ = ones(world)
    called_ns = time.time_ns()
    sum_in_place(world, buffer)
    world.cuda.synchronize(world.stream)
    return called_ns


def missing(world: World) -> dict[str, Any]:
    """Two launches, of which the fault lets rank 1 make only the first. Then all give up."""
    world.connect()
    buffer, values = ones(world)
    sum_in_place(world, buffer)
    world.cuda.synchronize(world.stream)
    first = float(world.cuda.get(buffer, values)[0])
    sum_in_place(world, buffer)
    waits = not world.cuda.is_done(world.stream)
    aborted_ns = time.time_ns()
    world.nccl.call("ncclCommAbort", world.comm)
    world.cuda.synchronize(world.stream)
    return {"first": first, "waits": waits, "aborted_ns": aborted_ns}


def held(world: World) -> None:
    """One sum of 4 KiB, then it stays until it is told to go."""
    world.connect()
    buffer, _ = ones(world)
    sum_in_place(world, buffer)
    world.cuda.synchronize(world.stream)
    world.say("summed")
    world.hear("go")


def leave_early(world: World) -> None:
    """Ends with kernels in its stream; the last one lacks rank 1."""
    world.connect()
    buffer, _ = ones(world)
    for _ in range(100 if world.rank == 1 else 101):
        sum_in_place(world, buffer)


def peer_killed(world: World) -> dict[str, Any]:
    """The others of a rank that is killed wait until they abort."""
    world.connect()
    if world.rank == 1:
        world.say("connected")
        world.hear("never")
    world.hear("killed")
    buffer, _ = ones(world)
    sum_in_place(world, buffer)
    waits = not world.cuda.is_done(world.stream)
    world.nccl.call("ncclCommAbort", world.comm)
    world.cuda.synchronize(world.stream)
    return {"waits": waits}


# ---- groups -------------------------------------------------------------------------------------


def ring(world: World, count: int) -> bool:
    """Each sends to the next and receives of the one before, in one group: no order can lock."""
    world.connect()
    kind = Type.INT32
    own = reference.contribution(kind, world.rank, count)
    before = (world.rank - 1) % world.ranks
    source, target = world.cuda.put(own), world.cuda.put(np.zeros_like(own))
    after = root((world.rank + 1) % world.ranks)
    world.nccl.call("ncclGroupStart")
    world.nccl.collective("ncclSend", source, count, kind, after, world.comm, world.stream)
    world.nccl.collective("ncclRecv", target, count, kind, root(before), world.comm, world.stream)
    world.nccl.call("ncclGroupEnd")
    world.cuda.synchronize(world.stream)
    expected = reference.contribution(kind, before, count)
    return _same(world.cuda.get(target, expected), expected)


def ping_pong(world: World, count: int) -> bool:
    """Alone, without groups: rank 0 sends and then receives, rank 1 the other way round."""
    world.connect()
    kind = Type.FLOAT64
    expected = reference.contribution(kind, 0, count)
    buffer = world.cuda.put(expected if world.rank == 0 else np.zeros_like(expected))
    for name in ("ncclSend", "ncclRecv") if world.rank == 0 else ("ncclRecv", "ncclSend"):
        peer = root(1 - world.rank)
        world.nccl.collective(name, buffer, count, kind, peer, world.comm, world.stream)
    world.cuda.synchronize(world.stream)
    return _same(world.cuda.get(buffer, expected), expected)


def fused(world: World) -> list[float]:
    """Three collectives in a group, then one without."""
    world.connect()
    buffers = [ones(world)[0] for _ in range(4)]
    world.nccl.call("ncclGroupStart")
    world.nccl.call("ncclGroupStart")
    for buffer in buffers[:3]:
        sum_in_place(world, buffer)
    world.nccl.call("ncclGroupEnd")
    assert world.cuda.is_done(world.stream), "a group's work begins at the outermost end"
    world.nccl.call("ncclGroupEnd")
    sum_in_place(world, buffers[3])
    world.cuda.synchronize(world.stream)
    like = np.ones(1, np.float32)
    return [float(world.cuda.get(buffer, like)[0]) for buffer in buffers]


def all_devices(world: World) -> list[float]:
    """One process, one thread, a communicator for each device."""
    count = world.cuda.device_count()
    world.share_id()
    comms = world.nccl.init_all(range(count))
    devices = [world.nccl.number("ncclCommCuDevice", comm) for comm in comms]
    assert devices == list(range(count))
    streams, buffers = [], []
    for device in range(count):
        world.cuda.set_device(device)
        streams.append(world.cuda.stream())
        buffers.append(world.cuda.put(np.full(7, device, np.float32)))
    world.nccl.call("ncclGroupStart")
    for buffer, comm, stream in zip(buffers, comms, streams, strict=True):
        world.nccl.collective("ncclAllReduce", buffer, buffer, 7, *SUM_OF_ONES, comm, stream)
    world.nccl.call("ncclGroupEnd")
    results = []
    for device, stream in enumerate(streams):
        world.cuda.set_device(device)
        world.cuda.synchronize(stream)
        results.append(float(world.cuda.get(buffers[device], np.ones(7, np.float32))[6]))
    for comm in comms:
        world.nccl.call("ncclCommDestroy", comm)
    return results


def kernels(world: World) -> None:
    """One of each kind, so that the log shows their kernels."""
    world.connect()
    buffer = world.cuda.put(np.zeros(1 << 18, np.float32))
    tail = (world.comm, world.stream)
    both = (buffer, buffer)
    for kind in (Type.FLOAT32, Type.BFLOAT16, Type.INT64):
        world.nccl.collective("ncclAllReduce", *both, 1 << 16, kind, Op.MAX, *tail)
    world.nccl.collective("ncclAllReduce", *both, 64, *SUM_OF_ONES, *tail)
    world.nccl.collective("ncclReduce", *both, 64, Type.INT8, Op.SUM, root(0), *tail)
    world.nccl.collective("ncclReduceScatter", *both, 64, Type.FLOAT16, Op.AVG, *tail)
    world.nccl.collective("ncclAllGather", *both, 64, Type.UINT8, *tail)
    world.nccl.collective("ncclBroadcast", *both, 64, Type.FLOAT64, root(0), *tail)
    world.nccl.collective("ncclAlltoAll", *both, 64, Type.FLOAT64, *tail)
    world.nccl.collective("ncclAllGather", *both, 0, Type.UINT8, *tail)
    world.cuda.synchronize(world.stream)


def captured(world: World) -> list[float]:
    """An all-reduce as a node of a graph that is launched three times."""
    world.connect()
    buffer, _ = ones(world)
    graph, ready = ctypes.c_void_p(), ctypes.c_void_p()
    world.cuda.call("cudaStreamBeginCapture", world.stream, ctypes.c_int(0))
    sum_in_place(world, buffer)
    world.cuda.call("cudaStreamEndCapture", world.stream, ctypes.byref(graph))
    world.cuda.call("cudaGraphInstantiate", ctypes.byref(ready), graph, ctypes.c_ulonglong(0))
    values = []
    for _ in range(3):
        world.cuda.call("cudaGraphLaunch", ready, world.stream)
        world.cuda.synchronize(world.stream)
        values.append(float(world.cuda.get(buffer, np.ones(1, np.float32))[0]))
    sum_in_place(world, buffer)
    world.cuda.synchronize(world.stream)
    values.append(float(world.cuda.get(buffer, np.ones(1, np.float32))[0]))
    return values
