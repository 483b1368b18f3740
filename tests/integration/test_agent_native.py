"""The agent library in a real torch process, driven by the real client."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from gputap.injectors.library.client import AgentClient, SnippetFailed, WindowConfig
from gputap.profiler.errors import AttachFailed, TargetBusy
from gputap.profiler.schema import (
    AgentState,
    CaptureMode,
    DropCause,
    EventFlag,
    EventKind,
    OpField,
    RingState,
    StopReason,
)
from tests.agent_driver import (
    AGENT,
    LOOP,
    PYTHON,
    ROOT,
    TORCH,
    Event,
    Tap,
    Target,
    maps_of_agent,
    threads_of,
    wait_until,
)

pytestmark = pytest.mark.skipif(not AGENT.exists(), reason="not built: run `make build`")

TRAINING = (
    """
from torch import nn
def fresh():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Sequential(nn.Linear(16, 16), nn.Tanh()))
    return model, torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9), torch.randn(4, 16)
model, optimizer, x = fresh()
def step():
    optimizer.zero_grad()
    loss = model(x).square().mean()
    loss.backward()
    optimizer.step()
    return loss.item()
for _ in range(3): step()
libtorch = ctypes.CDLL(os.path.join(os.path.dirname(torch.__file__), "lib", "libtorch_cpu.so"))
in_list = libtorch._ZN2at18hasGlobalCallbacksEv
in_list.restype = ctypes.c_bool
"""
    + LOOP
)


class Shared:
    """One training process for all tests, replaced after a test that failed."""

    def __init__(self) -> None:
        self._target: Target | None = None

    def get(self) -> Target:
        if self._target is None:
            self._target = Target(TRAINING)
        return self._target

    def drop(self) -> None:
        if self._target is not None:
            self._target.__exit__(None, None, None)
            self._target = None


@pytest.fixture(scope="module")
def shared() -> Iterator[Shared]:
    shared = Shared()
    yield shared
    assert shared.get().end() == 0
    shared.drop()


@pytest.fixture
def target(shared: Shared) -> Iterator[Target]:
    target = shared.get()
    clean = False
    try:
        yield target
        clean = target.let_go() and target.do("value = threading.active_count()", 5) == 1
    finally:
        if not clean:
            shared.drop()
    assert clean


@pytest.fixture
def tap(target: Target) -> Iterator[Tap]:
    tap = target.attach()
    yield tap
    tap.detach()


def by_thread(events: list[Event]) -> dict[int, list[Event]]:
    threads: dict[int, list[Event]] = {}
    for event in events:
        threads.setdefault(event.tid, []).append(event)
    return threads


# -------------------------------------------------------------------------------- what is recorded


def test_operators_are_those_that_torch_profiler_counts(tap: Tap) -> None:
    profiled = tap.target.do(
        """
from torch.profiler import profile, ProfilerActivity
with profile(activities=[ProfilerActivity.CPU]) as p:
    for _ in range(5): step()
# Raw: the tables fold an operator that calls itself into one.
value = [e.name() for e in p.profiler.kineto_results.events()]
"""
    )
    tap.record("for _ in range(5): step()")
    assert tap.names() == Counter(name for name in profiled if "ActivityProfiler" not in name)
    assert sum(tap.memory.dropped().values()) == 0


def test_events_of_a_thread_nest_and_carry_their_depth(tap: Tap) -> None:
    tap.record("for _ in range(3): step()")
    for events in by_thread(tap.events()).values():
        open_events: list[Event] = []
        for event in events:
            while open_events and open_events[-1].end <= event.start:
                open_events.pop()
            assert event.start < event.end
            assert event.depth == len(open_events)
            assert all(outer.holds(event) for outer in open_events)
            open_events.append(event)


def test_backward_nodes_carry_their_forward_operators_sequence_number(tap: Tap) -> None:
    tap.record(
        """
