"""Claims about the rest of the runtime: what programs, PyTorch and NCCL ask of it."""

from __future__ import annotations

import ctypes
from typing import Any, Final

from gputap.profiler.cupti.abi import ActivityKind
from tests.gpu.claims import Skipped, behaviour, code_of
from tests.gpu.stack import D2H, H2D, KERNEL, OTHER_KERNEL, PTX, Dim3, Stack

K: Final = ActivityKind
PER_THREAD: Final = 2
"""The handle of the thread's default stream."""
_SIZE: Final = ctypes.c_size_t


class Configuration(ctypes.Structure):
    """`cudaLaunchConfig_t`."""

    _fields_ = (
        ("grid", Dim3),
        ("block", Dim3),
        ("shared", ctypes.c_size_t),
        ("stream", ctypes.c_void_p),
        ("attributes", ctypes.c_void_p),
        ("count", ctypes.c_uint),
    )


class Attribute(ctypes.Structure):
    """`cudaLaunchAttribute`."""

    _fields_ = (
        ("id", ctypes.c_uint32),
        ("pad", ctypes.c_uint32),
        ("value", ctypes.c_uint32 * 16),
    )


class KernelNode(ctypes.Structure):
    """`cudaKernelNodeParams`."""

    _fields_ = (
        ("function", ctypes.c_void_p),
        ("grid", Dim3),
        ("block", Dim3),
        ("shared", ctypes.c_uint),
        ("arguments", ctypes.c_void_p),
        ("extra", ctypes.c_void_p),
    )


class MemsetNode(ctypes.Structure):
    """`cudaMemsetParams`."""

    _fields_ = (
        ("to", ctypes.c_void_p),
        ("pitch", ctypes.c_size_t),
        ("value", ctypes.c_uint),
        ("element_size", ctypes.c_uint),
        ("width", ctypes.c_size_t),
        ("height", ctypes.c_size_t),
    )


def number(call: Any, *arguments: Any) -> int:
    """The int that a call gives by its first argument."""
    value = ctypes.c_int(-1)
    call(ctypes.byref(value), *arguments)
    return value.value


# ---- devices ----------------------------------------------------------------------------------


@behaviour
def properties_and_attributes_agree(stack: Stack) -> None:
    raw = stack.cudart
    name = "cudaGetDeviceProperties"
    if number(raw.cudaRuntimeGetVersion) < 13000:
        name += "_v2"
    properties = ctypes.create_string_buffer(4096)
    getattr(raw, name)(properties, 0)
    assert properties.value
    major, minor = (
        ctypes.c_int.from_buffer(properties, 360),
        ctypes.c_int.from_buffer(properties, 364),
    )
    assert major.value == number(raw.cudaDeviceGetAttribute, 75, 0)
    assert minor.value == number(raw.cudaDeviceGetAttribute, 76, 0)
    assert number(raw.cudaDeviceGetAttribute, 10, 0) == 32
    total, free = ctypes.c_size_t(), ctypes.c_size_t()
    raw.cudaMemGetInfo(ctypes.byref(free), ctypes.byref(total))
    assert ctypes.c_size_t.from_buffer(properties, 288).value == total.value


@behaviour
def a_device_has_an_address(stack: Stack) -> None:
    runtime, driver = ctypes.create_string_buffer(64), ctypes.create_string_buffer(64)
    stack.cudart.cudaDeviceGetPCIBusId(runtime, 64, 0)
    stack.cuda.cuInit(0)
    stack.cuda.cuDeviceGetPCIBusId(driver, 64, 0)
    assert runtime.value == driver.value
    assert len(runtime.value.split(b":")) == 3
    assert stack.cudart.raw.cudaDeviceGetPCIBusId(runtime, 4, 0) == 1


@behaviour
def the_device_of_a_thread_can_be_asked_for(stack: Stack) -> None:
    assert number(stack.cudart.cudaGetDevice) == 0
    assert number(stack.cudart.cudaGetDeviceCount) >= 1
    stack.cudart.cudaSetDevice(0)


