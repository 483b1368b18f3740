"""The way in by the interpreter's own door (PEP 768), on a real CPython 3.14."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from gputap.injectors import entry
from gputap.injectors.built import AGENT, built
from gputap.injectors.entry import Entry
from gputap.injectors.injection import Injection
from gputap.injectors.library.client import AgentClient
from gputap.injectors.remote_exec import offered, remote_exec
from gputap.profiler.errors import (
    AttachFailed,
    TargetGone,
    TargetNotFound,
    TargetNotPermitted,
    TargetUnsupported,
)
from gputap.profiler.target import inspect
from tests import python314
from tests.injection import Target, payload, python_target

BUSY = """
import ctypes  # as torch does; libffi opens a descriptor for it
print("ready", flush=True)
while True:
    sum(range(100))
"""

ASLEEP = """
import time
print("ready", flush=True)
time.sleep({seconds})
for _ in range(1000):
    sum(range(100))
print("woken", flush=True)
while True:
    time.sleep(0.01)
"""

# Every alarm raises in the main thread, wherever it is. What CPython cannot raise is counted.
ALARMED = """
import signal, sys
raised = caught = 0
class Alarm(Exception):
    pass
def ring(*_):
    global raised
    raised += 1
    raise Alarm
def unraisable(_):
    global caught
    caught += 1
sys.unraisablehook = unraisable
signal.signal(signal.SIGALRM, ring)
signal.setitimer(signal.ITIMER_REAL, 0.013, 0.013)
print("ready", flush=True)
while raised < 600:
    try:
        while True:
            sum(range(50))
    except Alarm:
        caught += 1
