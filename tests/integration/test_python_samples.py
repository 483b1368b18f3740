"""Python that the agent runs between steps, in a real torch process."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest

from gputap.profiler.agent_memory import Records
from gputap.profiler.schema import CaptureMode
from tests.agent_driver import AGENT, LOOP, Tap, Target, maps_of_agent, threads_of, wait_until

pytestmark = pytest.mark.skipif(not AGENT.exists(), reason="not built: run `make build`")

# time.sleep lets the GIL go at a step's end.
STEPS = """
model = torch.nn.Linear(4, 4)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
sys.steps_done = 0
def step():
    optimizer.zero_grad()
    model(torch.ones(2, 4)).sum().backward()
    sys.steps_done += 1
    optimizer.step()
    time.sleep(0.03)
step()
"""
DONE = "import sys\nresult = str(sys.steps_done)"
COUNTED = """
try:
    calls += 1
except NameError:
    calls = 1
result = str(calls)
"""


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    with Target(STEPS + LOOP) as target:
        yield target
        assert target.end() == 0


@pytest.fixture
def tap(target: Target) -> Iterator[Tap]:
    target.do("background()")
    tap = target.attach()
    yield tap
    tap.detach()
    assert target.do("finish(); value = threading.active_count()") == 1


def taken(tap: Tap, count: int) -> Records:
    """The first samples, when there are so many."""
    wait_until(lambda: tap.memory.get("samples_count") >= count, 20)
    return tap.memory.python_samples()[0]


def texts(samples: Records) -> list[str]:
    return [bytes(s["text"])[: int(s["length"])].decode() for s in samples]


def seconds(tap: Tap, ticks: npt.NDArray[np.uint64]) -> npt.NDArray[np.float64]:
    clock, _ = tap.memory.clock_samples()
    first, last = clock[0], clock[-1]
    rate = float(last["ticks"] - first["ticks"]) / float(last["mono_ns"] - first["mono_ns"])
    return ticks.astype(np.float64) / rate / 1e9


def test_each_sample_is_taken_at_the_end_of_a_step(tap: Tap) -> None:
    tap.client.sample_python(DONE, 0.01)
    tap.start(CaptureMode.ALWAYS_ON)
    samples = taken(tap, 12)
    tap.stop()
    # The first is not waited for; a busy machine may make others late.
    at_ends = samples[samples["boundary"] > 0]
    assert len(at_ends) >= len(samples) - 2
    steps = [int(text) for text in texts(at_ends)]
    apart = Counter(s - int(b) for s, b in zip(steps, at_ends["boundary"], strict=True))
    assert apart.most_common(1)[0][1] >= len(steps) - 2, apart
    assert (samples["status"] == 0).all()
    assert (samples["wanted_ticks"] <= samples["begin_ticks"]).all()
    assert (samples["begin_ticks"] < samples["end_ticks"]).all()


def test_samples_are_a_period_apart_and_keep_their_names(tap: Tap) -> None:
    tap.client.sample_python(COUNTED, 0.2)
    tap.start(CaptureMode.ALWAYS_ON)
    samples = taken(tap, 4)
    tap.stop()
    assert texts(samples) == [str(n) for n in range(1, len(samples) + 1)]
    wanted = samples["wanted_ticks"][samples["boundary"] > 0]
    assert (np.diff(seconds(tap, wanted)) >= 0.199).all()


def test_none_are_taken_while_no_window_is_open(tap: Tap) -> None:
    tap.client.sample_python(COUNTED, 0.01)
    for _ in range(2):
        tap.start(CaptureMode.ALWAYS_ON)
        count = tap.memory.get("samples_count")
        wait_until(lambda count=count: tap.memory.get("samples_count") >= count + 3, 20)
        tap.stop()
        turns = tap.memory.get("agent_ticks")
        wait_until(lambda turns=turns: tap.memory.get("agent_ticks") >= turns + 2)
        quiet = tap.memory.get("samples_count")
        turns = tap.memory.get("agent_ticks")
        wait_until(lambda turns=turns: tap.memory.get("agent_ticks") >= turns + 5)
        assert tap.memory.get("samples_count") == quiet
    samples, at = tap.memory.python_samples()
    assert texts(samples) == [str(n) for n in range(1, at + 1)]


def test_they_come_by_time_where_no_step_ends(target: Target) -> None:
    tap = target.attach()
    tap.client.sample_python(COUNTED, 0.02)
    tap.start(CaptureMode.ALWAYS_ON)
    samples = taken(tap, 4)
    tap.detach()
    assert (samples["boundary"] == 0).all()


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("raise ValueError('not today')", "ValueError: not today"),
        ("def", "SyntaxError"),
        ("result = 5", "no str"),
        ("raise SystemExit(3)", "SystemExit: 3"),
    ],
)
def test_after_an_exception_no_more_are_taken(tap: Tap, source: str, said: str) -> None:
    tap.client.sample_python(source, 0.01)
    tap.start(CaptureMode.ALWAYS_ON)
    samples = taken(tap, 1)
    assert said in texts(samples)[0]
    assert samples["status"][0] == 1
    seen = tap.memory.get("boundaries")
    wait_until(lambda: tap.memory.get("boundaries") >= seen + 5)
    assert tap.memory.get("samples_count") == 1
    # Another source begins anew.
    tap.client.sample_python(COUNTED, 0.01)
    assert texts(taken(tap, 3))[1:3] == ["1", "2"]
    tap.stop()


def test_an_answer_longer_than_its_slot_is_cut(tap: Tap) -> None:
    tap.client.sample_python("result = 'x' * 10_000", 0.01)
    tap.start(CaptureMode.ALWAYS_ON)
    samples = taken(tap, 2)
    tap.stop()
    assert texts(samples)[0] == "x" * len(samples["text"][0])


def test_a_slow_answer_is_asked_for_less_often(tap: Tap) -> None:
    slow = "import time\nuntil = time.monotonic() + 0.004\nwhile time.monotonic() < until: pass\n"
    tap.client.sample_python(slow + COUNTED, 0.01)
    tap.start(CaptureMode.ALWAYS_ON)
    samples = taken(tap, 2)
    tap.stop()
    begin, end = (seconds(tap, samples[f"{edge}_ticks"]) for edge in ("begin", "end"))
    # A thousandth of the time at most, but it is never left alone for more than ten seconds.
    assert begin[1] - end[0] >= 0.999 * min(1000 * (end[0] - begin[0]), 10)


def test_the_empty_source_ends_it(tap: Tap) -> None:
    tap.client.sample_python(COUNTED, 0.01)
    tap.start(CaptureMode.ALWAYS_ON)
    taken(tap, 2)
    tap.client.sample_python("", 0.01)
    count = tap.memory.get("samples_count")
    seen = tap.memory.get("boundaries")
    wait_until(lambda: tap.memory.get("boundaries") >= seen + 5)
    assert tap.memory.get("samples_count") <= count + 1
    tap.stop()


def test_nothing_of_it_stays_in_the_target(target: Target) -> None:
    marked = "class Gputap_Left: pass\nkeep = Gputap_Left()\n" + COUNTED
    left = "gc.collect(); value = sum(type(o).__name__ == 'Gputap_Left' for o in gc.get_objects())"
    target.do("background()")
    before = len(os.listdir(f"/proc/{target.pid}/fd"))
    for _ in range(20):
        tap = target.attach(ring_count=16, ring_capacity=1024)
        tap.client.sample_python(marked, 0.01)
        tap.start(CaptureMode.ALWAYS_ON)
        taken(tap, 2)
        tap.detach()
        wait_until(lambda: not maps_of_agent(target.pid))
    wait_until(lambda: not [n for n in threads_of(target.pid) if n.startswith("gputap")])
    assert target.do(left) == 0
    assert len(os.listdir(f"/proc/{target.pid}/fd")) == before
    target.do("finish()")


def test_a_held_gil_holds_nothing_else_up(target: Target) -> None:
    tap = target.attach()
    tap.client.sample_python(COUNTED, 0.01)
    tap.start(CaptureMode.ALWAYS_ON)
    target.send("libc = ctypes.PyDLL(None); libc.usleep(1_500_000)")
    turns = tap.memory.get("agent_ticks")
    wait_until(lambda: tap.memory.get("agent_ticks") >= turns + 5)
    tap.detach()  # while one is under way, or about to be
    target.answer()
    again = target.attach()
    again.client.sample_python(COUNTED, 0.01)
    again.start(CaptureMode.ALWAYS_ON)
    assert texts(taken(again, 2))[0] == "1"
    again.detach()


def test_forked_children_take_none_and_can_be_tapped(tap: Tap) -> None:
    tap.client.sample_python(COUNTED, 0.01)
    tap.start(CaptureMode.ALWAYS_ON)
    taken(tap, 2)
    codes = tap.target.do(
        """
value = []
for _ in range(5):
    pid = os.fork()
    if pid == 0:
        try:
            for _ in range(3): step()
            tids = os.listdir("/proc/self/task")
            own = [open("/proc/self/task/%s/comm" % tid).read() for tid in tids]
            os._exit(1 if any(name.startswith("gputap") for name in own) else 0)
        except BaseException:
            os._exit(2)
    value.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    )
    assert codes == [0] * 5
    count = tap.memory.get("samples_count")
    wait_until(lambda: tap.memory.get("samples_count") > count)
    tap.stop()