@behaviour
def versions_of_driver_and_runtime_fit(stack: Stack) -> None:
    driver = number(stack.cudart.cudaDriverGetVersion)
    assert driver >= number(stack.cudart.cudaRuntimeGetVersion) >= 12000
    assert number(stack.cuda.cuDriverGetVersion) == driver


@behaviour
def a_device_is_no_peer_of_itself(stack: Stack) -> None:
    assert number(stack.cudart.cudaDeviceCanAccessPeer, 0, 0) == 0
    assert stack.cudart.raw.cudaDeviceEnablePeerAccess(99, 0) == 101


@behaviour
def the_profiler_can_be_switched(stack: Stack) -> None:
    stack.cudart.cudaProfilerStart()
    stack.cudart.cudaProfilerStop()


@behaviour
def libraries_of_kernels_can_be_let_go(stack: Stack) -> None:
    library = ctypes.c_void_p()
    stack.cudart.cudaLibraryLoadData(
        ctypes.byref(library), PTX, None, None, 0, None, None, ctypes.c_uint(0)
    )
    stack.cudart.cudaLibraryUnload(library)


@behaviour
def errors_have_names_and_texts(stack: Stack) -> None:
    for call in (stack.cudart.raw.cudaGetErrorName, stack.cudart.raw.cudaGetErrorString):
        call.restype = ctypes.c_char_p
    assert stack.cudart.raw.cudaGetErrorName(2) == b"cudaErrorMemoryAllocation"
    assert stack.cudart.raw.cudaGetErrorString(2) == b"out of memory"
    assert stack.cudart.raw.cudaGetErrorName(0) == b"cudaSuccess"


# ---- streams ----------------------------------------------------------------------------------


@behaviour
def streams_know_how_they_were_made(stack: Stack) -> None:
    least, greatest = ctypes.c_int(), ctypes.c_int()
    stack.cudart.cudaDeviceGetStreamPriorityRange(ctypes.byref(least), ctypes.byref(greatest))
    assert greatest.value < least.value == 0
    stream = ctypes.c_void_p()
    stack.cudart.cudaStreamCreateWithPriority(ctypes.byref(stream), 1, greatest.value - 100)
    priority, flags = ctypes.c_int(), ctypes.c_uint()
    stack.cudart.cudaStreamGetPriority(stream, ctypes.byref(priority))
    stack.cudart.cudaStreamGetFlags(stream, ctypes.byref(flags))
    assert (priority.value, flags.value) == (greatest.value, 1)
    if stack.cudart.has("cudaStreamGetDevice"):
        device = ctypes.c_int(-1)
        stack.cudart.cudaStreamGetDevice(stream, ctypes.byref(device))
        assert device.value == 0
    one, other = ctypes.c_ulonglong(), ctypes.c_ulonglong()
    stack.cudart.cudaStreamGetId(stream, ctypes.byref(one))
    stack.cudart.cudaStreamGetId(stack.stream(), ctypes.byref(other))
    assert one.value != other.value
    stack.cudart.cudaStreamDestroy(stream)


@behaviour
def a_destroyed_stream_finishes_its_work(stack: Stack) -> None:
    stream, kernel = stack.stream(), stack.kernel()
    with stack.capture(K.CONCURRENT_KERNEL) as capture:
        stack.launch(kernel, stream)
        stack.cudart.cudaStreamDestroy(stream)
    assert len(capture.kernels()) == 1


@behaviour
def each_thread_has_a_default_stream_of_its_own(stack: Stack) -> None:
    """What a program compiled with --default-stream per-thread calls."""
    kernel, device, host = stack.kernel(), stack.malloc(64), stack.pinned(64)
    out = ctypes.create_string_buffer(64)
    raw = stack.cudart
    with stack.capture(K.CONCURRENT_KERNEL, K.MEMCPY, K.MEMSET) as capture:
        raw.cudaLaunchKernel_ptsz(kernel, Dim3(1, 1, 1), Dim3(1, 1, 1), None, _SIZE(0), None)
        raw.cudaMemcpyAsync_ptsz(device, host, _SIZE(64), H2D, None)
        raw.cudaMemsetAsync_ptsz(device, 5, _SIZE(64), None)
        raw.cudaMemcpy_ptds(out, device, _SIZE(64), D2H)
        raw.cudaMemset_ptds(device, 6, _SIZE(64))
        raw.cudaStreamSynchronize_ptsz(None)
        assert raw.raw.cudaStreamQuery_ptsz(None) == 0
        stack.launch(kernel, ctypes.c_void_p(PER_THREAD))
    assert out.raw == b"\x05" * 64
    streams = {it.streamId for it in capture.records}
    assert len(capture.records) == 6
    assert len(streams) == 1
    assert 7 not in streams


