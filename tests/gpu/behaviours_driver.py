"""Claims about the driver's API, as Triton and NCCL use it."""

from __future__ import annotations

import ctypes
from typing import Any, Final

from gputap.profiler.cupti.abi import ActivityKind
from tests.gpu.claims import behaviour
from tests.gpu.stack import KERNEL, PTX, Stack

K: Final = ActivityKind
_SIZE: Final = ctypes.c_size_t
_ADDRESS: Final = ctypes.c_uint64


class Copy2D(ctypes.Structure):
    """`CUDA_MEMCPY2D`."""

    _fields_ = (
        ("from_x", _SIZE),
        ("from_y", _SIZE),
        ("from_type", ctypes.c_int),
        ("from_host", ctypes.c_char_p),
        ("from_device", _ADDRESS),
        ("from_array", ctypes.c_void_p),
        ("from_pitch", _SIZE),
        ("to_x", _SIZE),
        ("to_y", _SIZE),
        ("to_type", ctypes.c_int),
        ("to_host", ctypes.c_void_p),
        ("to_device", _ADDRESS),
        ("to_array", ctypes.c_void_p),
        ("to_pitch", _SIZE),
        ("width", _SIZE),
        ("height", _SIZE),
    )


def number(call: Any, *arguments: Any) -> int:
    """The int that a call gives by its first argument."""
    value = ctypes.c_int(-1)
    call(ctypes.byref(value), *arguments)
    return value.value


def ready(stack: Stack) -> Any:
    """The driver, with the primary context current."""
    context = ctypes.c_void_p()
    stack.cuda.cuInit(0)
    stack.cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0)
    stack.cuda.cuCtxSetCurrent(context)
    return stack.cuda


def allocated(driver: Any, size: int) -> ctypes.c_uint64:
    """Memory of the device."""
    pointer = _ADDRESS()
    driver.cuMemAlloc_v2(ctypes.byref(pointer), _SIZE(size))
    return pointer


def read(driver: Any, pointer: ctypes.c_uint64, size: int) -> bytes:
    """What is there."""
    host = ctypes.create_string_buffer(size)
    driver.cuMemcpyDtoH_v2(host, pointer, _SIZE(size))
    return host.raw


@behaviour
def the_driver_knows_the_device(stack: Stack) -> None:
    driver, name = ready(stack), ctypes.create_string_buffer(256)
    assert number(driver.cuDeviceGet, 0) == 0
    driver.cuDeviceGetName(name, 256, 0)
    assert name.value
    assert number(driver.cuDeviceGetAttribute, 10, 0) == 32
    one, other = ctypes.create_string_buffer(16), ctypes.create_string_buffer(16)
    driver.cuDeviceGetUuid_v2(one, 0)
    if driver.has("cuDeviceGetUuid"):
        driver.cuDeviceGetUuid(other, 0)
        assert one.raw == other.raw
    assert one.raw != bytes(16)
    total, free = _SIZE(), _SIZE()
    driver.cuDeviceTotalMem_v2(ctypes.byref(total), 0)
    seen = total.value
    driver.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total))
    assert 0 < free.value <= total.value <= seen
    assert number(driver.cuDeviceCanAccessPeer, 0, 0) == 0
    assert stack.cuda.raw.cuDeviceGet(ctypes.byref(ctypes.c_int()), 99) == 101


@behaviour
def contexts_are_a_stack_of_the_thread(stack: Stack) -> None:
    driver, context, popped = ready(stack), ctypes.c_void_p(), ctypes.c_void_p()
    driver.cuCtxGetCurrent(ctypes.byref(context))
    assert context.value
    driver.cuCtxPushCurrent_v2(context)
    driver.cuCtxPopCurrent_v2(ctypes.byref(popped))
    assert popped.value == context.value
    assert number(driver.cuCtxGetDevice) == 0
    flags, active = ctypes.c_uint(), ctypes.c_int()
    driver.cuDevicePrimaryCtxGetState(0, ctypes.byref(flags), ctypes.byref(active))
    assert active.value == 1
    least, greatest = ctypes.c_int(), ctypes.c_int()
    driver.cuCtxGetStreamPriorityRange(ctypes.byref(least), ctypes.byref(greatest))
    assert greatest.value < least.value
    driver.cuCtxSynchronize()
    driver.cuDevicePrimaryCtxRelease_v2(0)


