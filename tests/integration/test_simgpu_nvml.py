"""The simulated NVML, asked by nvidia-ml-py: what all simulated processes of the machine do."""

from __future__ import annotations

import _ctypes
import ctypes
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import simulated
from tests.simgpu.nccl.job import Job
from tests.simgpu.nvml.board import Board, DeviceBoard, pin_up

ROOT = Path(__file__).resolve().parents[2]
GIB = 1 << 30
FOREVER_NS = 10**15

pynvml: Any = pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")

BUSY = """
import ctypes, sys
from pathlib import Path
from tests.simgpu.nccl.library import Cuda
cuda = Cuda(Path(sys.argv[1]))
core = ctypes.CDLL(sys.argv[1] + "/libsimgpu.so")
cuda.set_device(1)
memory = cuda.allocate(3 << 30)
core.simgpu_next_duration_ns(ctypes.c_uint64(10**15))
cuda.call("cudaMemsetAsync", memory, 0, ctypes.c_size_t(4096), cuda.stream())
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def folder() -> Path:
    return simulated.libraries()


@pytest.fixture
def boards(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where processes of this test alone say what they do. nvidia-ml-py finds the library.

    Afterwards it is unloaded: other tests of this process must find no NVML.
    """
    monkeypatch.setenv("SIMGPU_BOARD", str(tmp_path))
    monkeypatch.setenv("SIMGPU_DEVICES", "2")
    library = ctypes.CDLL(str(folder / "libnvidia-ml.so.1"))
    yield tmp_path
    for loaded in (pynvml.nvmlLib, library):
        if loaded is not None:
            _ctypes.dlclose(loaded._handle)
    pynvml.nvmlLib = None
    pynvml._nvmlGetFunctionPointer_cache.clear()
    assert "libnvidia-ml" not in Path("/proc/self/maps").read_text()


@pytest.fixture
def nvml(boards: Path) -> Iterator[Any]:
    pynvml.nvmlInit()
    yield pynvml
    pynvml.nvmlShutdown()


def test_identity_and_versions(nvml: Any) -> None:
    assert nvml.nvmlDeviceGetCount() == 2
    handle = nvml.nvmlDeviceGetHandleByIndex(1)
    assert "simulated" in nvml.nvmlDeviceGetName(handle)
    uuid = nvml.nvmlDeviceGetUUID(handle)
    assert uuid == "GPU-53696d47-5055-4000-8000-000000000001"
    pci = nvml.nvmlDeviceGetPciInfo(handle)
    assert (pci.busId, pci.busIdLegacy, pci.bus) == ("00000000:19:00.0", "0000:19:00.0", 0x19)
    for again in (
        nvml.nvmlDeviceGetHandleByUUID(uuid),
        nvml.nvmlDeviceGetHandleByPciBusId(pci.busId),
        nvml.nvmlDeviceGetHandleByPciBusId(pci.busIdLegacy),
    ):
        assert nvml.nvmlDeviceGetIndex(again) == 1
    assert nvml.nvmlDeviceGetMinorNumber(handle) == 1
    assert nvml.nvmlDeviceGetCudaComputeCapability(handle) == (9, 0)
    assert nvml.nvmlSystemGetDriverVersion() == "580.95.05"
    assert nvml.nvmlSystemGetNVMLVersion() == "13.580.95.05"
    assert nvml.nvmlSystemGetCudaDriverVersion() == 13000
    assert nvml.nvmlSystemGetCudaDriverVersion_v2() == 13000


def test_what_is_not_there(nvml: Any) -> None:
    for error, call in (
        (nvml.NVMLError_InvalidArgument, lambda: nvml.nvmlDeviceGetHandleByIndex(2)),
        (nvml.NVMLError_NotFound, lambda: nvml.nvmlDeviceGetHandleByUUID("GPU-none")),
        (nvml.NVMLError_NotFound, lambda: nvml.nvmlDeviceGetHandleByPciBusId("0000:01:00.0")),
        (nvml.NVMLError_NotSupported, lambda: nvml.nvmlDeviceGetFanSpeed(gpu(nvml))),
        (nvml.NVMLError_InvalidArgument, lambda: nvml.nvmlDeviceGetNvLinkState(gpu(nvml), 18)),
        (nvml.NVMLError_FunctionNotFound, lambda: nvml.nvmlDeviceGetSerial(gpu(nvml))),
    ):
        with pytest.raises(error):
            call()
    message = nvml.nvmlErrorString(nvml.NVML_ERROR_NOT_SUPPORTED)
    assert message == "The requested operation is not available on target device"