@behaviour
def the_per_thread_twins_take_other_streams_as_well(stack: Stack) -> None:
    raw, stream, event = stack.cudart, stack.stream(), stack.event()
    kernel, device, pointer = stack.kernel(), stack.malloc(64), ctypes.c_void_p()
    flags, identity, device_id = ctypes.c_uint(9), ctypes.c_ulonglong(), ctypes.c_int(-1)
    raw.cudaEventRecord_ptsz(event, stream)
    raw.cudaStreamWaitEvent_ptsz(stream, event, 0)
    raw.cudaStreamGetFlags_ptsz(stream, ctypes.byref(flags))
    raw.cudaStreamGetPriority_ptsz(stream, ctypes.byref(device_id))
    raw.cudaStreamGetId_ptsz(stream, ctypes.byref(identity))
    if raw.has("cudaStreamGetDevice_ptsz"):
        raw.cudaStreamGetDevice_ptsz(stream, ctypes.byref(device_id))
    raw.cudaMallocAsync_ptsz(ctypes.byref(pointer), _SIZE(64), stream)
    raw.cudaFreeAsync_ptsz(pointer, stream)
    raw.cudaMemset2DAsync_ptsz(device, _SIZE(8), 1, _SIZE(4), _SIZE(8), stream)
    raw.cudaMemcpy2DAsync_ptsz(device, _SIZE(8), device, _SIZE(8), _SIZE(4), _SIZE(1), 3, stream)
    config = Configuration(Dim3(1, 1, 1), Dim3(1, 1, 1), 0, stream, None, 0)
    raw.cudaLaunchKernelExC_ptsz(ctypes.byref(config), kernel, None)
    one = Dim3(1, 1, 1)
    raw.cudaLaunchCooperativeKernel_ptsz(kernel, one, one, None, _SIZE(0), stream)
    graph, executable, status = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_int(9)
    raw.cudaStreamBeginCapture_ptsz(stream, 0)
    stack.launch(kernel, stream)
    raw.cudaStreamIsCapturing_ptsz(stream, ctypes.byref(status))
    raw.cudaStreamEndCapture_ptsz(stream, ctypes.byref(graph))
    raw.cudaGraphInstantiateWithFlags(ctypes.byref(executable), graph, ctypes.c_ulonglong(0))
    raw.cudaGraphUpload_ptsz(executable, stream)
    raw.cudaGraphLaunch_ptsz(executable, stream)
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _user: None)
    raw.cudaLaunchHostFunc_ptsz(stream, function, None)
    raw.cudaStreamSynchronize_ptsz(stream)
    assert (flags.value, status.value) == (0, 1)


@behaviour
def memory_can_be_had_in_the_order_of_a_stream(stack: Stack) -> None:
    stream, pointer, host = stack.stream(), ctypes.c_void_p(), ctypes.create_string_buffer(64)
    stack.cudart.cudaMallocAsync(ctypes.byref(pointer), _SIZE(64), stream)
    stack.cudart.cudaMemsetAsync(pointer, 3, _SIZE(64), stream)
    stack.copy(host, pointer, 64, D2H, stream)
    stack.cudart.cudaFreeAsync(pointer, stream)
    stack.synchronize(stream)
    assert host.raw == b"\x03" * 64


