"""What the simulated stack says about CUDA and CUPTI: each function is one claim."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from itertools import pairwise
from typing import Final

from gputap.profiler.cupti.abi import ActivityKind, MemcpyKind, MemoryKind, SynchronizationType
from tests.gpu.claims import Skipped, behaviour, blocked, code_of
from tests.gpu.stack import D2D, D2H, H2D, KERNEL, OTHER_KERNEL, Stack

NON_BLOCKING: Final = 1
NOT_READY: Final = 600
RUNTIME: Final = 2
DRIVER: Final = 1
CBID_LAUNCH: Final = 211
CBID_GRAPH_LAUNCH: Final = 311
CBID_GET_DEVICE: Final = 17
K: Final = ActivityKind


# ---- streams and events ----------------------------------------------------------------------


@behaviour
def default_stream_has_id_7(stack: Stack) -> None:
    with stack.capture(K.CONCURRENT_KERNEL) as capture:
        stack.launch(stack.kernel())
    assert [kernel.streamId for kernel in capture.kernels()] == [7]


@behaviour
def each_stream_has_an_id_of_its_own(stack: Stack) -> None:
    kernel, streams = stack.kernel(), [stack.stream() for _ in range(3)]
    with stack.capture(K.CONCURRENT_KERNEL) as capture:
        for stream in streams:
            stack.launch(kernel, stream)
    ids = {record.streamId for record in capture.kernels()}
    assert len(ids) == 3
    assert 7 not in ids


@behaviour
def stream_id_can_be_asked_for(stack: Stack) -> None:
    kernel, stream, number = stack.kernel(), stack.stream(), ctypes.c_uint32()
    with stack.capture(K.CONCURRENT_KERNEL) as capture:
        stack.launch(kernel, stream)
    stack.cupti.cuptiGetStreamIdEx(None, stream, ctypes.c_uint8(0), ctypes.byref(number))
    assert number.value == capture.kernels()[0].streamId


@behaviour
def kernels_of_a_stream_run_one_after_the_other(stack: Stack) -> None:
    kernel, stream = stack.kernel(), stack.stream()
    with stack.capture(K.CONCURRENT_KERNEL) as capture:
        for _ in range(50):
            stack.launch(kernel, stream)
    kernels = capture.kernels()
    assert len(kernels) == 50
    assert all(a.end <= b.start for a, b in pairwise(kernels))


@behaviour
def a_stream_waits_for_the_event_of_another(stack: Stack) -> None:
    first, second, event = stack.stream(NON_BLOCKING), stack.stream(NON_BLOCKING), stack.event()
    one, other = stack.kernel(), stack.kernel(OTHER_KERNEL)
    with stack.capture(K.CONCURRENT_KERNEL) as capture:
        gate = blocked(stack, first)
        stack.launch(one, first)
        stack.cudart.cudaEventRecord(event, first)
        stack.cudart.cudaStreamWaitEvent(second, event, 0)
        stack.launch(other, second)
        gate.set()
    before, after = capture.kernels()
    assert (before.name, after.name) == (KERNEL, OTHER_KERNEL)
    assert before.end <= after.start


@behaviour
def default_stream_waits_for_blocking_streams(stack: Stack) -> None:
    stream, one, other = stack.stream(), stack.kernel(), stack.kernel(OTHER_KERNEL)
    with stack.capture(K.CONCURRENT_KERNEL) as capture:
        gate = blocked(stack, stream)
        stack.launch(one, stream)
        stack.launch(other)
        gate.set()
    before, after = capture.kernels()
    assert (before.name, after.name) == (KERNEL, OTHER_KERNEL)
    assert before.end <= after.start


@behaviour
def non_blocking_stream_does_not_wait_for_the_default_one(stack: Stack) -> None:
    stream, kernel = stack.stream(NON_BLOCKING), stack.kernel()
    gate = blocked(stack, ctypes.c_void_p())
    stack.launch(kernel, stream)
    stack.synchronize(stream)  # would hang
    gate.set()
    stack.synchronize()


@behaviour
def query_says_not_ready_while_there_is_work(stack: Stack) -> None:
    stream, event = stack.stream(NON_BLOCKING), stack.event()
    gate = blocked(stack, stream)
    stack.cudart.cudaEventRecord(event, stream)
    assert stack.cudart.raw.cudaStreamQuery(stream) == NOT_READY
    assert stack.cudart.raw.cudaEventQuery(event) == NOT_READY
    gate.set()
    stack.cudart.cudaEventSynchronize(event)
    assert stack.cudart.raw.cudaEventQuery(event) == 0
    stack.synchronize(stream)
    assert stack.cudart.raw.cudaStreamQuery(stream) == 0


@behaviour
def an_event_never_recorded_is_ready(stack: Stack) -> None:
    event = stack.event()
    assert stack.cudart.raw.cudaEventQuery(event) == 0
    stack.cudart.cudaEventSynchronize(event)


@behaviour
def elapsed_time_spans_the_kernels_between(stack: Stack) -> None:
    stream, start, end, kernel = stack.stream(), stack.event(), stack.event(), stack.kernel()
    with stack.capture(K.CONCURRENT_KERNEL) as capture:
        stack.cudart.cudaEventRecord(start, stream)
        stack.launch(kernel, stream)
        stack.cudart.cudaEventRecord(end, stream)
    elapsed = ctypes.c_float()
    stack.cudart.cudaEventElapsedTime(ctypes.byref(elapsed), start, end)
    record = capture.kernels()[0]
    assert elapsed.value * 1e6 >= 0.9 * (record.end - record.start)


@behaviour
def elapsed_time_needs_events_with_timing(stack: Stack) -> None:
    start, end = stack.event(2), stack.event(2)
    stack.cudart.cudaEventRecord(start, None)
    stack.cudart.cudaEventRecord(end, None)
    stack.synchronize()
    elapsed = ctypes.c_float()
    assert stack.cudart.raw.cudaEventElapsedTime(ctypes.byref(elapsed), start, end) == 400


# ---- memory and copies -----------------------------------------------------------------------


@behaviour
def copies_move_bytes(stack: Stack) -> None:
    data = os.urandom(5000)
    host, device, other = ctypes.create_string_buffer(5000), stack.malloc(5000), stack.malloc(5000)
    stack.copy(device, data, 5000, H2D)
    stack.copy(other, device, 5000, D2D)
    stack.copy(host, other, 5000, D2H)
    stack.synchronize()
    assert host.raw == data


@behaviour
def fills_fill(stack: Stack) -> None:
    device, host = stack.malloc(100), ctypes.create_string_buffer(100)
    stack.cudart.cudaMemset(device, 0, ctypes.c_size_t(100))
    stack.cudart.cudaMemsetAsync(device, 7, ctypes.c_size_t(60), None)
    stack.copy(host, device, 100, D2H)
    stack.synchronize()
    assert host.raw == b"\x07" * 60 + b"\0" * 40


@behaviour
def a_pinned_copy_waits_for_its_turn(stack: Stack) -> None:
    """Its source is read when the stream comes there, not when it is enqueued."""
    stream, device, pinned = stack.stream(NON_BLOCKING), stack.malloc(4), stack.pinned(4)
    host = ctypes.create_string_buffer(4)
    ctypes.memmove(pinned, b"old!", 4)
    gate = blocked(stack, stream)
    stack.copy(device, pinned, 4, H2D, stream)
    ctypes.memmove(pinned, b"new!", 4)
    gate.set()
    stack.synchronize(stream)
    stack.copy(host, device, 4, D2H)
    stack.synchronize()
    assert host.raw == b"new!"


@behaviour
def a_host_function_comes_after_the_copies_before_it(stack: Stack) -> None:
    stream, device, pinned = stack.stream(NON_BLOCKING), stack.malloc(4), stack.pinned(4)
    seen = []
    stack.cudart.cudaMemsetAsync(device, 0x41, ctypes.c_size_t(4), stream)
    stack.copy(pinned, device, 4, D2H, stream)
    stack.host_function(stream, lambda: seen.append(ctypes.string_at(pinned, 4)))
    stack.synchronize(stream)
    assert seen == [b"AAAA"]


@behaviour
def copies_in_two_dimensions_keep_the_pitch(stack: Stack) -> None:
    device, host = stack.malloc(64), ctypes.create_string_buffer(64)
    stack.cudart.cudaMemset(device, 0, ctypes.c_size_t(64))
    size = ctypes.c_size_t
    stack.cudart.cudaMemcpy2D(device, size(16), b"abcdefghi", size(3), size(3), size(3), H2D)
    stack.copy(host, device, 64, D2H)
    stack.synchronize()
    assert host.raw == (b"abc" + b"\0" * 13 + b"def" + b"\0" * 13 + b"ghi").ljust(64, b"\0")


@behaviour
def pointer_attributes_tell_kinds_of_memory(stack: Stack) -> None:
    attributes = (ctypes.c_int * 32)()
    ordinary = ctypes.create_string_buffer(16)
    types = []
    for pointer in (ordinary, stack.pinned(16), stack.malloc(16)):
        stack.cudart.cudaPointerGetAttributes(attributes, pointer)
        types.append(attributes[0])
    assert types == [0, 1, 2]


@behaviour
def a_copy_in_the_wrong_direction_is_refused(stack: Stack) -> None:
    device, host = stack.malloc(16), ctypes.create_string_buffer(16)
    assert code_of(lambda: stack.copy(host, device, 16, H2D)) == 1
    assert stack.cudart.raw.cudaGetLastError() == 1


@behaviour
def too_much_memory_is_refused_and_what_is_there_stays(stack: Stack) -> None:
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    stack.cudart.cudaMemGetInfo(ctypes.byref(free), ctypes.byref(total))
    pointer = ctypes.c_void_p()
    code = stack.cudart.raw.cudaMalloc(ctypes.byref(pointer), ctypes.c_size_t(2 * total.value))
    assert code == 2
    assert stack.cudart.raw.cudaGetLastError() == 2
    assert stack.malloc(1 << 20).value


@behaviour
def allocating_takes_from_what_is_free(stack: Stack) -> None:
    size = 64 << 20
    free, total, left = ctypes.c_size_t(), ctypes.c_size_t(), ctypes.c_size_t()
    stack.cudart.cudaMemGetInfo(ctypes.byref(free), ctypes.byref(total))
    pointer = stack.malloc(size)
    stack.cudart.cudaMemGetInfo(ctypes.byref(left), ctypes.byref(total))
    assert free.value - left.value >= size
    stack.cudart.cudaFree(pointer)
    stack.cudart.cudaMemGetInfo(ctypes.byref(left), ctypes.byref(total))
    assert left.value == free.value


@behaviour
def the_last_error_stays_until_it_is_read(stack: Stack) -> None:
    stack.synchronize()
    assert stack.cudart.raw.cudaSetDevice(99) == 101
    stack.synchronize()
    assert stack.cudart.raw.cudaPeekAtLastError() == 101
    assert stack.cudart.raw.cudaGetLastError() == 101
    assert stack.cudart.raw.cudaGetLastError() == 0


@behaviour
def a_block_of_too_many_threads_is_refused(stack: Stack) -> None:
    kernel = stack.kernel()
    assert code_of(lambda: stack.launch(kernel, threads=2048)) == 9


def malloc_in_a_child(stack: Stack) -> int:
    """What cudaMalloc returns in a forked child."""
    pid = os.fork()
    if pid == 0:
        pointer = ctypes.c_void_p()
        os._exit(stack.cudart.raw.cudaMalloc(ctypes.byref(pointer), ctypes.c_size_t(16)))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@behaviour
def a_forked_child_cannot_use_cuda(stack: Stack) -> None:
    stack.malloc(16)
    assert malloc_in_a_child(stack) == 3


@behaviour
def forking_before_the_first_use_is_fine(stack: Stack) -> None:
    assert malloc_in_a_child(stack) == 0


# ---- records ---------------------------------------------------------------------------------


@behaviour
def a_kernel_has_the_correlation_id_of_its_launch(stack: Stack) -> None:
    kernel = stack.kernel()
    with stack.capture(K.CONCURRENT_KERNEL, K.RUNTIME) as capture:
        for _ in range(5):
            stack.launch(kernel)
    calls = {it.correlationId: it for it in capture.of(K.RUNTIME) if it.cbid == CBID_LAUNCH}
    kernels = capture.kernels()
    assert sorted(calls) == sorted(it.correlationId for it in kernels)
    assert all(calls[it.correlationId].start <= it.start for it in kernels)


@behaviour
def a_kernel_record_says_what_was_launched(stack: Stack) -> None:
    kernel = stack.kernel()
    with stack.capture(K.CONCURRENT_KERNEL) as capture:
        stack.launch(kernel, threads=64)
    (record,) = capture.kernels()
    assert record.name == KERNEL
    assert (record.gridX, record.gridY, record.gridZ) == (2, 1, 1)
    assert (record.blockX, record.blockY, record.blockZ) == (64, 1, 1)
    assert (record.deviceId, record.contextId, record.graphId) == (0, 1, 0)
    assert 0 < record.start < record.end


@behaviour
def a_nested_driver_call_has_the_same_correlation_id(stack: Stack) -> None:
    kernel = stack.kernel()
    with stack.capture(K.RUNTIME, K.DRIVER) as capture:
        stack.launch(kernel)
    (call,) = (it for it in capture.of(K.RUNTIME) if it.cbid == CBID_LAUNCH)
    nested = [it for it in capture.of(K.DRIVER) if it.correlationId == call.correlationId]
    assert len(nested) == 1
    assert call.start <= nested[0].start <= nested[0].end <= call.end


@behaviour
def a_launch_by_the_driver_has_no_runtime_record(stack: Stack) -> None:
    stack.synchronize()
    function = stack.function()
    with stack.capture(K.CONCURRENT_KERNEL, K.RUNTIME, K.DRIVER) as capture:
        stack.launch_by_driver(function)
    (kernel,) = capture.kernels()
    assert [it.cbid for it in capture.of(K.DRIVER) if it.correlationId == kernel.correlationId] == [
        307
    ]
    assert kernel.correlationId not in {it.correlationId for it in capture.of(K.RUNTIME)}


@behaviour
def copy_records_say_kind_bytes_and_memory(stack: Stack) -> None:
    device, other, pinned = stack.malloc(4096), stack.malloc(4096), stack.pinned(4096)
    host, stream = ctypes.create_string_buffer(4096), stack.stream()
    with stack.capture(K.MEMCPY) as capture:
        stack.copy(device, host, 1000, H2D, stream)
        stack.copy(pinned, device, 2000, D2H, stream)
        stack.copy(other, device, 3000, D2D, stream)
    found = [(it.copyKind, it.srcKind, it.dstKind, it.bytes) for it in capture.of(K.MEMCPY)]
    assert found == [
        (MemcpyKind.HTOD, MemoryKind.PAGEABLE, MemoryKind.DEVICE, 1000),
        (MemcpyKind.DTOH, MemoryKind.DEVICE, MemoryKind.PINNED, 2000),
        (MemcpyKind.DTOD, MemoryKind.DEVICE, MemoryKind.DEVICE, 3000),
    ]


@behaviour
def a_fill_record_says_value_and_bytes(stack: Stack) -> None:
    device = stack.malloc(4096)
    with stack.capture(K.MEMSET) as capture:
        stack.cudart.cudaMemsetAsync(device, 9, ctypes.c_size_t(4000), None)
    (record,) = capture.of(K.MEMSET)
    assert (record.value, record.bytes) == (9, 4000)
    assert record.memoryKind == MemoryKind.DEVICE


@behaviour
def waiting_calls_have_synchronization_records(stack: Stack) -> None:
    stream, event = stack.stream(), stack.event()
    with stack.capture(K.SYNCHRONIZATION) as capture:
        stack.cudart.cudaEventRecord(event, stream)
        stack.cudart.cudaEventSynchronize(event)
        stack.cudart.cudaStreamWaitEvent(stream, event, 0)
        stack.cudart.cudaStreamSynchronize(stream)
        stack.cudart.cudaDeviceSynchronize()
        stack.flush()
        types = {it.type for it in capture.of(K.SYNCHRONIZATION)}
    assert types == set(SynchronizationType) - {SynchronizationType.UNKNOWN}


@behaviour
def runtime_records_have_the_system_thread_id_if_asked(stack: Stack) -> None:
    stack.synchronize()
    stack.cupti.cuptiSetThreadIdType(1)
    with stack.capture(K.RUNTIME) as capture:
        stack.synchronize()
    assert {it.threadId for it in capture.of(K.RUNTIME)} == {threading.get_native_id()}
    assert {it.processId for it in capture.of(K.RUNTIME)} == {os.getpid()}


@behaviour
def nothing_comes_of_kinds_that_are_off(stack: Stack) -> None:
    kernel = stack.kernel()
    with stack.capture(K.CONCURRENT_KERNEL) as capture:
        stack.launch(kernel)
    stack.launch(kernel)
    stack.synchronize()
    stack.flush()
    assert {it.kind for it in capture.records} == {K.CONCURRENT_KERNEL}
    assert len(capture.records) == 1


@behaviour
def external_ids_come_before_the_call_that_they_belong_to(stack: Stack) -> None:
    kernel = stack.kernel()
    with stack.capture(K.RUNTIME, K.EXTERNAL_CORRELATION) as capture:
        stack.cupti.cuptiActivityPushExternalCorrelationId(3, ctypes.c_uint64(4711))
        stack.launch(kernel)
        last = ctypes.c_uint64()
        stack.cupti.cuptiActivityPopExternalCorrelationId(3, ctypes.byref(last))
    assert last.value == 4711
    (external,) = capture.of(K.EXTERNAL_CORRELATION)
    assert (external.externalKind, external.externalId) == (3, 4711)
    (call,) = (it for it in capture.of(K.RUNTIME) if it.correlationId == external.correlationId)
    assert call.cbid == CBID_LAUNCH
    assert capture.records.index(external) < capture.records.index(call)


@behaviour
def without_kinds_of_calls_there_are_no_external_ids(stack: Stack) -> None:
    kernel = stack.kernel()
    with stack.capture(K.CONCURRENT_KERNEL, K.EXTERNAL_CORRELATION) as capture:
        stack.cupti.cuptiActivityPushExternalCorrelationId(3, ctypes.c_uint64(1))
        stack.launch(kernel)
        stack.cupti.cuptiActivityPopExternalCorrelationId(3, None)
    assert capture.of(K.EXTERNAL_CORRELATION) == []
    assert stack.cupti.raw.cuptiActivityPopExternalCorrelationId(3, None) == 18


@behaviour
def single_calls_can_be_chosen(stack: Stack) -> None:
    kernel, device = stack.kernel(), ctypes.c_int()
    has = stack.cupti.has("cuptiActivityEnableRuntimeApi")
    assert has == (stack.version >= (12, 5))
    if not has:
        raise Skipped("CUPTI before 12.5 cannot")
    with stack.capture() as capture:
        stack.cupti.cuptiActivityEnableRuntimeApi(CBID_LAUNCH, ctypes.c_uint8(1))
        stack.launch(kernel)
        stack.cudart.cudaGetDevice(ctypes.byref(device))
        stack.cupti.cuptiActivityEnableRuntimeApi(CBID_LAUNCH, ctypes.c_uint8(0))
        stack.launch(kernel)
    assert [it.cbid for it in capture.of(K.RUNTIME)] == [CBID_LAUNCH]


@behaviour
def single_calls_can_be_left_out(stack: Stack) -> None:
    if not stack.cupti.has("cuptiActivityEnableRuntimeApi"):
        raise Skipped("CUPTI before 12.5 cannot")
    kernel, device = stack.kernel(), ctypes.c_int()
    with stack.capture(K.RUNTIME) as capture:
        stack.cupti.cuptiActivityEnableRuntimeApi(CBID_GET_DEVICE, ctypes.c_uint8(0))
        stack.launch(kernel)
        stack.cudart.cudaGetDevice(ctypes.byref(device))
    cbids = [it.cbid for it in capture.of(K.RUNTIME)]
    assert CBID_LAUNCH in cbids
    assert CBID_GET_DEVICE not in cbids


# ---- graphs ----------------------------------------------------------------------------------


@behaviour
def a_captured_kernel_runs_at_launches_only(stack: Stack) -> None:
    stream, kernel = stack.stream(), stack.kernel()
    with stack.capture(K.CONCURRENT_KERNEL) as capture:
        with stack.graph(stream) as graph:
            stack.launch(kernel, stream)
        stack.synchronize()
        stack.flush()
        assert capture.kernels() == []
        for _ in range(3):
            stack.cudart.cudaGraphLaunch(graph, stream)
    assert len(capture.kernels()) == 3


@behaviour
def nodes_have_the_correlation_id_of_the_graph_launch(stack: Stack) -> None:
    stream, kernel = stack.stream(), stack.kernel()
    with stack.graph(stream) as graph:
        for _ in range(4):
            stack.launch(kernel, stream)
    with stack.capture(K.CONCURRENT_KERNEL, K.RUNTIME) as capture:
        stack.cudart.cudaGraphLaunch(graph, stream)
        stack.cudart.cudaGraphLaunch(graph, stream)
    launches = [it for it in capture.of(K.RUNTIME) if it.cbid == CBID_GRAPH_LAUNCH]
    assert not [it for it in capture.of(K.RUNTIME) if it.cbid == CBID_LAUNCH]
    kernels = capture.kernels()
    assert len(launches) == 2
    assert len(kernels) == 8
    for launch in launches:
        nodes = [it for it in kernels if it.correlationId == launch.correlationId]
        assert len({it.graphNodeId for it in nodes}) == 4
        assert all(it.graphNodeId and it.graphId for it in nodes)
    assert len({it.graphId for it in kernels}) == 1
    assert len({it.graphNodeId for it in kernels}) == 4


@behaviour
def a_graph_replays_its_copies(stack: Stack) -> None:
    stream, device, pinned, out = stack.stream(), stack.malloc(4), stack.pinned(4), stack.pinned(4)
    with stack.graph(stream) as graph:
        stack.copy(device, pinned, 4, H2D, stream)
        stack.copy(out, device, 4, D2H, stream)
    for text in (b"abcd", b"efgh"):
        ctypes.memmove(pinned, text, 4)
        stack.cudart.cudaGraphLaunch(graph, stream)
        stack.synchronize(stream)
        assert ctypes.string_at(out, 4) == text


@behaviour
def graph_tracing_gives_one_record_for_a_launch(stack: Stack) -> None:
    stream, kernel = stack.stream(), stack.kernel()
    with stack.graph(stream) as graph:
        for _ in range(4):
            stack.launch(kernel, stream)
    with stack.capture(K.CONCURRENT_KERNEL, K.GRAPH_TRACE) as capture:
        stack.cudart.cudaGraphLaunch(graph, stream)
        stack.launch(kernel, stream)
    (record,) = capture.of(K.GRAPH_TRACE)
    assert record.graphId
    assert 0 < record.start < record.end
    assert [it.graphId for it in capture.kernels()] == [0]


@behaviour
def a_capture_spreads_and_comes_back_by_events(stack: Stack) -> None:
    main, side, fork, join = stack.stream(), stack.stream(), stack.event(), stack.event()
    one, other = stack.kernel(), stack.kernel(OTHER_KERNEL)
    with stack.graph(main) as graph:
        stack.launch(one, main)
        stack.cudart.cudaEventRecord(fork, main)
        stack.cudart.cudaStreamWaitEvent(side, fork, 0)
        stack.launch(other, side)
        stack.cudart.cudaEventRecord(join, side)
        stack.cudart.cudaStreamWaitEvent(main, join, 0)
        stack.launch(one, main)
    with stack.capture(K.CONCURRENT_KERNEL) as capture:
        stack.cudart.cudaGraphLaunch(graph, main)
    kernels = capture.kernels()
    assert [it.name for it in kernels] == [KERNEL, OTHER_KERNEL, KERNEL]
    assert all(a.end <= b.start for a, b in pairwise(kernels))


@behaviour
def waiting_spoils_a_capture(stack: Stack) -> None:
    stream, graph = stack.stream(), ctypes.c_void_p()
    stack.cudart.cudaStreamBeginCapture(stream, 0)
    assert stack.cudart.raw.cudaStreamSynchronize(stream) == 900
    assert stack.cudart.raw.cudaStreamEndCapture(stream, ctypes.byref(graph)) == 901
    assert not graph.value
    stack.launch(stack.kernel(), stream)
    stack.synchronize(stream)


@behaviour
def a_branch_that_does_not_come_back_is_an_error(stack: Stack) -> None:
    main, side, fork, graph = stack.stream(), stack.stream(), stack.event(), ctypes.c_void_p()
    kernel = stack.kernel()
    stack.cudart.cudaStreamBeginCapture(main, 0)
    stack.launch(kernel, main)
    stack.cudart.cudaEventRecord(fork, main)
    stack.cudart.cudaStreamWaitEvent(side, fork, 0)
    stack.launch(kernel, side)
    assert stack.cudart.raw.cudaStreamEndCapture(main, ctypes.byref(graph)) == 904


@behaviour
def the_default_stream_cannot_be_captured(stack: Stack) -> None:
    stack.synchronize()
    assert stack.cudart.raw.cudaStreamBeginCapture(None, 0) == 900


# ---- CUPTI -----------------------------------------------------------------------------------


@behaviour
def there_is_one_subscriber(stack: Stack) -> None:
    stack.synchronize()
    handle = stack.subscribe(lambda *_: None)
    assert code_of(lambda: bool(stack.subscribe(lambda *_: None)) and None) == 39
    stack.cupti.cuptiUnsubscribe(handle)
    stack.cupti.cuptiUnsubscribe(stack.subscribe(lambda *_: None))


@behaviour
def the_subscriber_hears_of_the_calls_that_it_chose(stack: Stack) -> None:
    kernel, heard = stack.kernel(), []

    def hear(domain: int, cbid: int, data: object) -> None:
        assert hasattr(data, "correlation_data")
        if data.site == 0:
            data.correlation_data[0] = 99
        symbol = data.symbol.decode() if data.symbol else None
        heard.append((domain, cbid, data.site, data.function.decode(), symbol))
        carried.append(data.correlation_data[0])
        ids.add(data.correlation_id)

    carried: list[int] = []
    ids: set[int] = set()
    handle = stack.subscribe(hear)
    stack.cupti.cuptiEnableCallback(1, handle, RUNTIME, CBID_LAUNCH)
    with stack.capture(K.CONCURRENT_KERNEL) as capture:
        stack.launch(kernel)
    stack.cupti.cuptiUnsubscribe(handle)
    stack.launch(kernel)
    assert heard == [
        (RUNTIME, CBID_LAUNCH, 0, "cudaLaunchKernel", KERNEL),
        (RUNTIME, CBID_LAUNCH, 1, "cudaLaunchKernel", KERNEL),
    ]
    assert carried == [99, 99]
    assert ids == {capture.kernels()[0].correlationId}


@behaviour
def a_whole_domain_can_be_heard(stack: Stack) -> None:
    device, heard = ctypes.c_int(), []
    stack.synchronize()
    handle = stack.subscribe(lambda domain, cbid, data: heard.append((domain, cbid, data.site)))
    stack.cupti.cuptiEnableDomain(1, handle, RUNTIME)
    stack.cudart.cudaGetDevice(ctypes.byref(device))
    stack.cupti.cuptiEnableDomain(0, handle, RUNTIME)
    stack.cudart.cudaGetDevice(ctypes.byref(device))
    stack.cupti.cuptiUnsubscribe(handle)
    assert heard == [(RUNTIME, CBID_GET_DEVICE, 0), (RUNTIME, CBID_GET_DEVICE, 1)]


@behaviour
def wrong_arguments_of_cupti_are_refused(stack: Stack) -> None:
    stack.synchronize()
    raw = stack.cupti.raw
    assert raw.cuptiActivityEnable(0) == 21
    assert raw.cuptiActivityEnable(1000) == 21
    assert raw.cuptiActivityRegisterCallbacks(None, None) == 1
    assert raw.cuptiGetTimestamp(None) == 1
    assert raw.cuptiSubscribe(None, None, None) == 1
    assert raw.cuptiActivityRegisterTimestampCallback(None) == 1


@behaviour
def the_timestamp_is_the_time_of_day(stack: Stack) -> None:
    stamp = ctypes.c_uint64()
    before = time.time_ns()
    stack.cupti.cuptiGetTimestamp(ctypes.byref(stamp))
    assert before <= stamp.value <= time.time_ns()


@behaviour
def records_are_in_the_time_of_day(stack: Stack) -> None:
    kernel = stack.kernel()
    before = time.time_ns()
    with stack.capture(K.CONCURRENT_KERNEL, K.RUNTIME) as capture:
        stack.launch(kernel)
    after = time.time_ns()
    for record in capture.of(K.CONCURRENT_KERNEL, K.RUNTIME):
        assert before <= record.start <= record.end <= after


@behaviour
def without_a_buffer_records_are_dropped_and_counted(stack: Stack) -> None:
    kernel = stack.kernel()
    stack.buffer_bytes = 0
    with stack.capture(K.CONCURRENT_KERNEL) as capture:
        for _ in range(10):
            stack.launch(kernel)
        stack.synchronize()
    assert capture.records == []
    assert stack.dropped() == 10
    assert stack.dropped() == 0


@behaviour
def small_buffers_only_mean_more_of_them(stack: Stack) -> None:
    kernel = stack.kernel()
    stack.buffer_bytes = 1024
    with stack.capture(K.CONCURRENT_KERNEL) as capture:
        for _ in range(100):
            stack.launch(kernel)
    assert len(capture.kernels()) == 100
    assert capture.buffers >= 20
    assert stack.dropped() == 0


@behaviour
def a_flush_delivers_on_the_thread_that_flushes(stack: Stack) -> None:
    kernel = stack.kernel()
    with stack.capture(K.CONCURRENT_KERNEL) as capture:
        stack.launch(kernel)
    assert capture.delivered_on == {threading.get_native_id()}


@behaviour
def late_attach_shows_context_and_streams_that_exist(stack: Stack) -> None:
    stream, number = stack.stream(), ctypes.c_uint32()
    stack.cupti.cuptiGetStreamIdEx(None, stream, ctypes.c_uint8(0), ctypes.byref(number))
    with stack.capture() as capture:
        for kind in (K.DEVICE, K.CONTEXT, K.STREAM):
            stack.cupti.cuptiActivityEnableAndDump(kind)
        stack.flush()
        for kind in (K.DEVICE, K.CONTEXT, K.STREAM):
            stack.cupti.cuptiActivityDisable(kind)
    (context,) = capture.of(K.CONTEXT)
    assert (context.contextId, context.deviceId, context.nullStreamId) == (1, 0, 7)
    assert number.value in {it.streamId for it in capture.of(K.STREAM)}
    assert 0 in {it.id for it in capture.of(K.DEVICE)}


@behaviour
def attach_and_finalize_can_be_repeated(stack: Stack) -> None:
    kernel = stack.kernel()
    for _ in range(20):
        handle = stack.subscribe(lambda *_: None)
        stack.cupti.cuptiEnableCallback(1, handle, RUNTIME, CBID_LAUNCH)
        with stack.capture(K.CONCURRENT_KERNEL, K.RUNTIME) as capture:
            stack.launch(kernel)
        assert len(capture.kernels()) == 1
        stack.cupti.cuptiFinalize()
    stack.launch(kernel)
    stack.synchronize()


@behaviour
def result_codes_have_names(stack: Stack) -> None:
    text = ctypes.c_char_p()
    stack.cupti.cuptiGetResultString(39, ctypes.byref(text))
    assert text.value == b"CUPTI_ERROR_MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED"


@behaviour
def driver_functions_are_found_by_name(stack: Stack) -> None:
    function, status = ctypes.c_void_p(), ctypes.c_int()
    stack.cuda.cuInit(0)
    for name in (b"cuMemAlloc", b"cuLaunchKernel", b"cuGetErrorString"):
        stack.cuda.cuGetProcAddress_v2(
            name, ctypes.byref(function), 12000, ctypes.c_uint64(0), ctypes.byref(status)
        )
        assert function.value
        assert status.value == 0


@behaviour
def the_driver_asks_for_initialization(stack: Stack) -> None:
    count = ctypes.c_int()
    assert stack.cuda.raw.cuDeviceGetCount(ctypes.byref(count)) == 3
    stack.cuda.cuInit(0)
    stack.cuda.cuDeviceGetCount(ctypes.byref(count))
    assert count.value >= 1


@behaviour
def driver_calls_need_a_context(stack: Stack) -> None:
    pointer, context = ctypes.c_uint64(), ctypes.c_void_p()
    stack.cuda.cuInit(0)
    assert stack.cuda.raw.cuMemAlloc_v2(ctypes.byref(pointer), ctypes.c_size_t(16)) == 201
    stack.cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0)
    stack.cuda.cuCtxSetCurrent(context)
    stack.cuda.cuMemAlloc_v2(ctypes.byref(pointer), ctypes.c_size_t(16))
    assert pointer.value


@behaviour
def drivers_calls_can_be_heard(stack: Stack) -> None:
    stack.synchronize()
    function, heard = stack.function(), []
    handle = stack.subscribe(
        lambda domain, cbid, data: heard.append((domain, cbid, data.site, data.symbol))
    )
    stack.cupti.cuptiEnableCallback(1, handle, DRIVER, 307)
    on = ctypes.c_uint32()
    stack.cupti.cuptiGetCallbackState(ctypes.byref(on), handle, DRIVER, 307)
    assert on.value == 1
    stack.launch_by_driver(function)
    stack.cupti.cuptiUnsubscribe(handle)
    symbol = KERNEL.encode()
    assert heard == [(DRIVER, 307, 0, symbol), (DRIVER, 307, 1, symbol)]


@behaviour
def all_domains_can_be_heard(stack: Stack) -> None:
    kernel, heard = stack.kernel(), set()
    handle = stack.subscribe(lambda domain, *_: heard.add(domain))
    stack.cupti.cuptiEnableAllDomains(1, handle)
    stack.launch(kernel)
    stack.cupti.cuptiUnsubscribe(handle)
    assert {DRIVER, RUNTIME} <= heard


@behaviour
def domains_of_callbacks_are_known(stack: Stack) -> None:
    count, domains = ctypes.c_size_t(), ctypes.POINTER(ctypes.c_uint32)()
    stack.cupti.cuptiSupportedDomains(ctypes.byref(count), ctypes.byref(domains))
    assert {1, 2, 3, 4} <= set(domains[: count.value])


@behaviour
def the_first_subscriber_is_named_to_the_second(stack: Stack) -> None:
    if not stack.cupti.has("cuptiSubscribe_v2"):
        raise Skipped("CUPTI before 13.0 cannot")

    class Parameters(ctypes.Structure):
        _fields_ = (
            ("size", ctypes.c_size_t),
            ("name", ctypes.c_char_p),
            ("old", ctypes.c_char_p),
            ("old_size", ctypes.c_size_t),
        )

    stack.synchronize()
    callback = ctypes.CFUNCTYPE(None)(lambda: None)
    first, second = ctypes.c_void_p(), ctypes.c_void_p()
    mine = Parameters(32, b"first", None, 0)
    stack.cupti.cuptiSubscribe_v2(ctypes.byref(first), callback, None, ctypes.byref(mine))
    old = ctypes.create_string_buffer(64)
    theirs = Parameters(32, b"second", ctypes.addressof(old), 64)
    subscribe = stack.cupti.raw.cuptiSubscribe_v2
    assert subscribe(ctypes.byref(second), callback, None, ctypes.byref(theirs)) == 39
    assert old.value == b"first"
    stack.cupti.cuptiUnsubscribe(first)


@behaviour
def a_clock_of_the_client_is_used_for_all_times(stack: Stack) -> None:
    kernel = stack.kernel()
    clock = ctypes.CFUNCTYPE(ctypes.c_uint64)(time.monotonic_ns)
    stack.register()
    stack.cupti.cuptiActivityRegisterTimestampCallback(clock)
    before = time.monotonic_ns()
    with stack.capture(K.CONCURRENT_KERNEL, K.RUNTIME) as capture:
        stack.launch(kernel)
    after = time.monotonic_ns()
    stack.cupti.cuptiFinalize()  # the clock goes before Python does
    for record in capture.of(K.CONCURRENT_KERNEL, K.RUNTIME):
        assert before <= record.start <= record.end <= after


@behaviour
def attributes_are_kept(stack: Stack) -> None:
    stack.synchronize()
    value, size = ctypes.c_size_t(16 << 20), ctypes.c_size_t(8)
    stack.cupti.cuptiActivitySetAttribute(0, ctypes.byref(size), ctypes.byref(value))
    found = ctypes.c_size_t()
    stack.cupti.cuptiActivityGetAttribute(0, ctypes.byref(size), ctypes.byref(found))
    assert found.value == 16 << 20
    zeroed, one = ctypes.c_uint8(1), ctypes.c_size_t(1)
    stack.cupti.cuptiActivitySetAttribute(5, ctypes.byref(one), ctypes.byref(zeroed))


@behaviour
def a_flush_period_delivers_full_buffers_by_itself(stack: Stack) -> None:
    kernel, arrived = stack.kernel(), threading.Event()
    stack.buffer_bytes = 1024
    complete = stack._complete
    stack._complete = lambda *a: (complete(*a), arrived.set())  # type: ignore[method-assign]
    with stack.capture(K.CONCURRENT_KERNEL) as capture:
        stack.cupti.cuptiActivityFlushPeriod(10)
        for _ in range(100):
            stack.launch(kernel)
        assert arrived.wait(60)
        assert threading.get_native_id() not in capture.delivered_on
    assert len(capture.kernels()) == 100


@behaviour
def allocations_have_records(stack: Stack) -> None:
    stack.synchronize()
    with stack.capture(K.MEMORY2) as capture:
        pointer = stack.malloc(4096)
        stack.cudart.cudaFree(pointer)
    first, last = capture.of(K.MEMORY2)
    assert (first.memoryOperationType, last.memoryOperationType) == (1, 2)
    assert first.address == last.address == pointer.value
    assert first.bytes == 4096
    assert first.memoryKind == MemoryKind.DEVICE


@behaviour
def contexts_and_devices_have_ids(stack: Stack) -> None:
    stack.synchronize()
    context, number = ctypes.c_void_p(), ctypes.c_uint32()
    stack.cuda.cuCtxGetCurrent(ctypes.byref(context))
    stack.cupti.cuptiGetContextId(context, ctypes.byref(number))
    assert number.value == 1
    stack.cupti.cuptiGetDeviceId(context, ctypes.byref(number))
    assert number.value == 0


@behaviour
def errors_have_messages(stack: Stack) -> None:
    if not stack.cupti.has("cuptiGetErrorMessage"):
        raise Skipped("CUPTI before 12 cannot")
    text = ctypes.c_char_p()
    stack.cupti.cuptiGetErrorMessage(21, ctypes.byref(text))
    assert text.value
    assert stack.cupti.raw.cuptiGetErrorMessage(123456, ctypes.byref(text)) == 1


@behaviour
def graphs_have_the_ids_of_their_records(stack: Stack) -> None:
    if not stack.cupti.has("cuptiGetGraphExecId"):
        raise Skipped("CUPTI before 12 cannot")
    stream, kernel, number = stack.stream(), stack.kernel(), ctypes.c_uint32()
    with stack.graph(stream) as graph:
        stack.launch(kernel, stream)
    with stack.capture(K.CONCURRENT_KERNEL) as capture:
        stack.cudart.cudaGraphLaunch(graph, stream)
    stack.cupti.cuptiGetGraphExecId(graph, ctypes.byref(number))
    assert capture.kernels()[0].graphId == number.value