def test_before_and_after(boards: Path) -> None:
    with pytest.raises(pynvml.NVMLError_Uninitialized):
        pynvml.nvmlDeviceGetCount()
    for _ in range(2):
        pynvml.nvmlInit()
    handle = gpu(pynvml)
    pynvml.nvmlShutdown()
    assert pynvml.nvmlDeviceGetIndex(handle) == 0
    pynvml.nvmlShutdown()
    with pytest.raises(pynvml.NVMLError_Uninitialized):
        pynvml.nvmlDeviceGetIndex(handle)
    assert pynvml.nvmlLib.nvmlInit_v2() == 0  # others than nvidia-ml-py
    pynvml.nvmlShutdown()
    with pytest.raises(pynvml.NVMLError_Uninitialized):
        pynvml.nvmlShutdown()


def test_an_idle_device(nvml: Any) -> None:
    handle = gpu(nvml)
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    assert (memory.total, memory.free, memory.used) == (80 * GIB, 80 * GIB, 0)
    rates = nvml.nvmlDeviceGetUtilizationRates(handle)
    assert (rates.gpu, rates.memory) == (0, 0)
    assert nvml.nvmlDeviceGetPowerUsage(handle) == 70_000
    assert nvml.nvmlDeviceGetEnforcedPowerLimit(handle) == 700_000
    assert nvml.nvmlDeviceGetPowerManagementLimit(handle) == 700_000
    assert nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU) == 34
    assert nvml.nvmlDeviceGetTemperatureV(handle, nvml.NVML_TEMPERATURE_GPU) == 34
    slowdown = nvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN
    assert nvml.nvmlDeviceGetTemperatureThreshold(handle, slowdown) == 87
    assert nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM) == 345
    assert nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM) == 2619
    assert nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_SM) == 1980
    assert nvml.nvmlDeviceGetCurrentClocksEventReasons(handle) == nvml.nvmlClocksEventReasonGpuIdle
    assert nvml.nvmlDeviceGetPerformanceState(handle) == 0
    assert nvml.nvmlDeviceGetComputeRunningProcesses(handle) == []
    assert nvml.nvmlDeviceGetGraphicsRunningProcesses(handle) == []


def test_modes_and_links(nvml: Any) -> None:
    handle = gpu(nvml)
    assert nvml.nvmlDeviceGetEccMode(handle) == [1, 1]
    assert nvml.nvmlDeviceGetMigMode(handle) == [0, 0]
    assert nvml.nvmlDeviceGetPersistenceMode(handle) == 1
    assert nvml.nvmlDeviceGetComputeMode(handle) == 0
    assert nvml.nvmlDeviceGetCurrPcieLinkGeneration(handle) == 5
    assert nvml.nvmlDeviceGetCurrPcieLinkWidth(handle) == 16
    assert nvml.nvmlDeviceGetPcieReplayCounter(handle) == 0
    assert [nvml.nvmlDeviceGetNvLinkState(handle, link) for link in range(18)] == [1] * 18
    assert nvml.nvmlDeviceGetNvLinkVersion(handle, 0) == 4
    assert nvml.nvmlDeviceGetRemappedRows(handle) == (0, 0, 0, 0)


def gpu(nvml: Any) -> Any:
    return nvml.nvmlDeviceGetHandleByIndex(0)


# ---- of boards that the test writes itself -----------------------------------------------------


def test_a_device_that_is_always_busy(boards: Path) -> None:
    ahead = time.time_ns() + FOREVER_NS
    pin_up(boards, Board([DeviceBoard(busy_ns=FOREVER_NS, busy_until_ns=ahead)]))
    pynvml.nvmlInit()
    handle = gpu(pynvml)
    assert pynvml.nvmlDeviceGetUtilizationRates(handle).gpu == 100
    assert pynvml.nvmlDeviceGetPowerUsage(handle) == 630_000
    assert pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU) == 66
    assert pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM) == 1980
    assert pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle) == 0
    pynvml.nvmlShutdown()


def test_a_kernel_without_an_end_is_busy(boards: Path) -> None:
    since = time.time_ns()
    pin_up(boards, Board([DeviceBoard(open_since_ns=since, open_count=1)]))
    pynvml.nvmlInit()
    assert pynvml.nvmlDeviceGetUtilizationRates(gpu(pynvml)).gpu == 100
    pynvml.nvmlShutdown()


def test_work_that_lies_in_the_future_is_not_done_yet(boards: Path) -> None:
    """What is queued for later than now has kept the device busy for no time so far."""
    ahead = time.time_ns() + FOREVER_NS
    pin_up(boards, Board([DeviceBoard(busy_ns=1000, busy_until_ns=ahead)]))
    pynvml.nvmlInit()
    assert pynvml.nvmlDeviceGetUtilizationRates(gpu(pynvml)).gpu == 0
    pynvml.nvmlShutdown()