@behaviour
def events_can_be_recorded_with_flags(stack: Stack) -> None:
    event = ctypes.c_void_p()
    stack.cudart.cudaEventCreate(ctypes.byref(event))
    stack.cudart.cudaEventRecordWithFlags(event, stack.stream(), 0)
    stack.cudart.cudaEventSynchronize(event)
    stack.cudart.cudaEventDestroy(event)


@behaviour
def capture_can_be_asked_after(stack: Stack) -> None:
    stream, status, mode = stack.stream(), ctypes.c_int(9), ctypes.c_int(2)
    identity, graph = ctypes.c_ulonglong(), ctypes.c_void_p()
    stack.cudart.cudaThreadExchangeStreamCaptureMode(ctypes.byref(mode))
    assert mode.value == 0
    stack.cudart.cudaStreamIsCapturing(stream, ctypes.byref(status))
    assert status.value == 0
    stack.cudart.cudaStreamBeginCapture(stream, 0)
    if stack.cudart.has("cudaStreamGetCaptureInfo_v2"):
        stack.cudart.cudaStreamGetCaptureInfo_v2(
            stream, ctypes.byref(status), ctypes.byref(identity), None, None, None
        )
    else:
        stack.cudart.cudaStreamGetCaptureInfo(
            stream, ctypes.byref(status), ctypes.byref(identity), None, None, None, None
        )
    assert status.value == 1
    assert identity.value
    stack.cudart.cudaStreamEndCapture(stream, ctypes.byref(graph))
    assert graph.value


# ---- memory -----------------------------------------------------------------------------------


@behaviour
def memory_of_the_caller_can_be_pinned(stack: Stack) -> None:
    host, attributes, device = (
        ctypes.create_string_buffer(8192),
        (ctypes.c_int * 32)(),
        ctypes.c_void_p(),
    )
    stack.cudart.cudaHostRegister(host, _SIZE(8192), 0)
    stack.cudart.cudaPointerGetAttributes(attributes, host)
    assert attributes[0] == 1
    assert stack.cudart.raw.cudaHostRegister(host, _SIZE(8192), 0) == 712
    stack.cudart.cudaHostGetDevicePointer(ctypes.byref(device), host, 0)
    assert device.value
    stack.cudart.cudaHostUnregister(host)
    assert stack.cudart.raw.cudaHostUnregister(host) == 713


@behaviour
def rows_are_filled_and_copied_with_their_pitch(stack: Stack) -> None:
    device, pitch, host = ctypes.c_void_p(), ctypes.c_size_t(), ctypes.create_string_buffer(12)
    stack.cudart.cudaMallocPitch(ctypes.byref(device), ctypes.byref(pitch), _SIZE(4), _SIZE(3))
    assert pitch.value >= 4
    stack.cudart.cudaMemset2D(device, pitch, 0, _SIZE(4), _SIZE(3))
    stack.cudart.cudaMemset2DAsync(device, pitch, 9, _SIZE(2), _SIZE(3), None)
    stack.cudart.cudaMemcpy2DAsync(host, _SIZE(4), device, pitch, _SIZE(4), _SIZE(3), D2H, None)
    stack.synchronize()
    assert host.raw == b"\x09\x09\0\0" * 3


@behaviour
def managed_memory_is_for_both(stack: Stack) -> None:
    pointer = ctypes.c_void_p()
    stack.cudart.cudaMallocManaged(ctypes.byref(pointer), _SIZE(16), 1)
    stack.cudart.cudaMemset(pointer, 0x42, _SIZE(16))
    stack.synchronize()
    assert ctypes.string_at(pointer, 16) == b"B" * 16


@behaviour
def pinned_memory_is_freed_as_it_was_got(stack: Stack) -> None:
    pointer = ctypes.c_void_p()
    stack.cudart.cudaMallocHost(ctypes.byref(pointer), _SIZE(16))
    stack.cudart.cudaFreeHost(pointer)
    stack.cudart.cudaFree(None)


@behaviour
def a_synchronous_copy_is_done_when_it_returns(stack: Stack) -> None:
    device, host = stack.malloc(4), ctypes.create_string_buffer(4)
    stack.cudart.cudaMemcpy(device, b"sync", _SIZE(4), H2D)
    stack.cudart.cudaMemcpy(host, device, _SIZE(4), 4)  # cudaMemcpyDefault
    assert host.raw == b"sync"
    assert stack.cudart.raw.cudaMemcpy(host, device, _SIZE(4), 17) == 21