@behaviour
def the_driver_copies_in_every_direction(stack: Stack) -> None:
    driver, data = ready(stack), bytes(range(200))
    stream = ctypes.c_void_p()
    driver.cuStreamCreate(ctypes.byref(stream), 1)
    one, other = allocated(driver, 200), allocated(driver, 200)
    driver.cuMemcpyHtoD_v2(one, data, _SIZE(200))
    driver.cuMemcpyDtoD_v2(other, one, _SIZE(200))
    assert read(driver, other, 200) == data
    driver.cuMemcpyHtoDAsync_v2(one, data[::-1], _SIZE(200), stream)
    driver.cuMemcpyDtoDAsync_v2(other, one, _SIZE(200), stream)
    host = ctypes.create_string_buffer(200)
    driver.cuMemcpyDtoHAsync_v2(host, other, _SIZE(200), stream)
    driver.cuStreamSynchronize(stream)
    assert host.raw == data[::-1]
    driver.cuMemcpy(one, _ADDRESS(ctypes.addressof(host)), _SIZE(100))
    driver.cuMemcpyAsync(other, one, _SIZE(100), stream)
    driver.cuMemcpyAsync_ptsz(other, one, _SIZE(100), stream)
    driver.cuStreamSynchronize(stream)
    assert read(driver, other, 100) == data[::-1][:100]
    driver.cuMemFree_v2(one)
    driver.cuMemFree_v2(other)
    driver.cuStreamDestroy_v2(stream)


@behaviour
def the_driver_fills_with_words_of_every_width(stack: Stack) -> None:
    driver, device = ready(stack), allocated(stack.cuda, 16)
    driver.cuMemsetD32_v2(device, ctypes.c_uint(0x04030201), _SIZE(4))
    assert read(driver, device, 16) == b"\x01\x02\x03\x04" * 4
    driver.cuMemsetD16_v2(device, ctypes.c_ushort(0x0605), _SIZE(4))
    driver.cuMemsetD8_v2(device, ctypes.c_ubyte(7), _SIZE(2))
    assert read(driver, device, 16) == b"\x07\x07" + b"\x05\x06" * 3 + b"\x01\x02\x03\x04" * 2
    driver.cuMemsetD32Async(device, ctypes.c_uint(1), _SIZE(4), None)
    driver.cuMemsetD16Async(device, ctypes.c_ushort(2), _SIZE(2), None)
    driver.cuMemsetD8Async(device, ctypes.c_ubyte(3), _SIZE(1), None)
    driver.cuCtxSynchronize()
    assert read(driver, device, 8) == b"\x03\0\x02\0" + b"\x01\0\0\0"


@behaviour
def the_driver_copies_rows(stack: Stack) -> None:
    driver, device = ready(stack), allocated(stack.cuda, 64)
    driver.cuMemsetD8_v2(device, ctypes.c_ubyte(0), _SIZE(64))
    how = Copy2D(
        from_type=1,
        from_host=b"abcdef",
        from_pitch=3,
        to_x=1,
        to_y=1,
        to_type=2,
        to_device=device.value,
        to_pitch=8,
        width=3,
        height=2,
    )
    driver.cuMemcpy2D_v2(ctypes.byref(how))
    assert read(driver, device, 24) == bytes(9) + b"abc" + bytes(5) + b"def" + bytes(4)
    driver.cuMemcpy2DAsync_v2(ctypes.byref(how), None)
    driver.cuCtxSynchronize()