def test_energy_is_that_of_the_work(boards: Path) -> None:
    """A second of work more is 560 J more."""
    pin_up(boards, Board([DeviceBoard(busy_ns=0)]))
    before_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    pynvml.nvmlInit()
    handle = gpu(pynvml)
    first = pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    pin_up(boards, Board([DeviceBoard(busy_ns=10**9)]))
    second = pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    passed_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - before_ns
    assert 560_000 <= second - first <= 560_001 + 70 * passed_ns // 10**6
    next(boards.iterdir()).unlink()
    assert pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) >= second
    pynvml.nvmlShutdown()


def test_bytes_by_field(nvml: Any, boards: Path) -> None:
    pin_up(boards, Board([DeviceBoard(htod_bytes=3 << 20, dtoh_bytes=5, ptop_bytes=7 << 10)]))
    wanted = [
        nvml.NVML_FI_DEV_PCIE_COUNT_RX_BYTES,
        nvml.NVML_FI_DEV_PCIE_COUNT_TX_BYTES,
        nvml.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX,
        nvml.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX,
        nvml.NVML_FI_DEV_PCIE_REPLAY_COUNTER,
        nvml.NVML_FI_DEV_MEMORY_TEMP,
    ]
    values = nvml.nvmlDeviceGetFieldValues(gpu(nvml), wanted)
    assert [value.value.ullVal for value in values[:4]] == [3 << 20, 5, 7, 7]
    assert values[4].value.uiVal == 0
    results = [value.nvmlReturn for value in values]
    assert results == [0] * 5 + [nvml.NVML_ERROR_NOT_SUPPORTED]
    energy = nvml.nvmlDeviceGetFieldValues(gpu(nvml), [nvml.NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION])
    assert energy[0].value.ullVal <= nvml.nvmlDeviceGetTotalEnergyConsumption(gpu(nvml))


def test_throughput_is_what_came_since_the_last_look(boards: Path) -> None:
    pin_up(boards, Board([DeviceBoard(htod_bytes=0)]))
    start_ns = time.time_ns()
    pynvml.nvmlInit()
    handle = gpu(pynvml)
    pin_up(boards, Board([DeviceBoard(htod_bytes=10**9, dtoh_bytes=10**6)]))
    received = pynvml.nvmlDeviceGetPcieThroughput(handle, pynvml.NVML_PCIE_UTIL_RX_BYTES)
    passed_ns = time.time_ns() - start_ns
    assert 10**15 // passed_ns <= received <= 10**6 * 1000 // 50  # a window has 50 ms or more
    sent = pynvml.nvmlDeviceGetPcieThroughput(handle, pynvml.NVML_PCIE_UTIL_TX_BYTES)
    assert sent <= received
    pynvml.nvmlShutdown()


def test_boards_of_the_dead_and_nonsense_are_left_out(nvml: Any, boards: Path) -> None:
    dead = pin_up(boards, Board([DeviceBoard(memory_used=GIB)], pid_start=1))
    (boards / "simgpu.0.1").write_bytes(b"nonsense")
    (boards / "simgpu.0.2").write_bytes(bytes(4096))
    (boards / "other").write_bytes(b"")
    assert nvml.nvmlDeviceGetComputeRunningProcesses(gpu(nvml)) == []
    assert not dead.exists()
    assert nvml.nvmlDeviceGetMemoryInfo(gpu(nvml)).used == 0


def ask(folder: Path, question: str, faults: str) -> Any:
    """In a process of its own: faults are read once."""
    code = f"""
import ctypes, json, pynvml
ctypes.CDLL("{folder}/libnvidia-ml.so.1")
def result(call):
    try:
        return call()
    except pynvml.NVMLError as error:
        return type(error).__name__
{question}
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "SIMGPU_FAULTS": faults, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def test_fault_hot_and_slow(folder: Path, boards: Path) -> None:
    question = """
pynvml.nvmlInit()
handle = pynvml.nvmlDeviceGetHandleByIndex(0)
print(json.dumps([
    pynvml.nvmlDeviceGetCurrentClocksEventReasons(handle),
    pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU),
]))"""
    hot = pynvml.nvmlClocksEventReasonHwSlowdown | pynvml.nvmlClocksEventReasonHwThermalSlowdown
    assert ask(folder, question, f"nvml_throttle={hot},nvml_temperature=91") == [hot, 91]


def test_fault_memory_errors(folder: Path, boards: Path) -> None:
    question = """
