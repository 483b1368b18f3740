"""CUPTI's activity records as facts: kinds, sizes and offsets, by CUDA version.

Written down from the documented structures; `tools/check_cupti_abi.py` compares every number with
the headers in NVIDIA's wheels, from 11.8 to the newest. From here come the constants of the agent
(`injectors/library/native/device_abi.h`, by `make gen`) and the decoder.

Two rules hold for all versions from 11.8 on. What is delivered for a kind only grows at its end, so
a field that was ever there stays where it is. And a record holds no size of its own: a reader of
another version loses its way, so the agent, which steps with the loaded library, notes each
record's size.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final, TypeAlias

Version: TypeAlias = tuple[int, int]
"""CUDA version that a CUPTI belongs to, e.g. (12, 8)."""

OLDEST: Final[Version] = (11, 8)


class ActivityKind(IntEnum):
    """`CUpti_ActivityKind`: the first word of every record."""

    MEMCPY = 1
    MEMSET = 2
    KERNEL = 3
    DRIVER = 4
    RUNTIME = 5
    DEVICE = 8
    CONTEXT = 9
    CONCURRENT_KERNEL = 10
    OVERHEAD = 17
    MEMCPY2 = 22
    """From device to device; its record is another one than MEMCPY's."""
    STREAM = 37
    SYNCHRONIZATION = 38
    EXTERNAL_CORRELATION = 39
    INTERNAL_LAUNCH_API = 48
    MEMORY2 = 49
    MEMORY_POOL = 50
    GRAPH_TRACE = 51


class MemcpyKind(IntEnum):
    """`CUpti_ActivityMemcpyKind`: A is an array."""

    UNKNOWN = 0
    HTOD = 1
    DTOH = 2
    HTOA = 3
    ATOH = 4
    ATOA = 5
    ATOD = 6
    DTOA = 7
    DTOD = 8
    HTOH = 9
    PTOP = 10


class MemoryKind(IntEnum):
    """`CUpti_ActivityMemoryKind`."""

    UNKNOWN = 0
    PAGEABLE = 1
    PINNED = 2
    DEVICE = 3
    ARRAY = 4
    MANAGED = 5
    DEVICE_STATIC = 6
    MANAGED_STATIC = 7


class SynchronizationType(IntEnum):
    """`CUpti_ActivitySynchronizationType`."""

    UNKNOWN = 0
    EVENT_SYNCHRONIZE = 1
    STREAM_WAIT_EVENT = 2
    STREAM_SYNCHRONIZE = 3
    CONTEXT_SYNCHRONIZE = 4


class OverheadKind(IntEnum):
    """`CUpti_ActivityOverheadKind`: what CUPTI and the driver cost by themselves."""

    UNKNOWN = 0
    DRIVER_COMPILER = 1
    CUPTI_BUFFER_FLUSH = 1 << 16
    CUPTI_INSTRUMENTATION = 2 << 16
    CUPTI_RESOURCE = 3 << 16
    RUNTIME_TRIGGERED_MODULE_LOADING = 4 << 16
    LAZY_FUNCTION_LOADING = 5 << 16
    COMMAND_BUFFER_FULL = 6 << 16
    ACTIVITY_BUFFER_REQUEST = 7 << 16
    UVM_ACTIVITY_INIT = 8 << 16