a, b = torch.randn(4, 4, requires_grad=True), torch.randn(4, 4)
(a @ b).relu().sum().backward()
"""
    )
    events = tap.events()
    forward = {e.name: e.seq for e in events if e.kind == EventKind.OPERATOR and e.seq >= 0}
    backward = {e.name: e for e in events if e.kind == EventKind.AUTOGRAD}
    assert backward["MmBackward0"].seq == forward["aten::mm"] >= 0
    assert backward["ReluBackward0"].seq == forward["aten::relu"] == forward["aten::mm"] + 1
    assert {e.fwd_tid for e in backward.values()} == {backward["MmBackward0"].fwd_tid} != {0}


def test_stacks_and_module_pointers_are_those_of_the_call(tap: Tap) -> None:
    modules = tap.target.do("value = {name: id(m) for name, m in model.named_modules()}")
    tap.record("step()")
    operators = [e for e in tap.events() if e.name in ("aten::addmm", "aten::tanh")]
    chains = [[m for _, m in e.stack if m] for e in operators]
    assert chains == [
        [modules["0"], modules[""]],
        [modules["2.0"], modules["2"], modules[""]],
        [modules["2.1"], modules["2"], modules[""]],
    ]
    names = ["Linear.forward", "Module._call_impl", "Module._wrapped_call_impl"]
    if sys.version_info < (3, 11):  # code objects do not know their class yet
        names = [name.rpartition(".")[2] for name in names]
    assert [name for name, _ in operators[0].stack][:3] == names
    assert [name for name, _ in operators[0].stack][-3:] == ["<module>", "main", "<module>"]


def test_code_that_takes_the_place_of_freed_code_is_told_apart(tap: Tap) -> None:
    tap.record(
        """
for i in range(300):
    scope = {}
    exec(f"def made_{i}(x):\\n  return x.neg()", scope)
    scope[f"made_{i}"](x)
    del scope
"""
    )
    events = [e for e in tap.events() if e.name == "aten::neg"]
    assert [e.stack[0][0] for e in events] == [f"made_{i}" for i in range(300)]


def test_names_outside_ascii_are_copied(tap: Tap) -> None:
    tap.record(
        """
def größe(x): return x.abs()
def 大きさ(x): return x.abs()
with torch.profiler.record_function("Grüße, 世界"):
    größe(x), 大きさ(x)
"""
    )
    events = tap.events()
    assert [e.stack[0][0] for e in events if e.name == "aten::abs"][:1] == ["größe"]
    assert {e.stack[0][0] for e in events if e.name == "aten::abs"} == {"größe", "大きさ"}
    assert [e.name for e in events if e.kind == EventKind.USER_SCOPE] == ["Grüße, 世界"]


def test_stacks_are_cut_to_64_frames(tap: Tap) -> None:
    tap.record(
        """
def deep(n): return x.abs() if n == 0 else deep(n - 1)
deep(100)
"""
    )
    event = next(e for e in tap.events() if e.name == "aten::abs")
    assert len(event.stack) == 64
    assert int(tap.memory.stacks(final=True)[event.stack_id - 1]["truncated"]) == 1


def test_no_stacks_unless_asked_for(tap: Tap) -> None:
    tap.record("step()", want_stacks=False)
    assert {e.stack_id for e in tap.events()} == {0}


def test_scope_that_ends_on_another_thread_is_marked_and_keeps_its_start(tap: Tap) -> None:
    tap.record(
        """
made = torch.futures.Future()
with torch.profiler.record_function("answered elsewhere") as scope:
    scope._call_end_callbacks_on_future(made)
for _ in range(3): x.abs()
worker = threading.Thread(target=lambda: made.set_result(1))
worker.start(); worker.join()
"""
    )
    events = tap.events()
    scope = next(e for e in events if e.name == "answered elsewhere")
    inner = [e for e in events if e.name == "aten::abs"]
    assert scope.flags & EventFlag.ASYNC_END
    assert scope.tid == tap.target.pid
    assert all(scope.holds(e) for e in inner)


def test_collective_carries_its_sizes_without_being_asked(target: Target, tmp_path: Path) -> None:
    with Target(
        f"""
