"""Decoded records to Arrow: the tables `device` and `cuda_api`.

Python runs once per distinct kernel name, copy or call, and never per row. All tables of one call
share their dictionaries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from gputap.profiler import schema
from gputap.profiler.columns import numbers
from gputap.profiler.cupti import abi
from gputap.profiler.cupti.callbacks import CALLS, Domain, name_of
from gputap.profiler.cupti.categories import Category
from gputap.profiler.cupti.decode import Decoded
from gputap.profiler.cupti.filling import (
    CATEGORIES,
    COPY_KINDS,
    MEMORY_KINDS,
    SYNC_TYPES,
    Codes,
    DeviceOfContext,
    Filled,
    Filling,
    Texts,
    ToUnix,
    id32,
    id64,
    known,
    null_if_unknown,
    nullable,
    times_of,
)
from gputap.profiler.cupti.rows import NO_ID, Rows, joined
from gputap.profiler.schema import CUDA_API, DeviceFlag, DeviceKind

if TYPE_CHECKING:
    import pyarrow as pa

_SYNC_NAMES: Final = [
    "Sync",
    "Event Sync",
    "Stream Wait Event",
    "Stream Sync",
    "Context Sync",
]
_MAX_CBID: Final = (1 << 14) - 1
"""Ids of calls beyond this one are taken as this one: garbage shall not make names without end."""

_OVERHEADS: Final = np.array(sorted(abi.OverheadKind), np.uint32)
_CALL_GROUPS: Final = {(int(c.domain), c.cbid): c.group.name.lower() for c in CALLS}
_READ: Final = {
    "kernels": "start end device_id context_id stream_id correlation_id graph_id graph_node_id name"
    " grid_x grid_y grid_z block_x block_y block_z registers_per_thread static_shared_memory"
    " dynamic_shared_memory local_memory_per_thread priority is_device_launched",
    "memcpys": "start end device_id context_id stream_id correlation_id graph_id graph_node_id"
    " bytes copy_kind src_kind dst_kind flags src_device_id dst_device_id is_device_launched",
    "memsets": "start end device_id context_id stream_id correlation_id graph_id graph_node_id"
    " bytes memory_kind flags",
    "syncs": "start end type correlation_id context_id stream_id",
    "overheads": "start end overhead_kind object_kind object_id correlation_id",
    "graph_traces": "start end device_id context_id stream_id correlation_id graph_id",
}
"""The columns that `device` is made of."""

_OBJECT_IS_ON_DEVICE: Final = 3
"""`CUpti_ActivityObjectKind` from here on: device, context, stream; the id begins with a device."""


def device_table(decoded: Sequence[Decoded], texts: Sequence[str], to_unix: ToUnix) -> pa.Table:
    """Rows of `device` from some chunks; kernels are named by their ids into `texts`."""
    count = sum(len(getattr(part, name)) for part in decoded for name in _READ)
    fill = Filling(count, to_unix, texts)
    tables = {
        name: joined(name, [getattr(part, name) for part in decoded], columns.split())
        for name, columns in _READ.items()
    }
    contexts = joined("contexts", [part.contexts for part in decoded])
    device_of = DeviceOfContext([contexts, tables["kernels"], tables["memcpys"]])
    fill.add(DeviceKind.KERNEL, tables["kernels"], _kernels(tables["kernels"], fill))
    fill.add(DeviceKind.MEMCPY, tables["memcpys"], _memcpys(tables["memcpys"], fill))
    fill.add(DeviceKind.MEMSET, tables["memsets"], _memsets(tables["memsets"], fill))
    fill.add(DeviceKind.SYNC, tables["syncs"], _syncs(tables["syncs"], fill, device_of))
    fill.add(DeviceKind.OVERHEAD, tables["overheads"], _overheads(tables["overheads"], fill))
    fill.add(DeviceKind.GRAPH, tables["graph_traces"], _graphs(tables["graph_traces"], fill))
    return fill.table()


def cuda_api_table(decoded: Sequence[Decoded], to_unix: ToUnix) -> pa.Table:
    """Rows of `cuda_api` from some chunks."""
    import pyarrow as pa

    rows = joined("api_calls", [part.api_calls for part in decoded])
    start, duration = times_of(rows, to_unix)
    order = np.lexsort((-duration, start, rows["thread_id"]))
    # What is called is told by two numbers: looked up once for each pair that occurs.
    cbid = np.minimum(rows["cbid"], _MAX_CBID)
    which = rows["kind"].astype(np.uint32) * np.uint32(_MAX_CBID + 1) + cbid
    pairs, of_row = np.unique(which, return_inverse=True)
    calls = [(_domain(pair // (_MAX_CBID + 1)), pair % (_MAX_CBID + 1)) for pair in pairs.tolist()]
    names, groups = Texts(), Texts()
    name = np.array([names.code(_call_name(*call)) for call in calls], np.int32)
    group = np.array([groups.code(_CALL_GROUPS.get(call)) for call in calls], np.int32)
    target = schema.arrow_schema(CUDA_API)
    columns = {
        "start_ns": numbers(start[order]),
        "duration_ns": numbers(duration[order]),
        "tid": numbers(rows["thread_id"][order].view(np.int32)),
        "name": names.column(name[of_row[order]]),
        "correlation_id": nullable(id64(rows["correlation_id"])[order]),
        "group": groups.column(group[of_row[order]]),
        "return_value": numbers(rows["return_value"][order].view(np.int32)),
    }
    return pa.Table.from_arrays([columns[f.name] for f in target], schema=target)


# ------------------------------------------------------------------------------- one kind each


def _kernels(rows: Rows, fill: Filling) -> Filled:
    return {
        **fill.kernel_names(rows["name"]),
        **_on_stream(rows),
        **_in_graph(rows),
        "grid_x": rows["grid_x"],
        "grid_y": rows["grid_y"],
        "grid_z": rows["grid_z"],
        "block_x": rows["block_x"],
        "block_y": rows["block_y"],
        "block_z": rows["block_z"],
        "registers": rows["registers_per_thread"],
        "static_shared": rows["static_shared_memory"],
        "dynamic_shared": rows["dynamic_shared_memory"],
        "local_bytes": id32(rows["local_memory_per_thread"]),
        "priority": rows["priority"],
        "flags": (rows["is_device_launched"] != 0) * np.int8(DeviceFlag.DEVICE_LAUNCHED),
    }


def _memcpys(rows: Rows, fill: Filling) -> Filled:
    copy = known(rows["copy_kind"], len(COPY_KINDS))
    source, target = (known(rows[f"{end}_kind"], len(MEMORY_KINDS)) for end in ("src", "dst"))
    other = np.where(
        rows["dst_device_id"] == rows["device_id"], rows["src_device_id"], rows["dst_device_id"]
    )
    return {
        **_copy_names(fill, copy, source, target),
        "category": CATEGORIES.index(Category.MEMORY),
        **_on_stream(rows),
        **_in_graph(rows),
        "bytes": id64(rows["bytes"], none=None),
        "copy_kind": null_if_unknown(copy),
        "src_kind": null_if_unknown(source),
        "dst_kind": null_if_unknown(target),
        "peer_device_id": id32(other),
        "flags": (rows["flags"] & 1).astype(np.int8)
        | (rows["is_device_launched"] != 0) * np.int8(DeviceFlag.DEVICE_LAUNCHED),
    }


def _memsets(rows: Rows, fill: Filling) -> Filled:
    target = known(rows["memory_kind"], len(MEMORY_KINDS))
    names = [f"Memset ({_label(kind)})" for kind in MEMORY_KINDS]
    return {
        **fill.names(names, target),
        "category": CATEGORIES.index(Category.MEMORY),
        **_on_stream(rows),
        **_in_graph(rows),
        "bytes": id64(rows["bytes"], none=None),
        "dst_kind": null_if_unknown(target),
        "flags": (rows["flags"] & 1).astype(np.int8),
    }


def _syncs(rows: Rows, fill: Filling, device_of: DeviceOfContext) -> Filled:
    kind = known(rows["type"], len(SYNC_TYPES))
    return {
        **fill.names(_SYNC_NAMES, kind),
        "device_id": device_of(rows["context_id"]),
        "context_id": id32(rows["context_id"]),
        "stream_id": id32(rows["stream_id"]),
        "correlation_id": id64(rows["correlation_id"]),
        "sync_type": null_if_unknown(kind),
    }


def _overheads(rows: Rows, fill: Filling) -> Filled:
    at = np.searchsorted(_OVERHEADS, rows["overhead_kind"])
    is_known = _OVERHEADS.take(at, mode="clip") == rows["overhead_kind"]
    names = [abi.OverheadKind(kind).name.replace("_", " ").title() for kind in _OVERHEADS.tolist()]
    names[0] = "Overhead"
    device = np.where(rows["object_kind"] >= _OBJECT_IS_ON_DEVICE, rows["object_id"], NO_ID)
    return {
        **fill.names(names, np.where(is_known, at, 0).astype(np.int32)),
        "device_id": id32(device),
        "correlation_id": id64(rows["correlation_id"]),
    }


def _graphs(rows: Rows, fill: Filling) -> Filled:
    return {
        **fill.names(["Graph Launch"], np.zeros(len(rows), np.int32)),
        **_on_stream(rows),
        "graph_id": id64(rows["graph_id"]),
    }


def _on_stream(rows: Rows) -> Filled:
    return {
        "device_id": id32(rows["device_id"]),
        "context_id": id32(rows["context_id"]),
        "stream_id": id32(rows["stream_id"]),
        "correlation_id": id64(rows["correlation_id"]),
    }


def _in_graph(rows: Rows) -> Filled:
    return {
        "graph_id": id64(rows["graph_id"]),
        "graph_node_id": id64(rows["graph_node_id"]),
    }


def _copy_names(fill: Filling, copy: Codes, source: Codes, target: Codes) -> Filled:
    """Names of copies, e.g. `Memcpy HtoD (Pinned -> Device)`."""
    memories = len(MEMORY_KINDS)
    which, of_row = np.unique((copy * memories + source) * memories + target, return_inverse=True)
    names = [
        f"Memcpy {_copy_label(n // memories**2)}"
        f" ({_label(MEMORY_KINDS[n // memories % memories])}"
        f" -> {_label(MEMORY_KINDS[n % memories])})"
        for n in which.tolist()
    ]
    return fill.names(names, of_row.astype(np.int32))


def _label(name: str) -> str:
    """`device_static` to `Device Static`."""
    return name.replace("_", " ").title()


def _copy_label(kind: int) -> str:
    """`HtoD`; `?` for the unknown kind."""
    name = COPY_KINDS[kind]
    return f"{name[0].upper()}to{name[-1].upper()}" if kind else "?"


def _domain(kind: int) -> int:
    """The domain of a call by the kind of its record; 0 for launches that CUDA does by itself."""
    domains = {
        abi.ActivityKind.DRIVER: Domain.DRIVER,
        abi.ActivityKind.RUNTIME: Domain.RUNTIME,
    }
    return int(domains.get(abi.ActivityKind(kind), 0))


def _call_name(domain: int, cbid: int) -> str:
    return name_of(domain, cbid) if domain else f"internal#{cbid}"