@behaviour
def kinds_of_memory_have_attributes(stack: Stack) -> None:
    driver, device, pinned = ready(stack), allocated(stack.cuda, 64), ctypes.c_void_p()
    driver.cuMemAllocHost_v2(ctypes.byref(pinned), _SIZE(64))
    kinds = []
    for address in (device.value, pinned.value):
        kind = ctypes.c_uint()
        driver.cuPointerGetAttribute(ctypes.byref(kind), 2, _ADDRESS(address))
        kinds.append(kind.value)
    assert kinds == [2, 1]
    ask = stack.cuda.raw.cuPointerGetAttribute
    ordinary = ctypes.create_string_buffer(8)
    assert ask(ctypes.byref(kind), 2, _ADDRESS(ctypes.addressof(ordinary))) == 1
    driver.cuMemFreeHost(pinned)
    driver.cuMemHostAlloc(ctypes.byref(pinned), _SIZE(64), 0)
    driver.cuMemFreeHost(pinned)
    managed = _ADDRESS()
    driver.cuMemAllocManaged(ctypes.byref(managed), _SIZE(64), 1)
    driver.cuMemFree_v2(managed)
    empty = _ADDRESS()
    assert stack.cuda.raw.cuMemAlloc_v2(ctypes.byref(empty), _SIZE(0)) == 1


@behaviour
def the_driver_has_memory_in_the_order_of_a_stream(stack: Stack) -> None:
    driver, pointer, stream = ready(stack), _ADDRESS(), ctypes.c_void_p()
    driver.cuStreamCreate(ctypes.byref(stream), 1)
    driver.cuMemAllocAsync(ctypes.byref(pointer), _SIZE(64), stream)
    driver.cuMemsetD8Async(pointer, ctypes.c_ubyte(1), _SIZE(64), stream)
    driver.cuMemFreeAsync(pointer, stream)
    driver.cuStreamSynchronize(stream)


@behaviour
def streams_of_the_driver_know_how_they_were_made(stack: Stack) -> None:
    driver, stream = ready(stack), ctypes.c_void_p()
    driver.cuStreamCreateWithPriority(ctypes.byref(stream), 1, -1)
    flags, priority = ctypes.c_uint(), ctypes.c_int()
    context, current, identity = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_ulonglong()
    driver.cuStreamGetFlags(stream, ctypes.byref(flags))
    driver.cuStreamGetPriority(stream, ctypes.byref(priority))
    driver.cuStreamGetCtx(stream, ctypes.byref(context))
    driver.cuStreamGetId(stream, ctypes.byref(identity))
    driver.cuCtxGetCurrent(ctypes.byref(current))
    assert (flags.value, priority.value, context.value) == (1, -1, current.value)
    assert stack.cuda.raw.cuStreamQuery(stream) == 0


@behaviour
def events_of_the_driver_measure(stack: Stack) -> None:
    driver, function = ready(stack), stack.function()
    start, end, elapsed = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_float(-1)
    driver.cuEventCreate(ctypes.byref(start), 0)
    driver.cuEventCreate(ctypes.byref(end), 0)
    driver.cuEventRecord(start, None)
    stack.launch_by_driver(function)
    driver.cuEventRecord(end, None)
    driver.cuStreamWaitEvent(None, end, 0)
    driver.cuEventSynchronize(end)
    assert stack.cuda.raw.cuEventQuery(end) == 0
    name = "cuEventElapsedTime_v2" if driver.has("cuEventElapsedTime_v2") else "cuEventElapsedTime"
    getattr(driver, name)(ctypes.byref(elapsed), start, end)
    assert elapsed.value > 0
    driver.cuEventElapsedTime(ctypes.byref(elapsed), start, end)
    driver.cuEventDestroy_v2(start)
    driver.cuEventDestroy_v2(end)


