"""NCCL and the CUDA runtime by ctypes, as programs use them: simulated or real ones."""

from __future__ import annotations

import ctypes
import enum
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class Type(enum.IntEnum):
    """ncclDataType_t."""

    INT8 = 0
    UINT8 = 1
    INT32 = 2
    UINT32 = 3
    INT64 = 4
    UINT64 = 5
    FLOAT16 = 6
    FLOAT32 = 7
    FLOAT64 = 8
    BFLOAT16 = 9
    FLOAT8E4M3 = 10
    FLOAT8E5M2 = 11


class Op(enum.IntEnum):
    """ncclRedOp_t."""

    SUM = 0
    PROD = 1
    MAX = 2
    MIN = 3
    AVG = 4


class Result(enum.IntEnum):
    """ncclResult_t."""

    SUCCESS = 0
    UNHANDLED_CUDA_ERROR = 1
    SYSTEM_ERROR = 2
    INTERNAL_ERROR = 3
    INVALID_ARGUMENT = 4
    INVALID_USAGE = 5
    REMOTE_ERROR = 6
    IN_PROGRESS = 7


DTYPES = {
    Type.INT8: np.int8,
    Type.UINT8: np.uint8,
    Type.INT32: np.int32,
    Type.UINT32: np.uint32,
    Type.INT64: np.int64,
    Type.UINT64: np.uint64,
    Type.FLOAT16: np.float16,
    Type.FLOAT32: np.float32,
    Type.FLOAT64: np.float64,
}
TYPES = {np.dtype(dtype): number for number, dtype in DTYPES.items()}
NOT_READY = 600
NON_BLOCKING = 1


class UniqueId(ctypes.Structure):
    """ncclUniqueId."""

    _fields_ = (("internal", ctypes.c_ubyte * 128),)


class Config(ctypes.Structure):
    """ncclConfig_t of 2.28, undefined but for its head."""

    _fields_ = (
        ("size", ctypes.c_size_t),
        ("magic", ctypes.c_uint),
        ("version", ctypes.c_uint),
        ("blocking", ctypes.c_int),
        ("cga_and_ctas", ctypes.c_int * 3),
        ("net_name", ctypes.c_void_p),
        ("split_share", ctypes.c_int),
        ("traffic_class", ctypes.c_int),
        ("comm_name", ctypes.c_void_p),
        ("rest", ctypes.c_int * 6),
    )

    def __init__(self, *, blocking: int) -> None:
        undefined = -(2**31)
        super().__init__(
            ctypes.sizeof(Config), 0xCAFEBEEF, 22809, blocking, (undefined,) * 3, None, undefined,
            undefined, None, (undefined,) * 6,
        )  # fmt: skip


class CudaError(Exception):
    """A call of the CUDA runtime failed."""


class NcclError(Exception):
    """A call of NCCL failed."""

    def __init__(self, name: str, result: int, text: str) -> None:
        self.result = Result(result)
        super().__init__(f"{name}: {self.result.name} ({text})")