# ---- launches ---------------------------------------------------------------------------------


@behaviour
def a_launch_with_attributes_is_recorded_with_them(stack: Stack) -> None:
    kernel = stack.kernel()
    attribute = Attribute(2, 0, (ctypes.c_uint32 * 16)(1))  # cooperative
    config = Configuration(Dim3(2, 1, 1), Dim3(32, 1, 1), 0, None, ctypes.addressof(attribute), 1)
    with stack.capture(K.CONCURRENT_KERNEL, K.RUNTIME) as capture:
        stack.cudart.cudaLaunchKernelExC(ctypes.byref(config), kernel, None)
    (record,) = capture.kernels()
    assert record.launchType == 1
    assert [
        it.cbid for it in capture.of(K.RUNTIME) if it.correlationId == record.correlationId
    ] == [430]


@behaviour
def a_cooperative_launch_is_recorded_as_one(stack: Stack) -> None:
    kernel, one = stack.kernel(), Dim3(1, 1, 1)
    with stack.capture(K.CONCURRENT_KERNEL) as capture:
        stack.cudart.cudaLaunchCooperativeKernel(kernel, one, one, None, _SIZE(0), None)
        stack.launch(kernel)
    assert [it.launchType for it in capture.kernels()] == [1, 0]


@behaviour
def occupancy_and_attributes_of_a_kernel_can_be_asked_for(stack: Stack) -> None:
    kernel, attributes = stack.kernel(), (ctypes.c_int * 64)()
    stack.cudart.cudaFuncGetAttributes(attributes, kernel)
    assert attributes[6] == 1024  # threads of a block
    stack.cudart.cudaFuncSetAttribute(kernel, 8, 49152)
    stack.cudart.cudaFuncSetCacheConfig(kernel, 1)
    ask = stack.cudart.cudaOccupancyMaxActiveBlocksPerMultiprocessor
    assert 1 <= number(ask, kernel, 1024, _SIZE(0)) <= number(ask, kernel, 32, _SIZE(0))
    ask = stack.cudart.cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags
    assert number(ask, kernel, 1024, _SIZE(0), 0) >= 1


@behaviour
def a_kernel_has_a_name(stack: Stack) -> None:
    if not stack.cudart.has("cudaFuncGetName"):
        raise Skipped("the runtime before 12.3 cannot")
    name = ctypes.c_char_p()
    stack.cudart.cudaFuncGetName(ctypes.byref(name), stack.kernel())
    assert name.value == KERNEL.encode()


# ---- graphs, built by hand --------------------------------------------------------------------


def nodes_of(stack: Stack, graph: ctypes.c_void_p) -> int:
    count = ctypes.c_size_t()
    stack.cudart.cudaGraphGetNodes(graph, None, ctypes.byref(count))
    return count.value


def kernel_node(stack: Stack, graph: ctypes.c_void_p, name: str, *after: ctypes.c_void_p) -> Any:
    node, kernel = ctypes.c_void_p(), stack.kernel(name)
    parameters = KernelNode(kernel, Dim3(1, 1, 1), Dim3(1, 1, 1), 0, None, None)
    before = (ctypes.c_void_p * len(after))(*after)
    stack.cudart.cudaGraphAddKernelNode(
        ctypes.byref(node), graph, before, _SIZE(len(after)), ctypes.byref(parameters)
    )
    return node


def new_graph(stack: Stack) -> ctypes.c_void_p:
    graph = ctypes.c_void_p()
    stack.cudart.cudaGraphCreate(ctypes.byref(graph), 0)
    return graph


def instantiated(stack: Stack, graph: ctypes.c_void_p) -> ctypes.c_void_p:
    executable = ctypes.c_void_p()
    stack.cudart.cudaGraphInstantiateWithFlags(
        ctypes.byref(executable), graph, ctypes.c_ulonglong(0)
    )
    return executable


