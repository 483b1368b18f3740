"""Commands reach the agent, answers come back, and nothing waits for ever."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from gputap.injectors.library import client as client_module
from gputap.injectors.library.client import AgentClient, SnippetFailed, WindowConfig
from gputap.injectors.library.layouts.cpython import TABLE
from gputap.injectors.library.layouts.torch import TorchLayout
from gputap.profiler import schema
from gputap.profiler.errors import AttachFailed, TargetBusy, TargetGone
from gputap.profiler.schema import AgentState, CaptureMode, Command
from tests.fake_agent import FakeAgent


@pytest.fixture
def agent() -> Iterator[FakeAgent]:
    with FakeAgent() as fake:
        fake.serve()
        yield fake


def test_a_session_from_configure_to_detach(agent: FakeAgent) -> None:
    with AgentClient(os.getpid(), agent.fd) as client:
        client.configure(TorchLayout(version=2013, seq=200), TABLE[3, 11])
        assert agent.header["state"] == AgentState.CONFIGURED
        torch = agent.header["torch_layout"].view(schema.dtype(schema.TORCH_LAYOUT))[0]
        python = agent.header["python_layout"].view(schema.dtype(schema.PYTHON_LAYOUT))[0]
        assert (torch["version"], torch["seq"], torch["scope"]) == (2013, 200, -1)
        assert (python["version"], python["frame_locals"]) == (0x030B, 72)
        client.start(WindowConfig(CaptureMode.FULL, window_ns=5, want_shapes=True))
        assert agent.header["state"] == AgentState.CAPTURING
        assert (agent.header["mode"], agent.header["window_ns"]) == (CaptureMode.FULL, 5)
        assert (agent.header["want_shapes"], agent.header["want_stacks"]) == (1, 1)
        client.stop()
        assert client.state == AgentState.CONFIGURED
    assert agent.header["state"] == AgentState.DETACHED
    client.detach()


def test_unknown_layouts_switch_everything_off(agent: FakeAgent) -> None:
    with AgentClient(os.getpid(), agent.fd) as client:
        client.configure(None, None)
    torch = agent.header["torch_layout"].view(schema.dtype(schema.TORCH_LAYOUT))[0]
    python = agent.header["python_layout"].view(schema.dtype(schema.PYTHON_LAYOUT))[0]
    assert (torch["seq"], python["enabled"]) == (-1, 0)


def test_python_answers_and_fails(agent: FakeAgent) -> None:
    with AgentClient(os.getpid(), agent.fd) as client:
        assert client.run_python("result = 'ä' + str(6 * 7)") == "ä42"
        with pytest.raises(SnippetFailed) as raised:
            client.run_python("1 / 0")
        assert raised.value.status == 1
        assert "ZeroDivisionError" in raised.value.message
        with pytest.raises(SnippetFailed) as raised:
            client.run_python("#" * (1 << 20))
        assert raised.value.status == errno.E2BIG


def test_a_python_that_cannot_be_had_says_so() -> None:
    with FakeAgent() as agent:

        def no_python(command: Command) -> None:
            if command == Command.RUN_PYTHON:
                agent.answer("", -errno.ETIMEDOUT)
            agent.acknowledge()

        agent.serve(no_python)
        with AgentClient(os.getpid(), agent.fd) as client:
            with pytest.raises(SnippetFailed) as raised:
                client.run_python("result = ''")
            assert raised.value.status == errno.ETIMEDOUT


def test_a_python_that_is_still_busy_is_not_taken_for_an_old_answer() -> None:
    with FakeAgent() as agent:
        agent.answer("old")
        agent.serve(lambda _: agent.acknowledge(-errno.EBUSY, "busy"))
        client = AgentClient(os.getpid(), agent.fd)
        with pytest.raises(SnippetFailed) as raised:
            client.run_python("result = 'new'")
        assert raised.value.status == errno.EBUSY
        client.close()


def test_a_refused_command_carries_the_agents_words() -> None:
    with FakeAgent() as agent:
        agent.serve(lambda _: agent.acknowledge(-errno.EINVAL, "no torch here"))
        client = AgentClient(os.getpid(), agent.fd)
        with pytest.raises(AttachFailed, match="no torch here"):
            client.configure(None, None)
        client.close()


def test_a_second_gputap_is_refused_until_the_first_lets_go(agent: FakeAgent) -> None:
    first = AgentClient(os.getpid(), agent.fd)
    with pytest.raises(TargetBusy):
        AgentClient(os.getpid(), agent.fd)
    first.close()
    AgentClient(os.getpid(), agent.fd).detach()


def test_a_silent_agent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "COMMAND_TIMEOUT_S", 0.1)
    with FakeAgent() as agent:
        client = AgentClient(os.getpid(), agent.fd)
        with pytest.raises(AttachFailed, match="did not answer"):
            client.command(Command.STOP, 0.1)
        client.close()
        with pytest.raises(AttachFailed, match="no longer attached"):
            client.stop()


def test_a_dead_target_is_noticed_while_waiting() -> None:
    with FakeAgent() as agent:
        os.set_inheritable(agent.fd, True)
        child = subprocess.Popen(
            [sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()"],
            pass_fds=(agent.fd,),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert child.stdin is not None and child.stdout is not None
        child.stdout.readline()
        client = AgentClient(child.pid, agent.fd)
        assert client.alive()
        child.kill()
        started = time.monotonic()
        with pytest.raises(TargetGone):
            client.stop()
        client.detach()  # nothing to say to a dead target, and no error either
        assert time.monotonic() - started < 2
        child.wait()
        child.stdin.close()
        child.stdout.close()
        with pytest.raises(TargetGone):
            AgentClient(child.pid, agent.fd)


def test_an_unknown_state_is_a_failed_one(agent: FakeAgent) -> None:
    client = AgentClient(os.getpid(), agent.fd)
    agent.header["state"] = 99
    agent.header["stop_reason"] = 99
    assert client.state == AgentState.FAILED
    assert client.stop_reason == schema.StopReason.INTERNAL
    client.close()