signal.setitimer(signal.ITIMER_REAL, 0)
print(raised - caught, flush=True)
"""


def python(source: str, *flags: str, user: int | None = None) -> Target:
    return Target(*python314.command(), *flags, "-c", source, user=user)


def wait_until_asleep(target: Target) -> None:
    """Until its main thread is in the sleep that it was told to sleep, not on its way there."""
    deadline = time.monotonic() + 30
    while Path(f"/proc/{target.pid}/syscall").read_text().split()[0] != "230":  # clock_nanosleep
        assert time.monotonic() < deadline
        time.sleep(0.001)


def leftovers(pid: int) -> list[str]:
    return [
        name
        for place in ("tmp", "dev/shm", "var/tmp")
        for name in os.listdir(f"/proc/{pid}/root/{place}")
        if name.startswith(".gputap")
    ]


def test_agent_gets_in_answers_and_leaves_nothing_else() -> None:
    with python(BUSY) as target:
        threads, descriptors = target.threads(), target.descriptors()
        injection = remote_exec(target.pid, agent=payload(), ring_count=3)
        assert injection.control_fd == 1001 + 30000
        assert (injection.way, injection.reused, injection.tid) == (
            "remote-exec",
            False,
            target.pid,
        )
        assert 0 < injection.pause_ns < injection.total_ns
        target.wait_for_threads(threads)
        assert target.descriptors() == descriptors
        assert leftovers(target.pid) == []
        target.assert_unharmed()


def test_agent_that_is_there_is_used_again() -> None:
    with python(BUSY) as target:
        answers = [remote_exec(target.pid, agent=payload()) for _ in range(4)]
        assert [a.control_fd for a in answers] == [1001, 1002, 1003, 1004]
        assert [a.reused for a in answers] == [False, True, True, True]


def test_both_ways_find_one_agent() -> None:
    from gputap.injectors.attach import inject

    with python(BUSY) as target:
        first = inject(target.pid, agent=payload())
        second = remote_exec(target.pid, agent=payload())
        third = inject(target.pid, agent=payload())
        assert [i.control_fd for i in (first, second, third)] == [1001, 1002, 1003]
        assert [i.reused for i in (first, second, third)] == [False, True, True]


def test_agent_runs_python_there() -> None:
    with python(BUSY) as target:
        injection = remote_exec(target.pid, agent=built(AGENT))
        with AgentClient(target.pid, injection.control_fd) as client:
            answer = client.run_python("import sys\nresult = str(sys.version_info[:2])", 10)
        assert answer == "(3, 14)"
        target.assert_unharmed()


def test_request_is_withdrawn_where_the_main_thread_stays_in_c() -> None:
    with python(ASLEEP.format(seconds=3)) as target:
        wait_until_asleep(target)
        with pytest.raises(AttachFailed, match=r"withdrawn") as caught:
            remote_exec(target.pid, agent=payload(), timeout_s=0.3)
        assert "C code" in caught.value.hint
        assert leftovers(target.pid) == []
        # It wakes up, runs Python, and finds no script.
        assert target.line() == "woken"
        assert not any("gputap-agent" in line for line in target.mappings())


def test_exceptions_of_signal_handlers_reach_the_main_thread() -> None:
    with python(ALARMED) as target:
        entered = 0
        while target.process.poll() is None:
            # A script that an alarm hits at its very start never answers.
            with suppress(TargetGone, TargetNotFound, TargetUnsupported, AttachFailed):
                remote_exec(target.pid, agent=payload())
                entered += 1
        assert target.line() == "0"
        assert entered > 0


def test_interpreter_that_does_not_take_scripts_is_refused() -> None:
    with python(BUSY, "-X", "disable-remote-debug") as target:
        assert not offered(target.pid)
        with pytest.raises(TargetUnsupported, match="switched off"):
            remote_exec(target.pid, agent=payload())
        target.assert_unharmed()


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="this interpreter has the door")
def test_older_interpreter_is_refused() -> None:
    with python_target("busy.py") as target:
        assert not offered(target.pid)
        with pytest.raises(TargetUnsupported, match=r"3\.\d+") as caught:
            remote_exec(target.pid, agent=payload())
        assert "3.14" in caught.value.hint


def test_process_that_has_ended_is_said_to_have() -> None:
    with python(BUSY) as target:
        target.process.kill()
        target.process.wait()
        with pytest.raises((TargetGone, TargetNotPermitted, TargetNotFound)):
            remote_exec(target.pid, agent=payload())


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_target_of_another_user_can_read_its_script() -> None:
    drop = "import os; os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
    with python(drop + BUSY) as target:
        assert remote_exec(target.pid, agent=payload()).control_fd == 1001
        assert leftovers(target.pid) == []


@pytest.mark.skipif(shutil.which("strace") is None, reason="no strace")
def test_target_under_another_tracer_is_entered_when_asked_for(tmp_path: Path) -> None:
    with python(BUSY) as target:
        log = tmp_path / "log"
        tracer = subprocess.Popen(
            ["strace", "-qq", "-e", "trace=none", "-o", str(log), "-p", str(target.pid)]
        )
        try:
            deadline = time.monotonic() + 30
            while target.status("TracerPid") == "0":
                assert time.monotonic() < deadline
                time.sleep(0.01)
            # The payload stands in for an agent; torch is not in this target.
            seen = replace(inspect(target.pid), obstacles=())
            injection = entry.enter(seen, agent=payload(), entry=Entry("remote-exec"))
            assert injection.control_fd == 1001
        finally:
            tracer.terminate()
            tracer.wait()


# ------------------------------------------------------------------------------- which way in


def refused(code: str) -> object:
    def refuse(*_: object, **__: object) -> Injection:
        raise AttachFailed("No thread could be stopped.", code=code)

    return refuse


def test_door_is_taken_where_no_thread_may_be_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entry, "inject", refused("no_safe_thread"))
    with python(BUSY) as target:
        seen = replace(inspect(target.pid), obstacles=())
        assert entry.enter(seen, agent=payload(), entry=Entry()).way == "remote-exec"
        with pytest.raises(AttachFailed, match="stopped"):
            entry.enter(seen, agent=payload(), entry=Entry("ptrace"))


@pytest.mark.parametrize("code", ["call_failed", "seccomp_kill", "not_permitted"])
def test_other_refusals_stand(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    monkeypatch.setattr(entry, "inject", refused(code))
    with python(BUSY) as target:
        seen = replace(inspect(target.pid), obstacles=())
        with pytest.raises(AttachFailed, match="stopped"):
            entry.enter(seen, agent=payload(), entry=Entry())
        assert "gputap-agent" not in Path(f"/proc/{target.pid}/maps").read_text()


def test_refusal_stands_where_there_is_no_door(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entry, "inject", refused("no_safe_thread"))
    with python(BUSY, "-X", "disable-remote-debug") as target:
        seen = replace(inspect(target.pid), obstacles=())
        with pytest.raises(AttachFailed, match="stopped"):
            entry.enter(seen, agent=payload(), entry=Entry())


def test_both_failures_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entry, "inject", refused("no_safe_thread"))
    with python("import time\nprint('ready', flush=True)\ntime.sleep(600)") as target:
        seen = replace(inspect(target.pid), obstacles=())
        wait_until_asleep(target)
        with pytest.raises(AttachFailed, match=r"stopped\. The main thread .* withdrawn"):
            entry.enter(seen, agent=payload(), entry=Entry(timeout_s=0.3))


def test_unread_seccomp_filter_is_not_trusted() -> None:
    with python(BUSY) as target:
        seen = replace(inspect(target.pid), obstacles=(), seccomp=2)
        with pytest.raises(TargetNotPermitted, match="seccomp"):
            entry.enter(seen, agent=payload(), entry=Entry("remote-exec"))
        trusting = Entry("remote-exec", trust_seccomp=True)
        assert entry.enter(seen, agent=payload(), entry=trusting).control_fd == 1001
