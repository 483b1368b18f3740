"""The CUDA runtime, driver and CUPTI by ctypes: the real ones or the simulated ones."""

from __future__ import annotations

import ctypes
import os
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from gputap.profiler.cupti.abi import BY_KIND, ActivityKind, Version, version_of

H2D: Final = 1
D2H: Final = 2
D2D: Final = 3
PTX: Final = b"""
.version 7.0
.target sm_50
.address_size 64
.visible .entry _Z6actionv() { ret; }
.visible .entry _Z7anotherv() { ret; }
"""
KERNEL: Final = "_Z6actionv"
OTHER_KERNEL: Final = "_Z7anotherv"
_FORMATS: Final = {"i4": "i", "u1": "B", "u2": "H", "u4": "I", "u8": "Q", "i8": "q"}
_HOST_FUNCTION: Final = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_REQUEST: Final = ctypes.CFUNCTYPE(
    None,
    ctypes.POINTER(ctypes.c_void_p),
    ctypes.POINTER(ctypes.c_size_t),
    ctypes.POINTER(ctypes.c_size_t),
)
_COMPLETE: Final = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t
)
_CALLBACK: Final = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_void_p
)


class CudaError(Exception):
    """A call of the runtime, driver or CUPTI did not give 0."""

    def __init__(self, name: str, code: int) -> None:
        super().__init__(f"{name} -> {code}")
        self.code = code


class Dim3(ctypes.Structure):
    """By value in the runtime's launches."""

    _fields_ = (("x", ctypes.c_uint), ("y", ctypes.c_uint), ("z", ctypes.c_uint))


class CallbackData(ctypes.Structure):
    """`CUpti_CallbackData`."""

    _fields_ = (
        ("site", ctypes.c_int),
        ("function", ctypes.c_char_p),
        ("parameters", ctypes.c_void_p),
        ("result", ctypes.c_void_p),
        ("symbol", ctypes.c_char_p),
        ("context", ctypes.c_void_p),
        ("context_id", ctypes.c_uint32),
        ("correlation_data", ctypes.POINTER(ctypes.c_uint64)),
        ("correlation_id", ctypes.c_uint32),
    )


class Library:
    """A library whose calls raise if they do not give 0; `.raw` has the code."""

    def __init__(self, *names: str) -> None:
        self.raw = _load(names)

    def __getattr__(self, name: str) -> Any:
        function = getattr(self.raw, name)

        def checked(*arguments: Any) -> None:
            code = function(*arguments)
            if code:
                raise CudaError(name, code)

        return checked

    def has(self, name: str) -> bool:
        """Whether dlsym finds it. Not by getattr: ctypes trusts that what is found is not null."""
        find = ctypes.CDLL(None).dlsym
        find.restype = ctypes.c_void_p
        find.argtypes = (ctypes.c_void_p, ctypes.c_char_p)
        return find(self.raw._handle, name.encode()) is not None


def _load(names: Sequence[str]) -> ctypes.CDLL:
    for name in names[:-1]:
        try:
            return ctypes.CDLL(name)
        except OSError:
            pass
    return ctypes.CDLL(names[-1])


@dataclass
class Record:
    """One activity record."""

    kind: ActivityKind
    fields: dict[str, int]
    name: str = ""

    def __getattr__(self, name: str) -> int:
        try:
            return self.fields[name]
        except KeyError:
            raise AttributeError(name) from None


def decode(address: int, version: Version) -> Record:
    """The record that lies at an address."""
    kind = ActivityKind(ctypes.c_uint32.from_address(address).value)
    layout = BY_KIND[kind]
    data = ctypes.string_at(address, layout.size(version))
    fields = {
        it.name: struct.unpack_from(f"<{_FORMATS[it.type[1:]]}", data, it.offset)[0]
        for it in layout.fields
        if it.since <= version
    }
    is_kernel = kind in (ActivityKind.KERNEL, ActivityKind.CONCURRENT_KERNEL)
    name = ctypes.string_at(fields["name"]).decode() if is_kernel and fields["name"] else ""
    return Record(kind, fields, name)