import torch.distributed as dist
dist.init_process_group("gloo", init_method="file://{tmp_path}/store", rank=0, world_size=1)
"""
    ) as alone:
        tap = alone.attach()
        tap.record("for _ in range(20): dist.all_reduce(torch.ones(8, 3))")
        works = [e for e in tap.events() if e.name == "gloo:all_reduce"]
        tap.detach()
        assert len(works) == 20
        assert {json.dumps(json.loads(e.shapes)) for e in works} == {'[[[8, 3], "float"]]'}
        assert all(e.depth == works[0].depth for e in works)


def test_shapes_and_types_of_inputs_when_asked_for(tap: Tap) -> None:
    tap.record("torch.ones(2, 3) @ torch.ones(3, 4)", want_shapes=True)
    product = next(e for e in tap.events() if e.name == "aten::mm")
    assert json.loads(product.shapes) == [[[2, 3], "float"], [[3, 4], "float"]]
    tap.record("torch.cat([x, x])", want_shapes=False)
    assert next(e for e in tap.events() if e.name == "aten::cat").shapes == ""


def test_collections_of_garbage_are_recorded_while_wanted(tap: Tap) -> None:
    tap.record("gc.collect(); gc.collect(0)", want_gc=True)
    pauses = [e for e in tap.events() if e.kind == EventKind.GC and e.tid == tap.target.pid]
    assert [(e.name, e.seq) for e in pauses] == [("gc generation 2", 2), ("gc generation 0", 0)]
    assert all(e.end > e.start for e in pauses)
    assert tap.target.do("value = len(gc.callbacks)") == 0


def test_unknown_layouts_leave_names_and_times(tap: Tap) -> None:
    tap.client.configure(None, None)
    assert tap.memory.get("op_fields") & ~OpField.SHAPES == OpField.NAME_AND_TIME
    tap.record("for _ in range(2): step()")
    events = tap.events()
    assert {e.seq for e in events} == {-1}
    assert {e.kind for e in events} == {EventKind.OPERATOR, EventKind.USER_SCOPE}
    assert "MseLossBackward0" not in tap.names()
    assert {"aten::addmm", "AddmmBackward0", "Optimizer.step#SGD.step"} <= set(tap.names())


def test_python_layout_that_fails_its_trial_turns_stacks_off(tap: Tap) -> None:
    from dataclasses import replace

    for wrong in (
        replace(PYTHON, frame_code=PYTHON.frame_back, frame_back=PYTHON.frame_code),
        replace(PYTHON, tstate_frame=0),
        replace(PYTHON, code_qualname=16),
        replace(PYTHON, frame_locals=PYTHON.frame_locals + 64),
    ):
        tap.client.configure(TORCH, wrong)
        assert not tap.memory.get("op_fields") & OpField.STACK
        assert "failed its trial" in tap.memory.text("message")
    tap.client.configure(TORCH, PYTHON)
    assert tap.memory.get("op_fields") & OpField.STACK


# ---------------------------------------------------------------------------------- windows, modes


def test_only_user_scopes_in_always_on_mode(tap: Tap) -> None:
    tap.record("for _ in range(7): step()", CaptureMode.ALWAYS_ON)
    assert tap.names() == {"Optimizer.step#SGD.step": 7, "Optimizer.zero_grad#SGD.zero_grad": 7}
    assert tap.memory.get("boundaries") == 7


def test_nothing_is_in_torchs_list_unless_operators_are_recorded(tap: Tap) -> None:
    assert tap.target.do("value = in_list()") is False
    tap.start(CaptureMode.ALWAYS_ON)
    assert tap.target.do("step(); value = in_list()") is False
    tap.stop()
    assert tap.names()["Optimizer.step#SGD.step"] == 1
    tap.start(CaptureMode.FULL)
    assert tap.target.do("value = in_list()") is True
    tap.stop()
    assert tap.target.do("value = in_list()") is False


def test_window_closes_by_itself(tap: Tap) -> None:
    tap.start(window_ns=50_000_000)
    wait_until(lambda: tap.memory.get("state") == AgentState.CONFIGURED)
    assert tap.memory.get("stop_reason") == StopReason.DEADLINE
    tap.target.do("step()")
    tap.drain()
    before = tap.memory.get("events")
    tap.target.do("step()")
    assert tap.memory.get("events") == before


def test_nothing_is_written_after_stop(tap: Tap) -> None:
    tap.target.do("background()")
    for _ in range(20):
        tap.start()
        time.sleep(0.01)
        tap.stop()
        tap.drain()
        assert not tap.memory.pending()
    tap.target.do("finish()")
    assert not tap.memory.pending()
    assert sum(tap.memory.dropped().values()) == tap.memory.dropped()[DropCause.OPEN_AT_CLOSE]


def test_what_is_open_at_the_close_is_counted(tap: Tap) -> None:
    tap.start()
    tap.target.do("scope = torch.profiler.record_function('held'); scope.__enter__()")
    tap.stop()
    assert tap.memory.dropped()[DropCause.OPEN_AT_CLOSE] >= 1
    tap.target.do("scope.__exit__(None, None, None)")
    assert "held" not in tap.names()


def whole_steps(events: list[Event], tid: int) -> tuple[int, int]:
    """Steps with every operator, and steps with only some, between the optimizer's ends."""
    mine = [e for e in events if e.tid == tid]
    ends = sorted(e.end for e in mine if e.name.startswith("Optimizer.step#"))
    operators = sorted(e.start for e in mine if e.kind in (EventKind.OPERATOR, EventKind.AUTOGRAD))
    counts: Counter[int] = Counter()
    at = 0
    for start in operators:
        while at < len(ends) and ends[at] <= start:
            at += 1
        counts[at] += 1
    full = max(counts.values(), default=0)
    inner = [n for step, n in counts.items() if 0 < step < len(ends)]
    return sum(n == full for n in inner), sum(n != full for n in inner)