@behaviour
def the_driver_captures_and_launches_graphs(stack: Stack) -> None:
    driver, function, stream = ready(stack), stack.function(), ctypes.c_void_p()
    graph, executable, status = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_int(9)
    driver.cuStreamCreate(ctypes.byref(stream), 1)
    driver.cuStreamBeginCapture_v2(stream, 0)
    stack.launch_by_driver(function, stream)
    driver.cuStreamIsCapturing(stream, ctypes.byref(status))
    assert status.value == 1
    driver.cuStreamEndCapture(stream, ctypes.byref(graph))
    driver.cuGraphInstantiateWithFlags(ctypes.byref(executable), graph, ctypes.c_ulonglong(0))
    with stack.capture(K.CONCURRENT_KERNEL, K.DRIVER) as capture:
        driver.cuGraphLaunch(executable, stream)
        driver.cuStreamSynchronize(stream)
    (kernel,) = capture.kernels()
    assert [it.cbid for it in capture.of(K.DRIVER) if it.correlationId == kernel.correlationId] == [
        514
    ]
    driver.cuGraphExecDestroy(executable)
    driver.cuGraphDestroy(graph)
    driver.cuGraphCreate(ctypes.byref(graph), 0)
    driver.cuGraphDestroy(graph)


@behaviour
def kernels_of_modules_and_libraries_have_names(stack: Stack) -> None:
    driver, name = ready(stack), ctypes.c_char_p()
    module, library, kernel, function = (ctypes.c_void_p() for _ in range(4))
    driver.cuModuleLoadDataEx(ctypes.byref(module), PTX, 0, None, None)
    driver.cuModuleGetFunction(ctypes.byref(function), module, KERNEL.encode())
    driver.cuFuncGetName(ctypes.byref(name), function)
    assert name.value == KERNEL.encode()
    assert number(driver.cuFuncGetAttribute, 0, function) == 1024
    driver.cuFuncSetAttribute(function, 8, 49152)
    occupancy = driver.cuOccupancyMaxActiveBlocksPerMultiprocessor
    assert number(occupancy, function, 128, _SIZE(0)) >= 1
    driver.cuLibraryLoadData(
        ctypes.byref(library), PTX, None, None, 0, None, None, ctypes.c_uint(0)
    )
    driver.cuLibraryGetKernel(ctypes.byref(kernel), library, KERNEL.encode())
    driver.cuKernelGetName(ctypes.byref(name), kernel)
    assert name.value == KERNEL.encode()
    driver.cuKernelGetFunction(ctypes.byref(function), kernel)
    stack.launch_by_driver(function)
    stack.cuda.raw.cuLaunchKernel_ptsz(function, 1, 1, 1, 1, 1, 1, 0, None, None, None)
    one = (ctypes.c_uint * 6)(1, 1, 1, 1, 1, 1)
    driver.cuLaunchCooperativeKernel(function, *one, 0, None, None)
    driver.cuCtxSynchronize()
    driver.cuModuleUnload(module)
    driver.cuLibraryUnload(library)


@behaviour
def a_wrong_launch_of_the_driver_is_an_invalid_value(stack: Stack) -> None:
    ready(stack)
    function = stack.function()
    launch = stack.cuda.raw.cuLaunchKernel
    assert launch(function, 1, 1, 1, 4096, 1, 1, 0, None, None, None) == 1


@behaviour
def errors_of_the_driver_have_names(stack: Stack) -> None:
    text = ctypes.c_char_p()
    stack.cuda.cuGetErrorName(2, ctypes.byref(text))
    assert text.value == b"CUDA_ERROR_OUT_OF_MEMORY"
    stack.cuda.cuGetErrorString(2, ctypes.byref(text))
    assert text.value == b"out of memory"
    assert stack.cuda.raw.cuGetErrorName(123456, ctypes.byref(text)) == 1


@behaviour
def a_host_function_of_the_driver_runs(stack: Stack) -> None:
    driver, ran = ready(stack), []
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _user: ran.append(1))
    driver.cuLaunchHostFunc(None, function, None)
    driver.cuCtxSynchronize()
    assert ran == [1]


@behaviour
def the_older_question_for_functions_is_answered(stack: Stack) -> None:
    function = ctypes.c_void_p()
    ready(stack).cuGetProcAddress(b"cuCtxSynchronize", ctypes.byref(function), 11030, _ADDRESS(0))
    assert function.value