class Result(IntEnum):
    """`CUptiResult`: the ones that have a meaning of their own for gputap."""

    SUCCESS = 0
    INVALID_PARAMETER = 1
    MAX_LIMIT_REACHED = 12
    NOT_INITIALIZED = 15
    MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED = 39
    UNKNOWN = 999


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a record: NumPy type code and where it is."""

    name: str
    type: str
    offset: int
    since: Version = OLDEST
    """Before, there was padding, or nothing."""


@dataclass(frozen=True, slots=True)
class Record:
    """What is delivered for some kinds."""

    name: str
    struct: str
    """`CUpti_Activity...`, without the number of its generation."""
    kinds: tuple[ActivityKind, ...]
    sizes: tuple[tuple[Version, int], ...]
    """Bytes, from which version on; ascending."""
    fields: tuple[Field, ...]

    def size(self, version: Version) -> int:
        """Bytes in CUDA `version`. Later than all that are known: as in the latest."""
        return [size for since, size in self.sizes if since <= max(version, OLDEST)][-1]

    def field(self, name: str) -> Field:
        """A field by its name. Raises KeyError."""
        for field in self.fields:
            if field.name == name:
                return field
        raise KeyError(name)


def _fields(text: str, **since: Version) -> tuple[Field, ...]:
    """Fields from `name:type@offset` words."""
    found = []
    for word in text.split():
        name, _, rest = word.partition(":")
        kind, _, offset = rest.partition("@")
        found.append(Field(name, f"<{kind}", int(offset), since.get(name, OLDEST)))
    return tuple(found)


KERNEL: Final = Record(
    "kernel",
    "Kernel",
    (ActivityKind.KERNEL, ActivityKind.CONCURRENT_KERNEL),
    (
        ((11, 8), 200),
        ((12, 0), 208),
        ((13, 0), 216),
        ((13, 1), 224),
        ((13, 3), 232),
        ((13, 4), 248),
    ),
    _fields(
        "registersPerThread:u2@6 start:u8@16 end:u8@24 completed:u8@32 deviceId:u4@40"
        " contextId:u4@44 streamId:u4@48 gridX:i4@52 gridY:i4@56 gridZ:i4@60 blockX:i4@64"
        " blockY:i4@68 blockZ:i4@72 staticSharedMemory:i4@76 dynamicSharedMemory:i4@80"
        " localMemoryPerThread:u4@84 correlationId:u4@92 gridId:i8@96 name:u8@104 queued:u8@120"
        " submitted:u8@128 launchType:u1@136 graphNodeId:u8@144 graphId:u4@156 channelID:u4@168"
        " channelType:u4@172 clusterX:u4@176 clusterY:u4@180 clusterZ:u4@184"
        " isDeviceLaunched:u1@208 priority:i4@216",
        isDeviceLaunched=(13, 0),
        priority=(13, 1),
    ),
)

MEMCPY: Final = Record(
    "memcpy",
    "Memcpy",
    (ActivityKind.MEMCPY,),
    (((11, 8), 88), ((12, 8), 96), ((13, 4), 112)),
    _fields(
        "copyKind:u1@4 srcKind:u1@5 dstKind:u1@6 flags:u1@7 bytes:u8@8 start:u8@16 end:u8@24"
        " deviceId:u4@32 contextId:u4@36 streamId:u4@40 correlationId:u4@44 graphNodeId:u8@64"
        " graphId:u4@72 channelID:u4@76 channelType:u4@80 isDeviceLaunched:u1@84 copyCount:u8@88",
        isDeviceLaunched=(13, 0),
        copyCount=(12, 8),
    ),
)

MEMCPY_PTOP: Final = Record(
    "memcpy_ptop",
    "MemcpyPtoP",
    (ActivityKind.MEMCPY2,),
    (((11, 8), 96),),
    _fields(
        "copyKind:u1@4 srcKind:u1@5 dstKind:u1@6 flags:u1@7 bytes:u8@8 start:u8@16 end:u8@24"
        " deviceId:u4@32 contextId:u4@36 streamId:u4@40 srcDeviceId:u4@44 srcContextId:u4@48"
        " dstDeviceId:u4@52 dstContextId:u4@56 correlationId:u4@60 graphNodeId:u8@72 graphId:u4@80"
        " channelID:u4@84 channelType:u4@88"
    ),
)

MEMSET: Final = Record(
    "memset",
    "Memset",
    (ActivityKind.MEMSET,),
    (((11, 8), 88), ((13, 4), 104)),
    _fields(
        "value:u4@4 bytes:u8@8 start:u8@16 end:u8@24 deviceId:u4@32 contextId:u4@36 streamId:u4@40"
        " correlationId:u4@44 flags:u2@48 memoryKind:u2@50 graphNodeId:u8@64 graphId:u4@72"
        " channelID:u4@76 channelType:u4@80"
    ),
)

API: Final = Record(
    "api",
    "API",
    (ActivityKind.DRIVER, ActivityKind.RUNTIME, ActivityKind.INTERNAL_LAUNCH_API),
    (((11, 8), 40),),
    _fields(
        "cbid:u4@4 start:u8@8 end:u8@16 processId:u4@24 threadId:u4@28 correlationId:u4@32"
        " returnValue:u4@36"
    ),
)

SYNCHRONIZATION: Final = Record(
    "synchronization",
    "Synchronization",
    (ActivityKind.SYNCHRONIZATION,),
    (((11, 8), 40), ((12, 8), 56)),
    _fields(
        "type:u4@4 start:u8@8 end:u8@16 correlationId:u4@24 contextId:u4@28 streamId:u4@32"
        " cudaEventId:u4@36 cudaEventSyncId:u8@40 returnValue:u4@48",
        cudaEventSyncId=(12, 8),
        returnValue=(12, 8),
    ),
)

OVERHEAD: Final = Record(
    "overhead",
    "Overhead",
    (ActivityKind.OVERHEAD,),
    (((11, 8), 40), ((12, 3), 48), ((12, 4), 56)),
    _fields(
        "overheadKind:u4@4 objectKind:u4@8 objectId:u4@12 start:u8@24 end:u8@32"
        " correlationId:u4@40 overheadData:u8@48",
        correlationId=(12, 3),
        overheadData=(12, 4),
    ),
)

EXTERNAL_CORRELATION: Final = Record(
    "external_correlation",
    "ExternalCorrelation",
    (ActivityKind.EXTERNAL_CORRELATION,),
    (((11, 8), 24),),
    _fields("externalKind:u4@4 externalId:u8@8 correlationId:u4@16"),
)

GRAPH_TRACE: Final = Record(
    "graph_trace",
    "GraphTrace",
    (ActivityKind.GRAPH_TRACE,),
    (((11, 8), 48), ((12, 3), 56)),
    _fields(
        "correlationId:u4@4 start:u8@8 end:u8@16 deviceId:u4@24 graphId:u4@28 contextId:u4@32"
        " streamId:u4@36"
    ),
)

CONTEXT: Final = Record(
    "context",
    "Context",
    (ActivityKind.CONTEXT,),
    (((11, 8), 16), ((12, 4), 24), ((12, 5), 32), ((13, 1), 40)),
    _fields("contextId:u4@4 deviceId:u4@8 computeApiKind:u2@12 nullStreamId:u2@14"),
)

STREAM: Final = Record(
    "stream",
    "Stream",
    (ActivityKind.STREAM,),
    (((11, 8), 24),),
    _fields("contextId:u4@4 streamId:u4@8 priority:u4@12 flag:u4@16 correlationId:u4@20"),
)

DEVICE: Final = Record(
    "device",
    "Device",
    (ActivityKind.DEVICE,),
    (((11, 8), 176), ((12, 2), 184), ((13, 2), 192)),
    _fields(
        "flags:u4@4 globalMemoryBandwidth:u8@8 globalMemorySize:u8@16 numMultiprocessors:u4@44"
        " computeCapabilityMajor:u4@104 computeCapabilityMinor:u4@108 id:u4@112 name:u8@136"
    ),
)

MEMORY: Final = Record(
    "memory",
    "Memory",
    (ActivityKind.MEMORY2,),
    (((11, 8), 120), ((12, 6), 128)),
    _fields(
        "memoryOperationType:u4@4 memoryKind:u4@8 correlationId:u4@12 address:u8@16 bytes:u8@24"
        " timestamp:u8@32 PC:u8@40 processId:u4@48 deviceId:u4@52 contextId:u4@56 streamId:u4@60"
        " name:u8@64"
    ),
)

MEMORY_POOL: Final = Record(
    "memory_pool",
    "MemoryPool",
    (ActivityKind.MEMORY_POOL,),
    (((11, 8), 72), ((13, 0), 80)),
    _fields(
        "memoryPoolOperationType:u4@4 memoryPoolType:u4@8 correlationId:u4@12 processId:u4@16"
        " deviceId:u4@20 minBytesToKeep:u8@24 address:u8@32 size:u8@40 releaseThreshold:u8@48"
        " timestamp:u8@56"
    ),
)

RECORDS: Final = (
    KERNEL,
    MEMCPY,
    MEMCPY_PTOP,
    MEMSET,
    API,
    SYNCHRONIZATION,
    OVERHEAD,
    EXTERNAL_CORRELATION,
    GRAPH_TRACE,
    CONTEXT,
    STREAM,
    DEVICE,
    MEMORY,
    MEMORY_POOL,
)

BY_KIND: Final = {kind: record for record in RECORDS for kind in record.kinds}

API_VERSIONS: Final[dict[int, tuple[Version, ...]]] = {
    18: ((11, 8), (12, 0), (12, 1)),
    20: ((12, 2),),
    21: ((12, 3),),
    22: ((12, 4),),
    23: ((12, 5),),
    24: ((12, 6),),
    26: ((12, 8),),
    28: ((12, 9),),
}
"""What `cuptiGetVersion` says, before CUDA 13; 18 stands for several versions."""


def version_of(api_version: int, soname: str = "") -> Version:
    """CUDA version by what `cuptiGetVersion` says, and the library's name where that is not enough.

    From 13 on the number is major * 10000 + minor * 100 + revision. Numbers between the known
    ones are those of the next lower one, unknown old ones are the oldest.
    """
    if api_version >= 100_000:
        return api_version // 10_000, api_version // 100 % 100
    known = max((n for n in API_VERSIONS if n <= api_version), default=min(API_VERSIONS))
    versions = API_VERSIONS[known]
    return versions[0] if ".11." in soname or len(versions) == 1 else versions[-1]