def test_bursts_hold_whole_steps_and_user_scopes_all_the_time(target: Target) -> None:
    tap = target.attach()
    target.do("def slow():\n  while not stop.is_set():\n    step(); time.sleep(.004)\n")
    target.do("stop.clear(); runner = threading.Thread(target=slow); runner.start()")
    # Prices so high that a few steps a second use the budget up, however slow this machine is.
    prices = {"event_cost_ns": 100_000, "armed_cost_ns": 100, "user_cost_ns": 100}
    tap.start(CaptureMode.BURSTS, window_ns=3_000_000_000, budget_ppm=100_000, **prices)
    wait_until(lambda: tap.memory.get("state") == AgentState.CONFIGURED, 15)
    target.do("finish()")
    events = tap.events()
    boundaries, bursts = tap.memory.get("boundaries"), tap.memory.get("bursts")
    recorded = tap.memory.get("recorded_ticks")
    window = tap.memory.get("window_end_ticks") - tap.memory.get("window_start_ticks")
    tap.detach()
    tid = next(e.tid for e in events if e.name.startswith("Optimizer.step#"))
    whole, cut = whole_steps(events, tid)
    ends = sum(e.name.startswith("Optimizer.step#") for e in events)
    assert ends == boundaries > 20
    assert bursts >= 2
    assert whole >= bursts
    # A step of 300 ms, as a loaded machine makes them, counts as none and is cut.
    assert cut <= 2
    assert 0 < recorded < 0.9 * window


def test_budget_is_kept_on_the_smallest_steps(target: Target) -> None:
    tap = target.attach()
    target.do("background()")
    tap.start(CaptureMode.BURSTS, window_ns=2_000_000_000, budget_ppm=10_000)
    wait_until(lambda: tap.memory.get("state") == AgentState.CONFIGURED, 15)
    target.do("finish()")
    events, spent = tap.memory.get("events"), tap.memory.get("spent_ns")
    bursts = tap.memory.get("bursts")
    whole, _ = whole_steps(tap.events(), next(e.tid for e in tap.events() if e.depth == 0))
    tap.detach()
    assert events > 1000
    assert bursts >= 1
    assert whole > 10
    # 20 ms are 1 %; a burst may end a tick late.
    assert spent < 1.25 * 20_000_000


def test_slices_of_time_where_there_are_no_steps(target: Target) -> None:
    tap = target.attach()
    target.do(
        """
def infer():
    with torch.no_grad():
        while not stop.is_set(): model(x)
stop.clear(); runner = threading.Thread(target=infer); runner.start()
"""
    )
    tap.start(CaptureMode.BURSTS, window_ns=2_000_000_000, budget_ppm=20_000)
    wait_until(lambda: tap.memory.get("state") == AgentState.CONFIGURED, 15)
    target.do("finish()")
    events, bursts, spent = (tap.memory.get(f) for f in ("events", "bursts", "spent_ns"))
    tap.detach()
    assert events > 1000
    assert bursts >= 1
    assert spent < 1.25 * 40_000_000


