"""The injector against real processes: it gets in, and the target never notices."""

from __future__ import annotations

import ctypes
import errno
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gputap.injectors import attach
from gputap.profiler.errors import AttachFailed
from tests.injection import Target, compiled, dying_helper, payload, python_target

CPYTHONS = [
    "/usr/bin/python3",
    *map(str, sorted(Path.home().glob(".pyenv/versions/3.*/bin/python"))),
]


def agent_copies(target: Target) -> int:
    return sum("gputap-agent" in line and " r-xp " in line for line in target.mappings())


def own_pages(target: Target) -> int:
    """Anonymous executable mappings: the bootstrap's page, if it was left behind."""
    return sum(
        line.split()[1].startswith("r-xp") and len(line.split()) == 5 for line in target.mappings()
    )


def test_first_attach_loads_the_agent_and_leaves_nothing_else() -> None:
    with python_target("busy.py") as target:
        threads, descriptors = target.threads(), target.descriptors()
        injection = attach.inject(target.pid, agent=payload(), ring_count=3)
        assert injection.control_fd == 1001 + 30000
        assert not injection.reused
        assert injection.pid == target.pid
        assert agent_copies(target) == 1
        target.wait_for_threads(threads)
        assert target.descriptors() == descriptors
        assert own_pages(target) == 0
        target.assert_unharmed()


def test_second_attach_reuses_the_agent() -> None:
    with python_target("busy.py") as target:
        answers = [attach.inject(target.pid, agent=payload()) for _ in range(5)]
        assert [a.control_fd for a in answers] == [1001, 1002, 1003, 1004, 1005]
        assert [a.reused for a in answers] == [False, True, True, True, True]
        assert agent_copies(target) == 1


def test_another_build_is_loaded_beside_the_resident_one() -> None:
    with python_target("busy.py") as target:
        for build in range(6):
            first = attach.inject(target.pid, agent=payload(f"-DBUILD_ID={build}"))
            assert (first.control_fd, first.reused) == (1001, False)
        again = attach.inject(target.pid, agent=payload("-DBUILD_ID=2"))
        assert (again.control_fd, again.reused) == (1002, True)
        assert agent_copies(target) == 6


def test_agent_with_sysv_hash_is_found_in_file_and_memory() -> None:
    agent = payload("-Wl,--hash-style=sysv")
    with Target(compiled("sums")) as target:
        assert not attach.inject(target.pid, agent=agent).reused
        assert attach.inject(target.pid, agent=agent).reused


def test_many_injectors_at_once_load_one_agent() -> None:
    with python_target("busy.py") as target, ThreadPoolExecutor(6) as pool:
        turns = pool.map(
            lambda _: attach.inject(target.pid, agent=payload(), timeout_s=60), range(6)
        )
        assert sorted(turn.control_fd for turn in turns) == list(range(1001, 1007))
        assert agent_copies(target) == 1


def test_agent_that_fails_is_reported_and_the_target_runs_on() -> None:
    with python_target("busy.py") as target:
        with pytest.raises(AttachFailed, match="Cannot allocate memory"):
            attach.inject(target.pid, agent=payload("-DFAILS"))
        target.assert_unharmed()


@pytest.mark.parametrize("python", [p for p in CPYTHONS if Path(p).exists()])
def test_every_interpreter_build(python: str) -> None:
    with python_target("busy.py", interpreter=python) as target:
        assert attach.inject(target.pid, agent=payload()).control_fd == 1001
        assert attach.inject(target.pid, agent=payload()).reused
        target.assert_unharmed()


def test_training_is_bit_exact_under_attaches() -> None:
    steps = "12000"
    with python_target("train.py", steps) as untapped:
        expected = untapped.line()
    attaches = 0
    with python_target("train.py", steps) as target:
        while target.process.poll() is None and attaches < 25:
            attach.inject(target.pid, agent=payload())
            attaches += 1
        assert target.line() == expected
    assert attaches >= 5


def test_registers_survive() -> None:
    with Target(compiled("sums")) as target:
        for _ in range(15):
            attach.inject(target.pid, agent=payload())
        target.assert_unharmed()


@pytest.mark.parametrize("threads", ["0", "3"])
def test_malloc_saturated_target(threads: str) -> None:
    with Target(compiled("mallocer"), threads) as target:
        for _ in range(6):
            attach.inject(target.pid, agent=payload(), timeout_s=30)
        target.assert_unharmed()


def test_loader_saturated_target() -> None:
    libraries = [payload(f"-DBUILD_ID={n}") for n in (900, 901)]
    with Target(compiled("dlopener"), *libraries) as target:
        for _ in range(6):
            attach.inject(target.pid, agent=payload(), timeout_s=30)
        target.assert_unharmed()


