"""Decoded records become exactly these rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gputap.profiler import schema
from gputap.profiler.cupti.abi import ActivityKind, MemcpyKind, MemoryKind, OverheadKind
from gputap.profiler.cupti.decode import Decoded, decode
from gputap.profiler.cupti.tables import cuda_api_table, device_table
from gputap.profiler.schema import CUDA_API, DEVICE
from tests.unit.profiler.cupti.packing import chunk, record, timed

V = (13, 1)
K = ActivityKind
NO = 0xFFFFFFFF
TEXTS = [
    "",
    "_Z9my_kernelPfi",
    "ampere_sgemm_128x64_tn",
    "_Z9my_kernelPfi",
]
ON = {"deviceId": 1, "contextId": 2, "streamId": 7, "correlationId": 99}


def later(times: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    assert times.dtype == np.int64
    return times + 1000


def device(raw: Sequence[bytes], texts: Sequence[str] = TEXTS) -> pa.Table:
    found = device_table([decode(*chunk(raw, V))], texts, later)
    found.validate(full=True)
    assert found.schema.equals(schema.arrow_schema(DEVICE), check_metadata=True)
    return found


def filled(row: dict[str, Any]) -> dict[str, Any]:
    """What is not null."""
    return {name: value for name, value in row.items() if value is not None}


def test_a_kernel() -> None:
    raw = timed(
        K.CONCURRENT_KERNEL,
        V,
        100,
        350,
        **ON,
        name=1,
        gridX=1,
        gridY=2,
        gridZ=3,
        blockX=4,
        blockY=5,
        blockZ=6,
        registersPerThread=32,
        staticSharedMemory=48,
        dynamicSharedMemory=1024,
        localMemoryPerThread=16,
        graphId=5,
        graphNodeId=1 << 40,
        priority=-2,
    )
    (row,) = device([raw]).to_pylist()
    assert filled(row) == {
        "start_ns": 1100,
        "duration_ns": 250,
        "kind": "kernel",
        "name": "my_kernel(float*, int)",
        "short_name": "my_kernel",
        "category": "other",
        "device_id": 1,
        "context_id": 2,
        "stream_id": 7,
        "correlation_id": 99,
        "graph_id": 5,
        "graph_node_id": 1 << 40,
        "grid_x": 1,
        "grid_y": 2,
        "grid_z": 3,
        "block_x": 4,
        "block_y": 5,
        "block_z": 6,
        "registers": 32,
        "static_shared": 48,
        "dynamic_shared": 1024,
        "local_bytes": 16,
        "priority": -2,
        "flags": 0,
    }


def test_a_copy() -> None:
    raw = timed(
        K.MEMCPY,
        V,
        100,
        350,
        **ON,
        copyKind=MemcpyKind.HTOD,
        srcKind=MemoryKind.PINNED,
        dstKind=MemoryKind.DEVICE,
        flags=1,
        bytes=1 << 33,
    )
    (row,) = device([raw]).to_pylist()
    assert filled(row) == {
        "start_ns": 1100,
        "duration_ns": 250,
        "kind": "memcpy",
        "name": "Memcpy HtoD (Pinned -> Device)",
        "short_name": "Memcpy HtoD (Pinned -> Device)",
        "category": "memory",
        "device_id": 1,
        "context_id": 2,
        "stream_id": 7,
        "correlation_id": 99,
        "bytes": 1 << 33,
        "copy_kind": "htod",
        "src_kind": "pinned",
        "dst_kind": "device",
        "flags": 1,
    }


def test_a_copy_between_devices_by_the_one_that_reads_and_the_one_that_writes() -> None:
    raw = [
        timed(
            K.MEMCPY2,
            V,
            start,
            start + 1,
            deviceId=own,
            srcDeviceId=1,
            dstDeviceId=2,
            copyKind=MemcpyKind.PTOP,
            srcKind=MemoryKind.DEVICE,
            dstKind=MemoryKind.DEVICE,
        )
        for start, own in ((10, 1), (20, 2))
    ]
    table = device(raw)
    assert table["device_id"].to_pylist() == [1, 2]
    assert table["peer_device_id"].to_pylist() == [2, 1]
    assert table["copy_kind"].to_pylist() == ["ptop", "ptop"]
    assert table["name"].to_pylist() == ["Memcpy PtoP (Device -> Device)"] * 2


def test_a_fill() -> None:
    raw = timed(K.MEMSET, V, 1, 4, **ON, bytes=64, memoryKind=MemoryKind.MANAGED_STATIC, flags=1)
    (row,) = device([raw]).to_pylist()
    assert row["kind"] == "memset"
    assert row["name"] == "Memset (Managed Static)"
    assert (row["bytes"], row["dst_kind"], row["src_kind"]) == (64, "managed_static", None)
    assert (row["flags"], row["graph_id"], row["priority"]) == (1, None, None)


def test_waits_are_on_the_device_of_their_context() -> None:
    raw = [
        record(K.CONTEXT, V, contextId=2, deviceId=3),
        timed(K.KERNEL, V, 1, 2, deviceId=4, contextId=5, streamId=7),
        timed(K.SYNCHRONIZATION, V, 10, 40, type=3, contextId=2, streamId=7, correlationId=8),
        timed(K.SYNCHRONIZATION, V, 50, 60, type=4, contextId=5, streamId=NO),
        timed(K.SYNCHRONIZATION, V, 70, 80, type=1, contextId=6, streamId=NO),
        timed(K.SYNCHRONIZATION, V, 90, 95, type=2, contextId=2, streamId=9),
        timed(K.SYNCHRONIZATION, V, 96, 97, type=77, contextId=2, streamId=9),
    ]
    rows = [row for row in device(raw).to_pylist() if row["kind"] == "sync"]
    names = ("start_ns", "name", "sync_type", "device_id", "stream_id", "correlation_id")
    assert [tuple(row[name] for name in names) for row in rows] == [
        (1010, "Stream Sync", "stream", 3, 7, 8),
        (1090, "Stream Wait Event", "stream_wait", 3, 9, None),
        (1096, "Sync", None, 3, 9, None),
        (1050, "Context Sync", "context", 4, None, None),
        (1070, "Event Sync", "event", None, None, None),
    ]


def test_overheads() -> None:
    raw = [
        timed(K.OVERHEAD, V, 1, 2, overheadKind=OverheadKind.COMMAND_BUFFER_FULL, objectKind=2),
        timed(K.OVERHEAD, V, 3, 4, overheadKind=77, objectKind=5, objectId=6, correlationId=9),
    ]
    rows = device(raw).to_pylist()
    names = ("start_ns", "kind", "name", "device_id", "correlation_id")
    assert [tuple(row[name] for name in names) for row in rows] == [
        (1003, "overhead", "Overhead", 6, 9),
        (1001, "overhead", "Command Buffer Full", None, None),
    ]


def test_a_graph_launch_as_one() -> None:
    (row,) = device([timed(K.GRAPH_TRACE, V, 1, 9, **ON, graphId=4)]).to_pylist()
    assert (row["kind"], row["name"], row["graph_id"], row["graph_node_id"], row["category"]) == (
        "graph",
        "Graph Launch",
        4,
        None,
        None,
    )


def test_rows_are_sorted_by_device_stream_and_start_over_all_kinds_and_chunks() -> None:
    places = [(1, 7, 5), (0, 9, 3), (1, 7, 2), (0, NO, 1), (NO, 1, 1), (0, 7, 9), (0, 7, 4)]
    kinds = [K.KERNEL, K.MEMCPY, K.MEMSET, K.GRAPH_TRACE]
    parts = [
        decode(*chunk([timed(kinds[i % 4], V, start, start, deviceId=device, streamId=stream)], V))
        for i, (device, stream, start) in enumerate(places)
    ]
    table = device_table(parts, TEXTS, lambda times: times)
    columns = (table[name].to_pylist() for name in ("device_id", "stream_id", "start_ns"))
    assert list(zip(*columns, strict=True)) == [
        (0, 7, 4),
        (0, 7, 9),
        (0, 9, 3),
        (0, None, 1),
        (1, 7, 2),
        (1, 7, 5),
        (None, 1, 1),
    ]


def test_names_by_id() -> None:
    ids = [2, 3, 1, 0, 4, (1 << 64) - 1]
    raw = [timed(K.KERNEL, V, 1 + i, 2 + i, name=name) for i, name in enumerate(ids)]
    table = device(raw)
    gemm, own = "ampere_sgemm_128x64_tn", "my_kernel(float*, int)"
    assert table["name"].to_pylist() == [gemm, own, own, None, None, None]
    assert table["category"].to_pylist() == ["gemm", "other", "other", None, None, None]
    # Equal names share a code, whatever their ids; and only what is used is in the dictionary.
    assert sorted(table["name"].chunk(0).dictionary.to_pylist()) == sorted([gemm, own])
    assert device(raw, [])["name"].null_count == len(ids)


def test_numbers_too_large_for_their_column_are_null() -> None:
    raw = [
        timed(K.MEMCPY, V, 1, 2, bytes=1 << 63, deviceId=1 << 31, graphNodeId=(1 << 64) - 1),
        timed(K.KERNEL, V, 1, 2, correlationId=NO, localMemoryPerThread=NO, name=1 << 63),
    ]
    kernel, copy = device(raw).to_pylist()
    assert (copy["bytes"], copy["device_id"], copy["graph_node_id"]) == (None, None, None)
    assert (kernel["correlation_id"], kernel["local_bytes"]) == (NO, None)


def test_unknown_memories_are_null_and_a_question() -> None:
    (row,) = device([timed(K.MEMCPY, V, 1, 2, copyKind=200, srcKind=99)]).to_pylist()
    assert row["name"] == "Memcpy ? (Unknown -> Unknown)"
    assert (row["copy_kind"], row["src_kind"], row["dst_kind"]) == (None, None, None)


def test_no_duration_is_below_zero_where_the_clock_was_set_back() -> None:
    raw = [timed(K.KERNEL, V, 10, 30)]
    table = device_table(
        [decode(*chunk(raw, V))], TEXTS, lambda times: np.where(times > 20, times - 50, times)
    )
    assert table["duration_ns"].to_pylist() == [0]


def test_nothing() -> None:
    for table, declared in (
        (device_table([], [], later), DEVICE),
        (device_table([Decoded()], [], later), DEVICE),
        (cuda_api_table([], later), CUDA_API),
        (cuda_api_table([Decoded()], later), CUDA_API),
    ):
        table.validate(full=True)
        assert table.num_rows == 0
        assert table.schema.equals(schema.arrow_schema(declared))


def test_calls() -> None:
    raw = [
        timed(K.DRIVER, V, 21, 25, cbid=307, threadId=44, correlationId=9),
        timed(K.RUNTIME, V, 20, 30, cbid=211, threadId=44, correlationId=9, returnValue=2),
        timed(K.RUNTIME, V, 20, 40, cbid=41, threadId=44, correlationId=8),
        timed(K.RUNTIME, V, 5, 6, cbid=9999, threadId=44),
        timed(K.RUNTIME, V, 90, 91, cbid=NO, threadId=3),
        timed(K.INTERNAL_LAUNCH_API, V, 95, 96, cbid=1, threadId=3),
    ]
    table = cuda_api_table([decode(*chunk(raw, V))], later)
    table.validate(full=True)
    assert table.schema.equals(schema.arrow_schema(CUDA_API), check_metadata=True)
    names = tuple(column.name for column in CUDA_API.columns)
    assert [tuple(row[name] for name in names) for row in table.to_pylist()] == [
        (1090, 1, 3, "cuda#16383", None, None, 0),
        (1095, 1, 3, "internal#1", None, None, 0),
        (1005, 1, 44, "cuda#9999", None, None, 0),
        (1020, 20, 44, "cudaMemcpyAsync", 8, "copy", 0),
        (1020, 10, 44, "cudaLaunchKernel", 9, "launch", 2),
        (1021, 4, 44, "cuLaunchKernel", 9, "launch", 0),
    ]