# ------------------------------------------------------------------------------------------ losses


def test_full_ring_drops_and_counts(target: Target) -> None:
    tap = target.attach(ring_count=4, ring_capacity=64)
    tap.record("for _ in range(10): step()")
    got = len(tap.events())
    dropped = tap.memory.dropped()[DropCause.RING_FULL]
    tap.detach()
    tap = target.attach()
    tap.record("for _ in range(10): step()")
    assert got == 64
    assert got + dropped == len(tap.events())
    tap.detach()


def test_threads_without_a_ring_are_counted(target: Target) -> None:
    tap = target.attach(ring_count=2, ring_capacity=1024)
    tap.record(
        """
barrier = threading.Barrier(4)
def work(): barrier.wait(); x.neg(); barrier.wait()
crowd = [threading.Thread(target=work) for _ in range(4)]
[t.start() for t in crowd]; [t.join() for t in crowd]
"""
    )
    assert tap.names()["aten::neg"] == 2
    assert tap.memory.dropped()[DropCause.NO_RING] == 2
    tap.detach()


def test_rings_of_ended_threads_are_used_again(target: Target) -> None:
    tap = target.attach(ring_count=4, ring_capacity=1024)
    tap.start()
    tids = set()
    for _ in range(6):
        tids.add(
            target.do(
                """
got = []
def work(): x.abs(); got.append(threading.get_native_id())
t = threading.Thread(target=work); t.start(); t.join(); value = got[0]
"""
            )
        )
        tap.drain()
        wait_until(lambda: RingState.THREAD_ENDED not in {r.state for r in tap.memory.rings()})
        wait_until(lambda: len(tap.memory.rings()) <= 2)
    tap.stop()
    assert {e.tid for e in tap.events() if e.name == "aten::abs"} == tids
    assert tap.memory.dropped()[DropCause.NO_RING] == 0
    tap.detach()


HOLD = """
scopes = [torch.profiler.record_function(f"s{{i}}") for i in range({0})]
for s in scopes: s.__enter__()
for s in reversed(scopes): s.__exit__(None, None, None)
"""


def test_deep_nesting_is_recorded(tap: Tap) -> None:
    tap.record(HOLD.format(600))
    scopes = [e for e in tap.events() if e.kind == EventKind.USER_SCOPE]
    assert [(e.name, e.depth) for e in scopes] == [(f"s{i}", i) for i in range(600)]


def test_more_open_scopes_than_a_thread_may_have_are_counted(tap: Tap) -> None:
    tap.record(HOLD.format(5000), CaptureMode.ALWAYS_ON)
    scopes = [e for e in tap.events() if e.kind == EventKind.USER_SCOPE]
    assert 4000 < len(scopes) <= 4096
    assert tap.memory.dropped()[DropCause.NO_CONTEXT] == 5000 - len(scopes)
    tap.target.do("del scopes, s")
    tap.record("for _ in range(3): step()")
    assert tap.names()["Optimizer.step#SGD.step"] == 3


# ---------------------------------------------------------------------------------- life and death


def test_losses_are_the_same_to_the_last_bit(target: Target) -> None:
    run = "model, optimizer, x = fresh()\nvalue = [step().hex() for _ in range(300)]"
    plain = target.do(run)
    tap = target.attach()
    tap.start(want_shapes=True, want_gc=True)
    tapped = target.do(run)
    tap.stop()
    tap.detach()
    assert tapped == plain


def test_50_attaches_leave_no_descriptor_thread_or_mapping(target: Target) -> None:
    def held() -> tuple[int, list[str]]:
        return len(os.listdir(f"/proc/{target.pid}/fd")), sorted(threads_of(target.pid))

    target.do("background()")
    before = held()
    for _ in range(50):
        tap = target.attach(ring_count=16, ring_capacity=1024)
        tap.start(want_gc=True)
        wait_until(lambda tap=tap: tap.memory.get("events") > 0 or bool(tap.memory.pending()))
        tap.stop()
        tap.detach()
        wait_until(lambda: not maps_of_agent(target.pid))
    wait_until(lambda: held() == before)
    assert target.do("finish(); value = len(gc.callbacks)") == 0