class Cuda:
    """The calls of the CUDA runtime that the tests need."""

    def __init__(self, folder: Path | None) -> None:
        name = "libcudart.so.13"
        self.library = ctypes.CDLL(str(folder / name) if folder else name)

    def call(self, name: str, *arguments: Any) -> None:
        code = getattr(self.library, name)(*arguments)
        if code:
            raise CudaError(f"{name}: {code}")

    def device_count(self) -> int:
        count = ctypes.c_int()
        self.call("cudaGetDeviceCount", ctypes.byref(count))
        return count.value

    def set_device(self, device: int) -> None:
        self.call("cudaSetDevice", ctypes.c_int(device))

    def stream(self) -> ctypes.c_void_p:
        stream = ctypes.c_void_p()
        flags = ctypes.c_uint(NON_BLOCKING)
        self.call("cudaStreamCreateWithFlags", ctypes.byref(stream), flags)
        return stream

    def synchronize(self, stream: ctypes.c_void_p) -> None:
        self.call("cudaStreamSynchronize", stream)

    def is_done(self, stream: ctypes.c_void_p) -> bool:
        code = self.library.cudaStreamQuery(stream)
        if code not in (0, NOT_READY):
            raise CudaError(f"cudaStreamQuery: {code}")
        return bool(code == 0)

    def allocate(self, size: int) -> ctypes.c_void_p:
        pointer = ctypes.c_void_p()
        self.call("cudaMalloc", ctypes.byref(pointer), ctypes.c_size_t(max(size, 1)))
        return pointer

    def put(self, array: Array) -> ctypes.c_void_p:
        """Device memory with the array's values."""
        pointer = self.allocate(array.nbytes)
        whole = np.ascontiguousarray(array)
        source = whole.ctypes.data_as(ctypes.c_void_p)
        self.call("cudaMemcpy", pointer, source, ctypes.c_size_t(array.nbytes), ctypes.c_int(1))
        return pointer

    def get(self, pointer: ctypes.c_void_p, like: Array) -> Array:
        """As many values as `like` has."""
        array = np.empty_like(like)
        target = array.ctypes.data_as(ctypes.c_void_p)
        self.call("cudaMemcpy", target, pointer, ctypes.c_size_t(array.nbytes), ctypes.c_int(2))
        return array


class Nccl:
    """NCCL's calls; those that fail raise `NcclError`."""

    def __init__(self, folder: Path | None) -> None:
        name = "libnccl.so.2"
        self.library = ctypes.CDLL(str(folder / name) if folder else name)
        self.library.ncclGetErrorString.restype = ctypes.c_char_p
        self.library.ncclGetLastError.restype = ctypes.c_char_p

    def call(self, name: str, *arguments: Any) -> None:
        code = getattr(self.library, name)(*arguments)
        if code:
            raise NcclError(name, code, self.library.ncclGetLastError(None).decode())

    def version(self) -> int:
        version = ctypes.c_int()
        self.call("ncclGetVersion", ctypes.byref(version))
        return version.value

    def unique_id(self) -> UniqueId:
        made = UniqueId()
        self.call("ncclGetUniqueId", ctypes.byref(made))
        return made

    def init_rank(self, ranks: int, unique_id: UniqueId, rank: int) -> ctypes.c_void_p:
        comm = ctypes.c_void_p()
        self.call("ncclCommInitRank", ctypes.byref(comm), ranks, unique_id, rank)
        return comm

    def init_all(self, devices: Sequence[int]) -> list[ctypes.c_void_p]:
        comms = (ctypes.c_void_p * len(devices))()
        self.call("ncclCommInitAll", comms, len(devices), (ctypes.c_int * len(devices))(*devices))
        return [ctypes.c_void_p(comm) for comm in comms]

    def split(self, comm: ctypes.c_void_p, color: int, key: int) -> ctypes.c_void_p:
        made = ctypes.c_void_p()
        self.call("ncclCommSplit", comm, color, key, ctypes.byref(made), None)
        return made

    def number(self, name: str, comm: ctypes.c_void_p) -> int:
        """Of ncclCommCount and its like."""
        number = ctypes.c_int()
        self.call(name, comm, ctypes.byref(number))
        return number.value

    def collective(self, name: str, *arguments: Any) -> None:
        """Pointers, communicators and streams as c_void_p; counts as int; the rest as enums."""
        self.call(name, *(_widen(argument) for argument in arguments))


def _widen(argument: Any) -> Any:
    """Counts are size_t; types, operators and ranks are int."""
    if isinstance(argument, enum.IntEnum):
        return ctypes.c_int(argument)
    return ctypes.c_size_t(argument) if isinstance(argument, int) else argument


def root(rank: int) -> ctypes.c_int:
    return ctypes.c_int(rank)