@behaviour
def a_graph_can_be_built_by_hand(stack: Stack) -> None:
    graph, device, out = new_graph(stack), stack.malloc(64), stack.pinned(64)
    identity = ctypes.c_uint32()
    stack.cupti.cuptiGetGraphId(graph, ctypes.byref(identity))
    assert identity.value
    kernel_node(stack, graph, KERNEL)
    fill, copy, empty, none = (ctypes.c_void_p() for _ in range(4))
    parameters = MemsetNode(device, 64, 0x0201, 2, 32, 1)
    stack.cudart.cudaGraphAddMemsetNode(
        ctypes.byref(fill), graph, None, _SIZE(0), ctypes.byref(parameters)
    )
    stack.cudart.cudaGraphAddMemcpyNode1D(
        ctypes.byref(copy), graph, ctypes.byref(fill), _SIZE(1), out, device, _SIZE(64), D2H
    )
    stack.cudart.cudaGraphAddEmptyNode(ctypes.byref(empty), graph, ctypes.byref(copy), _SIZE(1))
    assert nodes_of(stack, graph) == 4
    executable, stream = instantiated(stack, graph), stack.stream()
    with stack.capture(K.CONCURRENT_KERNEL, K.MEMCPY, K.MEMSET) as capture:
        stack.cudart.cudaGraphUpload(executable, stream)
        stack.cudart.cudaGraphLaunch(executable, stream)
    assert ctypes.string_at(out, 64) == b"\x01\x02" * 32
    kinds = sorted(it.kind for it in capture.records)
    assert kinds == sorted([K.CONCURRENT_KERNEL, K.MEMCPY, K.MEMSET])
    assert none.value is None
    stack.cudart.cudaGraphExecDestroy(executable)
    stack.cudart.cudaGraphDestroy(graph)


@behaviour
def a_child_graph_runs_within_its_parent(stack: Stack) -> None:
    child, parent, node = new_graph(stack), new_graph(stack), ctypes.c_void_p()
    kernel_node(stack, child, OTHER_KERNEL)
    first = kernel_node(stack, parent, KERNEL)
    stack.cudart.cudaGraphAddChildGraphNode(
        ctypes.byref(node), parent, ctypes.byref(first), _SIZE(1), child
    )
    kernel_node(stack, parent, KERNEL, node)
    executable = instantiated(stack, parent)
    with stack.capture(K.CONCURRENT_KERNEL) as capture:
        stack.cudart.cudaGraphLaunch(executable, stack.stream())
    assert [it.name for it in capture.kernels()] == [KERNEL, OTHER_KERNEL, KERNEL]


@behaviour
def an_executable_graph_can_be_updated(stack: Stack) -> None:
    before, after, longer = new_graph(stack), new_graph(stack), new_graph(stack)
    kernel_node(stack, before, KERNEL)
    kernel_node(stack, after, OTHER_KERNEL)
    kernel_node(stack, longer, KERNEL)
    kernel_node(stack, longer, KERNEL)
    executable, room = instantiated(stack, before), (ctypes.c_uint64 * 8)()
    stack.cudart.cudaGraphExecUpdate(executable, after, room)
    with stack.capture(K.CONCURRENT_KERNEL) as capture:
        stack.cudart.cudaGraphLaunch(executable, stack.stream())
    assert [it.name for it in capture.kernels()] == [OTHER_KERNEL]
    assert code_of(lambda: stack.cudart.cudaGraphExecUpdate(executable, longer, room)) == 910


@behaviour
def all_forms_of_instantiation_do_the_same(stack: Stack) -> None:
    graph, executable = new_graph(stack), ctypes.c_void_p()
    kernel_node(stack, graph, KERNEL)
    stack.cudart.cudaGraphInstantiate(ctypes.byref(executable), graph, ctypes.c_ulonglong(0))
    assert executable.value
    how = (ctypes.c_uint64 * 4)()
    stack.cudart.cudaGraphInstantiateWithParams(ctypes.byref(executable), graph, how)
    assert executable.value