def test_second_gputap_is_refused(tap: Tap) -> None:
    fd = tap.target.enter()
    assert fd == tap.fd
    with pytest.raises(TargetBusy):
        AgentClient(tap.target.pid, fd)
    tap.record("step()")
    assert tap.names()["aten::addmm"] == 2


HOLDER = """
import sys; sys.path.insert(0, {root!r})
from tests.agent_driver import *
client = AgentClient({pid}, {fd})
client.configure(TORCH, PYTHON)
client.start(WindowConfig(mode=CaptureMode.FULL, want_gc=True))
print("started", flush=True)
time.sleep(60)
"""


def test_killed_gputap_leaves_a_clean_target(target: Target) -> None:
    target.do("background()")
    fd = target.enter()
    source = HOLDER.format(root=str(ROOT), pid=target.pid, fd=fd)
    holder = subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"started\n"
    holder.send_signal(signal.SIGKILL)
    holder.wait(10)
    holder.stdout.close()
    wait_until(lambda: not maps_of_agent(target.pid), 3)
    wait_until(lambda: not [name for name in threads_of(target.pid) if "gputap" in name], 3)
    assert not Path(f"/proc/{target.pid}/fd/{fd}").exists()
    tap = target.attach()
    tap.start()
    wait_until(lambda: tap.memory.get("events") > 0)
    tap.stop()
    assert tap.names()["aten::addmm"] > 0
    tap.detach()
    assert target.do("finish(); value = len(gc.callbacks)") == 0


def test_gputap_that_comes_right_after_a_killed_one_is_served(target: Target) -> None:
    for _ in range(3):
        fd = target.enter()
        source = HOLDER.format(root=str(ROOT), pid=target.pid, fd=fd)
        holder = subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE)
        assert holder.stdout is not None
        holder.stdout.readline()
        holder.kill()
        holder.wait(10)
        holder.stdout.close()
        tap = target.attach()
        tap.record("step()")
        assert tap.names()["aten::addmm"] == 2
        tap.detach()


def test_forked_children_are_off_and_leave_the_ring_alone(tap: Tap) -> None:
    tap.start()
    value = tap.target.do(
        """
codes = []
for i in range(10):
    pid = os.fork()
    if pid == 0:
        try:
            for _ in range(20): x.abs()
            left = [l for l in open("/proc/self/maps") if "gputap-ctl" in l]
            os._exit(1 if left else 3 if in_list() else 0)
        except BaseException:
            os._exit(2)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
x.neg()
value = codes
"""
    )
    tap.stop()
    assert value == [0] * 10
    names = tap.names()
    assert names["aten::abs"] == 0
    assert names["aten::neg"] == 1


def test_children_never_hang_in_torchs_lock(target: Target) -> None:
    target.do(
        """
stop.clear()
def churn():
    while not stop.is_set():
        t = threading.Thread(target=lambda: [x.neg() for _ in range(5)]); t.start(); t.join()
def forks():
    while not stop.is_set():
        pid = os.fork()
        if pid == 0:
            torch.ones(3).neg()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
crowd = [threading.Thread(target=f) for f in (churn, churn, forks)]
[t.start() for t in crowd]
"""
    )
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        tap = target.attach(ring_count=16, ring_capacity=1024)
        tap.start()
        tap.stop()
        tap.detach()
    target.do("stop.set(); [t.join() for t in crowd]", 10)


def test_loader_workers_are_off_and_their_parent_is_recorded(tap: Tap) -> None:
    tap.start()
    tap.target.do(
        """
class Data(torch.utils.data.Dataset):
    def __len__(self): return 32
    def __getitem__(self, i): return torch.full((4,), float(i)).mul(2)
loader = torch.utils.data.DataLoader(
    Data(), batch_size=4, num_workers=2, multiprocessing_context="fork"
)
total = sum(float(b.sum()) for b in loader)
assert total == 2 * 4 * sum(range(32)), total
"""
    )
    tap.stop()
    names = tap.names()
    assert names["aten::mul"] == 0
    assert sum(n for name, n in names.items() if name.startswith("enumerate(DataLoader)#")) == 9
    assert tap.memory.get("boundaries") == 0