pynvml.nvmlInit()
handle = pynvml.nvmlDeviceGetHandleByIndex(0)
corrected, uncorrected, volatile, cache, dram = 0, 1, 0, 1, 2
print(json.dumps([
    pynvml.nvmlDeviceGetTotalEccErrors(handle, uncorrected, volatile),
    pynvml.nvmlDeviceGetTotalEccErrors(handle, corrected, volatile),
    pynvml.nvmlDeviceGetMemoryErrorCounter(handle, uncorrected, volatile, dram),
    pynvml.nvmlDeviceGetMemoryErrorCounter(handle, uncorrected, volatile, cache),
    pynvml.nvmlDeviceGetRemappedRows(handle),
]))"""
    assert ask(folder, question, "nvml_ecc=3") == [3, 0, 3, 0, [0, 3, 0, 0]]


def test_fault_lost_device(folder: Path, boards: Path) -> None:
    question = """
pynvml.nvmlInit()
print(json.dumps([
    result(lambda: pynvml.nvmlDeviceGetHandleByIndex(0)),
    result(lambda: pynvml.nvmlDeviceGetIndex(pynvml.nvmlDeviceGetHandleByIndex(1))),
]))"""
    assert ask(folder, question, "nvml_lost=0") == ["NVMLError_GpuIsLost", 1]


def test_without_a_driver(folder: Path, boards: Path) -> None:
    question = "print(json.dumps(result(pynvml.nvmlInit)))"
    assert ask(folder, question, "no_driver") == "NVMLError_DriverNotLoaded"


# ---- of real processes ---------------------------------------------------------------------------


@pytest.fixture
def busy(folder: Path, boards: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds 3 GiB of device 1, which works for ever; device 0 is idle."""
    with subprocess.Popen(
        [sys.executable, "-c", BUSY, str(folder)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


def test_a_process_is_seen(busy: subprocess.Popen[str], nvml: Any, boards: Path) -> None:
    idle, working = (nvml.nvmlDeviceGetHandleByIndex(device) for device in range(2))
    (process,) = nvml.nvmlDeviceGetComputeRunningProcesses(working)
    assert (process.pid, process.usedGpuMemory) == (busy.pid, 3 * GIB)
    assert process.gpuInstanceId == 0xFFFFFFFF
    memory = nvml.nvmlDeviceGetMemoryInfo(working, version=nvml.nvmlMemory_v2)
    assert (memory.used, memory.free, memory.reserved) == (3 * GIB, 77 * GIB, 0)
    assert nvml.nvmlDeviceGetUtilizationRates(working).gpu == 100
    assert nvml.nvmlDeviceGetUtilizationRates(idle).gpu == 0
    assert nvml.nvmlDeviceGetComputeRunningProcesses(idle) == []
    (board,) = boards.iterdir()
    assert board.stat().st_mode & 0o777 == 0o600
    assert board.name == f"simgpu.{os.geteuid()}.{busy.pid}"


def test_collectives_go_over_nvlink(nvml: Any, folder: Path) -> None:
    """4 KiB summed by two ranks: each sends half of it twice."""
    with Job("held", 2, folder) as job:
        job.share_id()
        for rank in job.ranks:
            assert rank.expect("said") == "summed"
        for device in range(2):
            handle = nvml.nvmlDeviceGetHandleByIndex(device)
            (sent,) = nvml.nvmlDeviceGetFieldValues(
                handle, [nvml.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX]
            )
            assert sent.value.ullVal == 4
        for rank in job.ranks:
            rank.tell("hear go")
        assert job.results() == [None, None]


def test_a_killed_process_is_gone(busy: subprocess.Popen[str], nvml: Any, boards: Path) -> None:
    handle = nvml.nvmlDeviceGetHandleByIndex(1)
    assert nvml.nvmlDeviceGetMemoryInfo(handle).used == 3 * GIB
    busy.kill()
    busy.wait()
    assert nvml.nvmlDeviceGetMemoryInfo(handle).used == 0
    assert nvml.nvmlDeviceGetComputeRunningProcesses(handle) == []
    assert list(boards.iterdir()) == []


def test_a_process_that_ends_takes_its_board_down(
    busy: subprocess.Popen[str], boards: Path
) -> None:
    assert busy.stdin
    busy.stdin.close()
    assert busy.wait(timeout=60) == 0
    assert list(boards.iterdir()) == []


def test_the_next_process_clears_away_what_killed_ones_left(
    busy: subprocess.Popen[str], folder: Path, boards: Path
) -> None:
    busy.kill()
    busy.wait()
    (left,) = boards.iterdir()
    code = "import sys; from pathlib import Path; from tests.simgpu.nccl.library import Cuda\n"
    code += "Cuda(Path(sys.argv[1])).allocate(1)"
    subprocess.run([sys.executable, "-c", code, str(folder)], cwd=ROOT, check=True)
    assert not left.exists()
