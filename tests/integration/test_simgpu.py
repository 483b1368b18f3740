"""The simulated CUDA stack: programs run on it unchanged, and what CUPTI tells is what was so."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path

import pytest

from gputap.profiler.cupti.abi import ActivityKind, Version
from tests import simulated
from tests.simgpu import build, programs, recording, truth
from tools import check_cupti_abi

K = ActivityKind
STEPS = 20
WALKERS: tuple[Version, ...] = ((11, 8), (12, 1), (12, 4), (12, 6), (12, 8), (13, 0), (13, 1))
"""Versions whose cuptiActivityGetNextRecord works without a driver."""
CALLS = {
    "__cudaLaunchKernel": (505, 2 * STEPS + 1),
    "cudaGraphLaunch": (311, STEPS),
    "cudaMemcpyAsync": (41, 2 * STEPS),
    "cudaMemsetAsync": (51, STEPS),
    "cudaStreamSynchronize": (131, STEPS),
    "cudaDeviceSynchronize": (165, 1),
    "cudaMalloc": (20, 2),
    "cudaMemcpyToSymbol": (39, 1),
    "cudaMemcpyFromSymbol": (40, 1),
}


@pytest.fixture(scope="module")
def libraries() -> Path:
    return simulated.libraries()


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        return programs.compile_program(tmp_path_factory.mktemp("program"))
    except programs.CannotCompile as exc:
        pytest.skip(str(exc))


Recorded = tuple[recording.Recording, list[truth.Operation]]


@pytest.fixture(scope="module")
def recorded(program: Path, libraries: Path, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """`program.cu` from start to end, under the default CUPTI."""
    folder = tmp_path_factory.mktemp("recorded")
    found, happened, printed = programs.record(program, libraries, folder, str(STEPS))
    assert printed == "back 7 last 0\n"
    return found, happened


# ---- a program compiled by nvcc ---------------------------------------------------------------


def test_every_kernel_copy_and_fill_of_a_compiled_program_is_recorded(recorded: Recorded) -> None:
    found, _ = recorded
    kinds = Counter(record.kind for record in found.walk())
    assert kinds[K.CONCURRENT_KERNEL] == 3 * STEPS
    assert kinds[K.MEMCPY] == 2 * STEPS + 2
    assert kinds[K.MEMSET] == STEPS
    assert kinds[K.SYNCHRONIZATION] == STEPS + 1
    assert (found.dropped, found.complete) == (0, True)


@pytest.mark.parametrize("name", list(CALLS))
def test_every_call_of_a_compiled_program_is_recorded(name: str, recorded: Recorded) -> None:
    cbid, count = CALLS[name]
    calls = [it for it in recorded[0].walk() if it.kind == K.RUNTIME and it["cbid"] == cbid]
    assert len(calls) == count
    assert all(0 < call["start"] <= call["end"] for call in calls)
    assert {call["returnValue"] for call in calls} == {0}


def test_a_program_with_default_streams_per_thread_runs(libraries: Path, tmp_path: Path) -> None:
    try:
        program = programs.compile_program(tmp_path, "--default-stream", "per-thread")
    except programs.CannotCompile as exc:
        pytest.skip(str(exc))
    found, _, printed = programs.record(program, libraries, tmp_path, "5")
    assert printed == "back 7 last 0\n"
    cbids = {it["cbid"] for it in found.walk() if it.kind == K.RUNTIME}
    assert {506, 225, 235, 239} <= cbids
    assert not {505, 41, 51, 131} & cbids


def test_every_kernel_belongs_to_a_call(recorded: Recorded) -> None:
    records = recorded[0].walk()
    calls = {it["correlationId"]: it for it in records if it.kind == K.RUNTIME}
    for kernel in (it for it in records if it.kind == K.CONCURRENT_KERNEL):
        call = calls[kernel["correlationId"]]
        assert call["cbid"] == (311 if kernel["graphId"] else 505)
        assert call["start"] <= kernel["start"]


def test_records_equal_the_truth(recorded: Recorded) -> None:
    """Place and time of every operation, exactly."""
    found, happened = recorded
    kinds = {K.CONCURRENT_KERNEL: "kernel", K.MEMCPY: "memcpy", K.MEMSET: "memset"}
    told = [
        (kinds[K(it.kind)], it["start"], it["end"], it["streamId"], it["correlationId"])
        for it in found.walk()
        if it.kind in kinds
    ]
    so = [
        (it.kind, it.start_ns, it.end_ns, it.stream, it.correlation_id)
        for it in happened
        if it.kind in kinds.values()
    ]
    assert sorted(told) == sorted(so)


def test_records_say_what_happened(recorded: Recorded) -> None:
    """Name, size and node of the graph of every operation, exactly."""
    found, happened = recorded
    kinds = {K.CONCURRENT_KERNEL: "kernel", K.MEMCPY: "memcpy", K.MEMSET: "memset"}
    told = [
        (it["start"], it["graphId"], it["graphNodeId"], it.fields.get("bytes", 0))
        for it in found.walk()
        if it.kind in kinds
    ]
    so = [
        (it.start_ns, it.graph_id, it.graph_node_id, it.bytes)
        for it in happened
        if it.kind in kinds.values()
    ]
    assert sorted(told) == sorted(so)
    names = Counter(name_of(found, it) for it in found.walk() if it.kind == K.CONCURRENT_KERNEL)
    assert names == Counter(it.name for it in happened if it.kind == "kernel")


def name_of(found: recording.Recording, record: recording.Record) -> str:
    if record.kind != K.CONCURRENT_KERNEL:
        return ""
    (name,) = found.names[record["name"]]
    return name


@pytest.mark.parametrize("version", WALKERS, ids=lambda it: f"{it[0]}.{it[1]}")
def test_nvidias_own_parser_walks_our_buffers(
    version: Version, program: Path, libraries: Path, tmp_path: Path
) -> None:
    try:
        folder = check_cupti_abi.fetched(version)
    except check_cupti_abi.Unavailable as exc:
        pytest.skip(str(exc))
    soname = "libcupti.so.11.8" if version < (12, 0) else f"libcupti.so.{version[0]}"
    (theirs,) = folder.glob(f"nvidia/*/lib/{soname}")
    found, happened, _ = programs.record(
        program,
        libraries,
        tmp_path,
        "50",
        RECORDER_CUPTI=soname,
        SIMGPU_CUPTI_VERSION=f"{version[0]}.{version[1]}",
    )
    assert found.version == version
    records = found.walk()
    assert found.walk_with(theirs) == records
    assert sum(it.kind == K.CONCURRENT_KERNEL for it in records) == 150
    kernel_ns = sum(it["end"] - it["start"] for it in records if it.kind == K.CONCURRENT_KERNEL)
    assert kernel_ns == sum(it.end_ns - it.start_ns for it in happened if it.kind == "kernel")


def test_the_virtual_clock_gives_the_same_records_again(
    program: Path, libraries: Path, tmp_path: Path
) -> None:
    runs = []
    for _ in range(2):
        found, _, _ = programs.record(
            program, libraries, tmp_path, "10", SIMGPU_CLOCK="virtual", SIMGPU_CUPTI_VERSION="13.0"
        )
        ids = {"threadId", "processId", "name", "objectId"}
        runs.append(
            [
                (it.kind, {k: v for k, v in it.fields.items() if k not in ids}, name_of(found, it))
                for it in found.walk()
            ]
        )
    assert runs[0] == runs[1]
    assert len(runs[0]) > 100


# ---- libraries --------------------------------------------------------------------------------


def exports(library: Path) -> dict[str, str]:
    """Defined symbols and their versions."""
    done = subprocess.run(
        ["readelf", "-W", "--dyn-syms", str(library)], capture_output=True, text=True, check=True
    )
    rows = [line.split() for line in done.stdout.splitlines()]
    defined = [row[7] for row in rows if len(row) >= 8 and row[4] == "GLOBAL" and row[6] != "UND"]
    return {name: version for name, _, version in (it.partition("@@") for it in defined)}


@pytest.mark.parametrize(
    ("soname", "version"),
    [
        ("libcudart.so.13", "libcudart.so.13"),
        ("libcudart.so.12", "libcudart.so.12"),
        ("libcupti.so.13", "libcupti.so.13"),
        ("libcupti.so.12", "libcupti.so.12"),
        ("libcupti.so.11.8", "libcupti.so.11.8"),
        ("libcuda.so.1", ""),
    ],
)
def test_libraries_have_real_names_and_symbol_versions(
    soname: str, version: str, libraries: Path
) -> None:
    text = subprocess.run(
        ["readelf", "-d", str(libraries / soname)], capture_output=True, text=True, check=True
    ).stdout
    assert re.search(r"SONAME.*\[(.*)\]", text)[1] == soname  # type: ignore[index]
    found = {name: of for name, of in exports(libraries / soname).items() if name != version}
    assert set(found.values()) == {version}
    assert all(name.startswith(("cu", "__cuda")) for name in found)


@pytest.mark.parametrize("version", [(11, 8), (12, 8), (13, 0)], ids=lambda it: f"{it[0]}.{it[1]}")
def test_nothing_is_exported_that_the_real_libcupti_has_not(
    version: Version, libraries: Path
) -> None:
    try:
        folder = check_cupti_abi.fetched(version)
    except check_cupti_abi.Unavailable as exc:
        pytest.skip(str(exc))
    soname = "libcupti.so.11.8" if version < (12, 0) else f"libcupti.so.{version[0]}"
    (real,) = folder.glob(f"nvidia/*/lib/{soname}")
    assert exports(libraries / soname).items() <= exports(real).items()


def test_nothing_is_exported_that_the_real_libcudart_has_not(libraries: Path) -> None:
    real = Path("/usr/local/cuda/lib64/libcudart.so.13")
    if not real.exists():
        pytest.skip(f"there is no {real}")
    assert exports(libraries / "libcudart.so.13").items() <= exports(real).items()


# ---- sanitizers -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sanitized() -> Path:
    return simulated.libraries("address,undefined")


@pytest.mark.parametrize("name", ["simgpu_selftest", "simgpu_tracer_selftest"])
def test_selftests_pass_under_sanitizers(name: str, sanitized: Path) -> None:
    done = subprocess.run(
        [str(sanitized / name)], capture_output=True, text=True, timeout=170, check=False
    )
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    assert done.stderr == ""


# ---- devices, memory, durations ---------------------------------------------------------------


def test_a_duration_that_is_given_is_kept(libraries: Path, tmp_path: Path) -> None:
    code = """
        kernel, stream = stack.kernel(), stack.stream()
        give = ctypes.CDLL("libsimgpu.so").simgpu_next_duration_ns
        for ns in (1234567, 89):
            give(ctypes.c_uint64(ns))
            stack.launch(kernel, stream)
        stack.launch(kernel, stream)
        stack.synchronize(stream)
    """
    log = tmp_path / "truth.csv"
    programs.python(textwrap.dedent(code), libraries, SIMGPU_LOG=str(log))
    durations = [it.end_ns - it.start_ns for it in truth.read(log)]
    assert durations[:2] == [1234567, 89]
    assert durations[2] not in durations[:2]


def test_memory_ends_where_it_is_told_to(libraries: Path) -> None:
    code = """
        first = stack.malloc(600 << 20)
        pointer = ctypes.c_void_p()
        allocate = stack.cudart.raw.cudaMalloc
        print(allocate(ctypes.byref(pointer), ctypes.c_size_t(600 << 20)))
        stack.cudart.cudaFree(first)
        print(allocate(ctypes.byref(pointer), ctypes.c_size_t(600 << 20)))
    """
    printed = programs.python(textwrap.dedent(code), libraries, SIMGPU_MEMORY=str(1 << 30))
    assert printed.split() == ["2", "0"]


def test_eighty_gibibytes_can_be_had_on_any_machine(libraries: Path) -> None:
    assert programs.python("print(stack.malloc(79 << 30).value > 0)", libraries) == "True\n"


def test_copies_between_devices_are_peer_copies(libraries: Path) -> None:
    code = """
        here, data = stack.malloc(4096), os.urandom(4096)
        stack.cudart.cudaSetDevice(1)
        there, host = stack.malloc(4096), ctypes.create_string_buffer(4096)
        stack.copy(there, data, 4096, H2D)
        stack.cudart.cudaSetDevice(0)
        with stack.capture(ActivityKind.MEMCPY2) as capture:
            stack.cudart.cudaMemcpyPeerAsync(here, 0, there, 1, ctypes.c_size_t(4096), None)
        (record,) = capture.of(ActivityKind.MEMCPY2)
        print(record.copyKind, record.srcDeviceId, record.dstDeviceId, record.bytes)
        stack.copy(host, here, 4096, D2H)
        stack.synchronize()
        print(host.raw == data)
    """
    printed = programs.python(textwrap.dedent(code), libraries, SIMGPU_DEVICES="2")
    assert printed.splitlines() == ["10 1 0 4096", "True"]


def test_no_device_is_an_error_of_its_own(libraries: Path) -> None:
    code = "print(stack.cudart.raw.cudaDeviceSynchronize(), stack.cuda.raw.cuInit(0))"
    assert programs.python(code, libraries, SIMGPU_DEVICES="0") == "100 100\n"


def test_streams_overlap_and_streams_of_a_device_do_not_know_another(libraries: Path) -> None:
    code = """
        give = ctypes.CDLL("libsimgpu.so").simgpu_next_duration_ns
        kernel, streams = stack.kernel(), [stack.stream(1), stack.stream(1)]
        with stack.capture(ActivityKind.CONCURRENT_KERNEL) as capture:
            for stream in streams:
                give(ctypes.c_uint64(200_000_000))
                stack.launch(kernel, stream)
        first, second = capture.kernels()
        print(second.start < first.end)
    """
    assert programs.python(textwrap.dedent(code), libraries) == "True\n"


# ---- truth log --------------------------------------------------------------------------------


def test_the_truth_survives_a_kill(libraries: Path, tmp_path: Path) -> None:
    code = """
        from tests.gpu.stack import Stack
        stack = Stack()
        kernel = stack.kernel()
        for _ in range(300):
            stack.launch(kernel)
        print("ready", flush=True)
        while True:
            stack.launch(kernel)
    """
    log = tmp_path / "truth.csv"
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=build.ROOT,
        env=programs.environment(libraries, SIMGPU_LOG=str(log)),
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGKILL)
    operations = truth.read(log)
    assert len(operations) >= 300
    assert {it.name for it in operations} == {"_Z6actionv"}