def test_forked_child_can_be_tapped_itself(target: Target) -> None:
    tap = target.attach()
    tap.start()
    child = target.do(
        f"""
import select
r, w = os.pipe(); r2, w2 = os.pipe()
pid = os.fork()
if pid == 0:
    try:
        fd = enter({str(AGENT)!r})
        os.write(w, f"{{fd}}\\n".encode())
        while not select.select([r2], [], [], 0)[0]: x.abs()
        os._exit(0)
    finally:
        os._exit(3)
fd = int(os.read(r, 100))
value = (pid, fd)
"""
    )
    other = AgentClient(*child)
    other.configure(TORCH, PYTHON)
    other.start(WindowConfig(mode=CaptureMode.FULL, want_gc=False))
    wait_until(lambda: bool(other.memory.pending()))
    other.stop()
    ring = other.memory.rings()[0]
    assert ring.tid == child[0]
    assert "aten::abs" in other.memory.strings()
    other.detach()
    assert (
        target.do("os.write(w2, b'x'); value = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])")
        == 0
    )
    tap.stop()
    assert "aten::abs" not in tap.names()
    tap.detach()


@pytest.mark.parametrize("way", ["", "os._exit(0)"])
def test_target_that_ends_while_tapped_ends_well(way: str) -> None:
    with Target(TRAINING) as target:
        tap = target.attach()
        tap.start(CaptureMode.BURSTS, want_gc=True)
        target.do("step()")
        if way:
            target.send(way)
        assert target.end() == 0
        tap.client.close()


def test_target_without_torch_is_refused_until_it_has_it() -> None:
    with Target(torch=False) as target:
        fd = target.enter()
        client = AgentClient(target.pid, fd)
        with pytest.raises(AttachFailed, match="libtorch"):
            client.configure(TORCH, PYTHON)
        target.do("import torch", 60)
        client.configure(TORCH, PYTHON)
        client.detach()
        assert target.end() == 0


# ------------------------------------------------------------------------------------------ Python


def test_python_runs_in_a_private_dict(tap: Tap) -> None:
    answer = tap.client.run_python(
        "import sys, threading\nx = 5\nresult = f'{sys.version_info[0]} é'"
    )
    assert answer == "3 é"
    assert tap.target.do("value = 'result' in sys.modules['__main__'].__dict__") is False


def test_exception_comes_back_as_text(tap: Tap) -> None:
    with pytest.raises(SnippetFailed, match="ValueError: not today"):
        tap.client.run_python("raise ValueError('not today')")
    with pytest.raises(SnippetFailed, match="SyntaxError"):
        tap.client.run_python("def")
    with pytest.raises(SnippetFailed, match="no str"):
        tap.client.run_python("result = 5")
    assert tap.client.run_python("result = 'fine'") == "fine"


def test_capture_goes_on_while_the_gil_is_held(tap: Tap) -> None:
    tap.start()
    tap.target.send(
        "libc = ctypes.PyDLL(None); worker = threading.Thread(target=lambda: None)\n"
        "x.abs(); libc.usleep(1_200_000); x.neg()"
    )
    time.sleep(0.3)
    begun = time.monotonic()
    with pytest.raises(SnippetFailed) as caught:
        tap.client.run_python("result = 'late'", timeout_s=0.2)
    assert caught.value.status == 110
    assert time.monotonic() - begun < 0.7
    with pytest.raises(SnippetFailed) as caught:
        tap.client.run_python("result = 'busy'", timeout_s=0.2)
    assert caught.value.status == 16
    tap.target.answer()
    wait_until(lambda: _answers(tap))
    tap.stop()
    assert {"aten::abs", "aten::neg"} <= set(tap.names())


def _answers(tap: Tap) -> bool:
    try:
        return tap.client.run_python("result = 'here'") == "here"
    except SnippetFailed:
        return False