@dataclass
class Capture:
    """What came while a capture was on."""

    records: list[Record] = field(default_factory=list)
    buffers: int = 0
    delivered_on: set[int] = field(default_factory=set)

    def of(self, *kinds: ActivityKind) -> list[Record]:
        """Records of some kinds, by start where they have one."""
        found = [record for record in self.records if record.kind in kinds]
        return sorted(found, key=lambda it: it.fields.get("start", 0))

    def kernels(self) -> list[Record]:
        """Kernels, by start."""
        return self.of(ActivityKind.CONCURRENT_KERNEL)


class Stack:
    """Everything, in this process. One device is in use.

    Which libraries: the newest that there are, or by GPUTAP_TEST_CUDART and GPUTAP_TEST_CUPTI.
    """

    def __init__(self) -> None:
        runtime = os.environ.get("GPUTAP_TEST_CUDART", "libcudart.so.13 libcudart.so.12")
        cupti = os.environ.get(
            "GPUTAP_TEST_CUPTI", "libcupti.so.13 libcupti.so.12 libcupti.so.11.8"
        )
        self.cudart = Library(*runtime.split())
        self.cuda = Library("libcuda.so.1")
        self.cupti = Library(*cupti.split())
        number = ctypes.c_uint32()
        self.cupti.cuptiGetVersion(ctypes.byref(number))
        self.version = version_of(number.value, self.cupti.raw._name)
        self.buffer_bytes = 1 << 20
        self.capture_now = Capture()
        self._keep: list[Any] = []
        self._buffers: dict[int, Any] = {}

    # ---- CUDA ------------------------------------------------------------------------------

    def kernel(self, name: str = KERNEL) -> ctypes.c_void_p:
        """A `cudaKernel_t`."""
        library, kernel = ctypes.c_void_p(), ctypes.c_void_p()
        self.cudart.cudaLibraryLoadData(
            ctypes.byref(library), PTX, None, None, 0, None, None, ctypes.c_uint(0)
        )
        self.cudart.cudaLibraryGetKernel(ctypes.byref(kernel), library, name.encode())
        return kernel

    def function(self, name: str = KERNEL) -> ctypes.c_void_p:
        """A `CUfunction`."""
        module, function = ctypes.c_void_p(), ctypes.c_void_p()
        self.cuda.cuModuleLoadData(ctypes.byref(module), PTX)
        self.cuda.cuModuleGetFunction(ctypes.byref(function), module, name.encode())
        return function

    def launch(
        self, kernel: ctypes.c_void_p, stream: ctypes.c_void_p | None = None, *, threads: int = 32
    ) -> None:
        """Through the runtime, grid (2, 1, 1)."""
        self.cudart.cudaLaunchKernel(
            kernel, Dim3(2, 1, 1), Dim3(threads, 1, 1), None, ctypes.c_size_t(0), stream
        )

    def launch_by_driver(
        self, function: ctypes.c_void_p, stream: ctypes.c_void_p | None = None
    ) -> None:
        """As Triton does."""
        self.cuda.cuLaunchKernel(function, 2, 1, 1, 32, 1, 1, 0, stream, None, None)

    def stream(self, flags: int = 0) -> ctypes.c_void_p:
        """A new stream."""
        stream = ctypes.c_void_p()
        self.cudart.cudaStreamCreateWithFlags(ctypes.byref(stream), flags)
        return stream

    def event(self, flags: int = 0) -> ctypes.c_void_p:
        """A new event."""
        event = ctypes.c_void_p()
        self.cudart.cudaEventCreateWithFlags(ctypes.byref(event), flags)
        return event

    def malloc(self, size: int) -> ctypes.c_void_p:
        """Memory of the device."""
        pointer = ctypes.c_void_p()
        self.cudart.cudaMalloc(ctypes.byref(pointer), ctypes.c_size_t(size))
        return pointer

    def pinned(self, size: int) -> ctypes.c_void_p:
        """Pinned memory of the host."""
        pointer = ctypes.c_void_p()
        self.cudart.cudaHostAlloc(ctypes.byref(pointer), ctypes.c_size_t(size), 0)
        return pointer

    def copy(
        self,
        to: Any,
        source: Any,
        size: int,
        kind: int,
        stream: ctypes.c_void_p | None = None,
    ) -> None:
        """`cudaMemcpyAsync`."""
        self.cudart.cudaMemcpyAsync(to, source, ctypes.c_size_t(size), kind, stream)

    def host_function(self, stream: ctypes.c_void_p | None, work: Any) -> None:
        """Runs `work()` when the stream comes there."""
        function = _HOST_FUNCTION(lambda _user: work())
        self._keep.append(function)
        self.cudart.cudaLaunchHostFunc(stream, function, None)

    def synchronize(self, stream: ctypes.c_void_p | None = None) -> None:
        """The stream, or the device."""
        if stream is None:
            self.cudart.cudaDeviceSynchronize()
        else:
            self.cudart.cudaStreamSynchronize(stream)

    @contextmanager
    def graph(self, stream: ctypes.c_void_p) -> Iterator[ctypes.c_void_p]:
        """Captures; afterwards what is yielded is the executable graph."""
        graph, executable = ctypes.c_void_p(), ctypes.c_void_p()
        self.cudart.cudaStreamBeginCapture(stream, 0)
        yield executable
        self.cudart.cudaStreamEndCapture(stream, ctypes.byref(graph))
        self.cudart.cudaGraphInstantiateWithFlags(
            ctypes.byref(executable), graph, ctypes.c_ulonglong(0)
        )
        self.cudart.cudaGraphDestroy(graph)

    # ---- CUPTI ------------------------------------------------------------------------------

    def _request(self, buffer: Any, size: Any, most: Any) -> None:
        memory = ctypes.create_string_buffer(self.buffer_bytes + 8) if self.buffer_bytes else None
        most[0] = 0
        size[0] = self.buffer_bytes
        buffer[0] = None
        if memory is not None:
            address = (ctypes.addressof(memory) + 7) & ~7
            self._buffers[address] = memory
            buffer[0] = address

    def _complete(self, _context: Any, _stream: int, buffer: int, _size: int, valid: int) -> None:
        self.capture_now.buffers += 1
        self.capture_now.delivered_on.add(threading.get_native_id())
        self.capture_now.records += self.walk(buffer, valid)
        del self._buffers[buffer]

    def walk(self, buffer: int, valid: int) -> list[Record]:
        """Records in a buffer, stepped through by the library."""
        record, found = ctypes.c_void_p(), []
        step = self.cupti.raw.cuptiActivityGetNextRecord
        while valid and not step(
            ctypes.c_void_p(buffer), ctypes.c_size_t(valid), ctypes.byref(record)
        ):
            assert record.value
            found.append(decode(record.value, self.version))
        return found

    def register(self) -> None:
        """Our buffer callbacks."""
        request, complete = _REQUEST(self._request), _COMPLETE(self._complete)
        self._keep += [request, complete]
        self.cupti.cuptiActivityRegisterCallbacks(request, complete)

    @contextmanager
    def capture(self, *kinds: ActivityKind, forced: bool = False) -> Iterator[Capture]:
        """Kinds on, then off and flushed. The device is idle at the end."""
        self.register()
        self.capture_now = capture = Capture()
        for kind in kinds:
            self.cupti.cuptiActivityEnable(kind)
        yield capture
        if not forced:
            self.synchronize()
        self.flush(forced=forced)
        for kind in kinds:
            self.cupti.cuptiActivityDisable(kind)

    def flush(self, *, forced: bool = False) -> None:
        """`cuptiActivityFlushAll`."""
        self.cupti.cuptiActivityFlushAll(1 if forced else 0)

    def subscribe(self, work: Any) -> ctypes.c_void_p:
        """Calls `work(domain, cbid, data)`; the handle."""

        def call(_user: Any, domain: int, cbid: int, data: int) -> None:
            work(domain, cbid, CallbackData.from_address(data))

        handle, function = ctypes.c_void_p(), _CALLBACK(call)
        self._keep.append(function)
        self.cupti.cuptiSubscribe(ctypes.byref(handle), function, None)
        return handle

    def dropped(self) -> int:
        """Records dropped since the last question."""
        count = ctypes.c_size_t()
        self.cupti.cuptiActivityGetNumDroppedRecords(None, 0, ctypes.byref(count))
        return count.value