def test_preloaded_malloc_is_never_entered_twice() -> None:
    library = compiled("own_malloc", "-shared", "-fPIC")
    with Target(compiled("mallocer"), "0", preload=library) as target:
        for _ in range(5):
            attach.inject(target.pid, agent=payload(), timeout_s=30)
        target.assert_unharmed()


def test_signal_handlers_inside_malloc() -> None:
    with Target(compiled("handler")) as target:
        for _ in range(5):
            attach.inject(target.pid, agent=payload(), timeout_s=30)
        target.assert_unharmed()


def test_small_stacks_are_left_alone() -> None:
    with Target(compiled("coroutines")) as target:
        for _ in range(8):
            attach.inject(target.pid, agent=payload(), timeout_s=30)
        target.assert_unharmed()


def test_signals_that_arrive_meanwhile_are_kept() -> None:
    total = 2000
    with Target(compiled("signalled"), str(total)) as target:
        sender = threading.Thread(target=send_values, args=(target.pid, total))
        sender.start()
        while sender.is_alive():
            attach.inject(target.pid, agent=payload())
        sender.join()
        assert target.line() == "all in order"


def send_values(pid: int, total: int) -> None:
    """Queue realtime signals that carry 0, 1, 2, ..., about two in each millisecond."""
    libc = ctypes.CDLL(None, use_errno=True)
    for number in range(total):
        while libc.sigqueue(pid, signal.SIGRTMIN, ctypes.c_void_p(number)):
            assert ctypes.get_errno() == errno.EAGAIN  # the queue is full
        time.sleep(0.0005)


RESTARTED = ["nanosleep", "poll", "ppoll", "select", "pselect", "condition", "semaphore", "futex"]
RESTARTED += ["waitpid", "read"]
LEFT_ALONE = ["recv", "epoll", "recv_timeout", "sigtimedwait", "accept"]


def test_blocked_system_calls_keep_their_timeout_and_see_no_eintr() -> None:
    targets = {
        name: Target(compiled("blocked"), name).__enter__() for name in RESTARTED + LEFT_ALONE
    }
    try:
        with ThreadPoolExecutor(4) as pool:
            pids = [targets[name].pid for name in RESTARTED] * 2
            assert len(list(pool.map(lambda pid: attach.inject(pid, agent=payload()), pids))) == 20
        for name in LEFT_ALONE:
            with pytest.raises(AttachFailed, match="must not be interrupted"):
                attach.inject(targets[name].pid, agent=payload(), timeout_s=0.05)
        for name, target in targets.items():
            result, error, elapsed_ms = map(int, target.line().split())
            assert (name, result, error) == (name, 0, 0)
            assert 2990 <= elapsed_ms < 4500, name
    finally:
        for target in targets.values():
            target.__exit__(None, None, None)


def test_vfork_is_left_alone() -> None:
    with Target(compiled("vforker")) as target:
        with pytest.raises(AttachFailed, match="uninterruptible"):
            attach.inject(target.pid, agent=payload(), timeout_s=0.3)
        assert target.line() == "7"


def test_vfork_with_an_idle_thread_beside() -> None:
    with Target(compiled("vforker"), "thread") as target:
        assert attach.inject(target.pid, agent=payload()).tid != target.pid
        assert target.line() == "7"


def test_injector_killed_at_every_step_leaves_the_target_whole() -> None:
    with Target(compiled("sums")) as target:
        for step in range(400):
            done = subprocess.run(
                [str(dying_helper()), "--pid", str(target.pid), "--agent", str(payload())],
                env={"DIE_AT_STEP": str(step)},
                capture_output=True,
                timeout=30,
                check=False,
            )
            target.assert_unharmed(busy=step % 8 == 0)
            if done.returncode == 0:
                break
        assert step > 30
        assert done.returncode == 0
        assert attach.inject(target.pid, agent=payload()).reused
        target.assert_unharmed()


def test_injector_killed_in_a_blocked_call_has_it_begun_anew() -> None:
    with Target(compiled("blocked"), "nanosleep") as target:
        for step in range(24, 40, 2):
            subprocess.run(
                [str(dying_helper()), "--pid", str(target.pid), "--agent", str(payload())],
                env={"DIE_AT_STEP": str(step)},
                capture_output=True,
                timeout=30,
                check=False,
            )
        result, error, elapsed_ms = map(int, target.line().split())
        assert (result, error) == (0, 0)
        assert elapsed_ms >= 2990


def test_pause_and_times_are_plausible() -> None:
    with python_target("busy.py", interpreter=sys.executable) as target:
        injection = attach.inject(target.pid, agent=payload())
        assert 0 < injection.pause_ns < injection.total_ns
        assert 0 < injection.resolve_ns < injection.total_ns
        assert 0 < injection.load_ns < injection.total_ns
        assert injection.stops >= 1
        assert injection.tid == target.pid
