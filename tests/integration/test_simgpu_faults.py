"""What the simulated stack does wrong when it is told to."""

from __future__ import annotations

import subprocess
import textwrap
from pathlib import Path

import pytest

from tests import simulated
from tests.simgpu import programs

LAUNCH_100 = """
kernel = stack.kernel()
with stack.capture(ActivityKind.CONCURRENT_KERNEL) as capture:
    for _ in range(100):
        stack.launch(kernel)
kernels = capture.kernels()
"""


@pytest.fixture(scope="module")
def libraries() -> Path:
    return simulated.libraries()


def run(code: str, libraries: Path, faults: str, **variables: str) -> list[str]:
    """Words that the code prints."""
    return programs.python(
        textwrap.dedent(code), libraries, SIMGPU_FAULTS=faults, **variables
    ).split()


def test_dropped_records_are_counted(libraries: Path) -> None:
    code = LAUNCH_100 + "print(len(kernels), stack.dropped())"
    assert run(code, libraries, "drop=0.1") == ["90", "10"]


def test_times_are_zero_after_some_records(libraries: Path) -> None:
    code = LAUNCH_100 + "print(sum(it.start == it.end == 0 for it in kernels), len(kernels))"
    assert run(code, libraries, "zero_timestamps=60") == ["40", "100"]


@pytest.mark.parametrize(
    ("fault", "code"),
    [("refuse_subscribe", "39"), ("refuse_subscribe=15", "15"), ("refuse_subscribe=999", "999")],
)
def test_subscribing_is_refused(fault: str, code: str, libraries: Path) -> None:
    program = """
        stack.synchronize()
        try:
            stack.subscribe(lambda *_: None)
        except CudaError as exc:
            print(exc.code)
    """
    assert run(program, libraries, fault) == [code]


def test_a_late_flush_delivers_after_it_returned_on_another_thread(libraries: Path) -> None:
    code = """
        kernel, arrived = stack.kernel(), threading.Event()
        complete = stack._complete
        stack._complete = lambda *a: (complete(*a), arrived.set())
        with stack.capture(ActivityKind.CONCURRENT_KERNEL) as capture:
            stack.launch(kernel)
        print(len(capture.records))
        print(arrived.wait(60), len(capture.records))
        print(threading.get_native_id() in capture.delivered_on)
    """
    assert run(code, libraries, "late_flush=1s") == ["0", "True", "1", "False"]


def test_the_clock_jumps(libraries: Path) -> None:
    code = """
        import time
        stack.synchronize()
        stamp = ctypes.c_uint64()
        stack.cupti.cuptiGetTimestamp(ctypes.byref(stamp))
        print(round((stamp.value - time.time_ns()) / 3.6e12))
    """
    assert run(code, libraries, "clock_step=36000s") == ["10"]
    assert run(code, libraries, "clock_step=-36000s") == ["-10"]


def test_records_jump_with_the_clock(libraries: Path, tmp_path: Path) -> None:
    from tests.simgpu import truth

    code = LAUNCH_100 + "print(*(it.start for it in kernels))"
    log = tmp_path / "truth.csv"
    starts = run(code, libraries, "clock_step=-36000s", SIMGPU_LOG=str(log))
    assert [int(it) for it in starts] == [it.start_ns for it in truth.read(log)]


def test_enabling_takes_its_time(libraries: Path) -> None:
    code = """
        import time
        stack.register()
        before = time.monotonic()
        stack.cupti.cuptiActivityEnable(10)
        print(time.monotonic() - before >= 1)
    """
    assert run(code, libraries, "slow_enable=1s") == ["True"]


def test_disabling_may_hang(libraries: Path) -> None:
    code = """
        stack.register()
        stack.cupti.cuptiActivityEnable(10)
        done = threading.Event()
        def disable():
            stack.cupti.cuptiActivityDisable(10)
            done.set()
        threading.Thread(target=disable, daemon=True).start()
        print(done.wait(0.5))
    """
    assert run(code, libraries, "hang_disable") == ["False"]


def test_names_are_gone_after_delivery(libraries: Path) -> None:
    code = """
        kernel, addresses = stack.kernel(), []
        with stack.capture(ActivityKind.CONCURRENT_KERNEL) as capture:
            stack.launch(kernel)
            stack.launch(kernel)
        print(capture.kernels()[0].name, len({it.fields["name"] for it in capture.kernels()}))
    """
    assert run(code, libraries, "names_freed") == ["_Z6actionv", "2"]


def test_calls_fail_after_some(libraries: Path) -> None:
    code = """
        stack.register()
        print(*(stack.cupti.raw.cuptiActivityEnable(10) for _ in range(4)))
    """
    assert run(code, libraries, "fail_after=2") == ["0", "0", "999", "999"]


def test_a_program_ends_in_mid_window(libraries: Path) -> None:
    code = LAUNCH_100 + "print('never')"
    assert run(code, libraries, "exit_after=50") == []


@pytest.mark.parametrize(
    ("version", "code"), [("13.0", "999"), ("12.8", "15"), ("11.8", "15")], ids=lambda it: it
)
def test_without_a_driver_everything_is_refused(version: str, code: str, libraries: Path) -> None:
    major = version.split(".")[0]
    program = """
        runtime = stack.cudart.raw.cudaDeviceSynchronize()
        print(runtime, stack.cupti.raw.cuptiActivityEnable(10))
    """
    cupti = f"libcupti.so.{version if major == '11' else major}"
    assert run(program, libraries, "no_driver", GPUTAP_TEST_CUPTI=cupti) == ["35", code]


def test_several_faults_at_once(libraries: Path) -> None:
    code = LAUNCH_100 + "print(len(kernels), sum(it.start == 0 for it in kernels))"
    assert run(code, libraries, "drop=0.5,zero_timestamps=0,slow_enable=1ms") == ["50", "50"]


def test_a_forced_flush_delivers_unfinished_kernels_once(libraries: Path) -> None:
    code = """
        give = ctypes.CDLL("libsimgpu.so").simgpu_next_duration_ns
        kernel, stream = stack.kernel(), stack.stream()
        with stack.capture(ActivityKind.CONCURRENT_KERNEL, forced=True) as capture:
            stack.launch(kernel, stream)
            stack.synchronize(stream)
            give(ctypes.c_uint64(2_000_000_000))
            stack.launch(kernel, stream)
            stack.flush()
            print(len(capture.records))
            stack.flush(forced=True)
            print(len(capture.records), capture.records[-1].end, capture.records[-1].start > 0)
            stack.synchronize(stream)
            stack.flush()
            print(len(capture.records))
    """
    assert run(code, libraries, "") == ["1", "2", "0", "True", "2"]


def test_the_faults_of_a_name_do_not_touch_another(libraries: Path) -> None:
    """`drop` is no prefix of anything."""
    code = LAUNCH_100 + "print(len(kernels))"
    assert run(code, libraries, "dropped=0.5,drop_all") == ["100"]


def test_the_selftests_pass_without_sanitizers_too(libraries: Path) -> None:
    done = subprocess.run(
        [str(libraries / "simgpu_selftest")], capture_output=True, timeout=170, check=False
    )
    assert done.returncode == 0, done.stderr
