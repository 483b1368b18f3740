"""What is read from an agent's memory is what was written, and nonsense is refused."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import pytest

from gputap.profiler import schema
from gputap.profiler.agent_memory import AgentMemory
from gputap.profiler.errors import AttachFailed, TargetGone
from gputap.profiler.schema import DropCause, EventKind
from tests.fake_agent import FakeAgent


@pytest.fixture
def agent() -> Iterator[FakeAgent]:
    with FakeAgent(ring_count=3, ring_capacity=8, clock=4) as fake:
        yield fake


def test_drained_records_are_the_written_ones_across_the_wrap(agent: FakeAgent) -> None:
    memory = AgentMemory(agent.path)
    seen = []
    for burst in (5, 6, 8, 1):
        for _ in range(burst):
            n = int(agent.ring(1)["head"])
            assert agent.emit(1, n * 10, n * 10 + 7, "aten::add", EventKind.AUTOGRAD, 2, 77, n)
        seen.append(memory.drain(1))
    records = np.concatenate(seen)
    assert records["start_ticks"].tolist() == [10 * n for n in range(20)]
    assert records["seq"].tolist() == list(range(20))
    assert set(records["kind"].tolist()) == {EventKind.AUTOGRAD}
    assert records.flags.c_contiguous and records.dtype == schema.dtype(schema.EVENT_RECORD)
    assert int(agent.ring(1)["tail"]) == 20
    assert len(memory.drain(1)) == 0


def test_drained_records_are_copies(agent: FakeAgent) -> None:
    memory = AgentMemory(agent.path)
    agent.emit(0, 1, 2, "a")
    first = memory.drain(0)
    for _ in range(8):
        agent.emit(0, 100, 200, "b")
    assert first["start_ticks"].tolist() == [1]


def test_full_ring_drops_and_counts(agent: FakeAgent) -> None:
    memory = AgentMemory(agent.path)
    assert [agent.emit(0, i, i, "x") for i in range(10)] == [True] * 8 + [False] * 2
    assert memory.dropped()[DropCause.RING_FULL] == 2
    assert memory.rings()[0].dropped == 2
    assert len(memory.drain(0)) == 8


def test_pending_names_the_rings_with_unread_records(agent: FakeAgent) -> None:
    memory = AgentMemory(agent.path)
    agent.emit(2, 1, 2, "x", tid=4242)
    assert memory.pending() == [2]
    (ring,) = memory.rings()
    assert (ring.index, ring.tid, ring.comm) == (2, 4242, "fake")
    memory.drain(2)
    assert memory.pending() == []


def test_a_second_reader_goes_on_where_the_first_stopped(agent: FakeAgent) -> None:
    agent.emit(0, 1, 2, "x")
    with AgentMemory(agent.path) as memory:
        memory.drain(0)
    agent.emit(0, 3, 4, "x")
    assert AgentMemory(agent.path).drain(0)["start_ticks"].tolist() == [3]


def test_an_impossible_head_skips_the_ring(agent: FakeAgent) -> None:
    memory = AgentMemory(agent.path)
    agent.ring(0)["head"] = 2**63
    assert len(memory.drain(0)) == 0
    assert memory.resyncs == 1
    agent.ring(0)["head"] = 2**63 + 2
    assert len(memory.drain(0)) == 2


def test_strings_up_to_the_first_unready(agent: FakeAgent) -> None:
    memory = AgentMemory(agent.path)
    for text in ("aten::add", "näme", "third"):
        agent.intern(text)
    assert memory.strings() == ["aten::add", "näme", "third"]
    assert memory.strings(3) == ["third"]
    agent._strings[2]["ready"] = 0
    assert memory.strings() == ["aten::add"]
    assert memory.strings(final=True) == ["aten::add", "", "third"]
    assert memory.strings(9) == []


def test_strings_outside_the_arena_are_empty(agent: FakeAgent) -> None:
    memory = AgentMemory(agent.path)
    for text in ("a", "b", "c"):
        agent.intern(text)
    agent._strings[1]["offset"] = 2**32 - 1
    agent._strings[2]["length"] = 2**32 - 1
    assert memory.strings() == ["", "", ""] or memory.strings()[:2] == ["", ""]
    agent.header["strings_count"] = 2**32 - 1
    assert len(memory.strings(final=True)) == int(agent.header["strings_capacity"]) - 1


def test_stacks_and_their_frames(agent: FakeAgent) -> None:
    memory = AgentMemory(agent.path)
    f = agent.code("f", "a.py", 3, b"\x01\x02")
    g = agent.code("Module._wrapped_call_impl", "m.py", 9, is_module_call=True)
    agent.stack([f, (g, 8, 0xABC)])
    agent.stack([(f, 4)])
    codes = memory.codes()
    assert codes["firstlineno"].tolist() == [3, 9]
    assert codes["is_module_call"].tolist() == [0, 1]
    at, n = int(codes["linetable_offset"][0]), int(codes["linetable_length"][0])
    assert memory.arena(at, n) == b"\x01\x02"
    frames, counts = memory.frames(memory.stacks())
    assert counts.tolist() == [2, 1]
    assert frames["code_id"].tolist() == [f, g, f]
    assert frames["module_ptr"].tolist() == [0, 0xABC, 0]
    frames, counts = memory.frames(memory.stacks(2))
    assert (frames["lasti"].tolist(), counts.tolist()) == ([4], [1])


def test_stacks_with_impossible_frames_have_none(agent: FakeAgent) -> None:
    memory = AgentMemory(agent.path)
    f = agent.code("f", "a.py")
    for _ in range(3):
        agent.stack([f, f])
    agent._stacks[2]["first_frame"] = 2**32 - 1
    agent._stacks[3]["frame_count"] = int(agent.header["frames_capacity"])
    frames, counts = memory.frames(memory.stacks())
    assert counts.tolist() == [2, 0, 0]
    assert len(frames) == 2


def test_clock_samples_since(agent: FakeAgent) -> None:
    memory = AgentMemory(agent.path)
    for i in range(2):
        agent.clock_sample(i, 10 * i, 100 * i)
    samples, following = memory.clock_samples()
    assert (samples["ticks"].tolist(), following) == ([0, 1], 2)
    for i in range(2, 9):
        agent.clock_sample(i, 10 * i, 100 * i)
    samples, following = memory.clock_samples(following)
    assert (samples["ticks"].tolist(), following) == ([6, 7, 8], 9)  # 5 may be half overwritten
    assert len(memory.clock_samples(following)[0]) == 0


def test_header_fields_by_name(agent: FakeAgent) -> None:
    memory = AgentMemory(agent.fd)
    memory.set("budget_ppm", 12345)
    assert agent.header["budget_ppm"] == 12345
    agent.acknowledge(-22, "no such thing")
    assert memory.get("ack_status") == -22
    assert memory.text("message") == "no such thing"


def test_closing_twice_is_harmless_and_leaves_records_alone(agent: FakeAgent) -> None:
    memory = AgentMemory(agent.path)
    agent.emit(0, 1, 2, "x")
    records = memory.drain(0)
    memory.close()
    memory.close()
    assert records["start_ticks"].tolist() == [1]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("magic", 1),
        ("abi", 99),
        ("header_bytes", 100),
        ("total_bytes", 2**40),
        ("total_bytes", 0),
        ("ring_count", 0),
        ("ring_count", 2**31),
        ("ring_capacity", 7),
        ("ring_capacity", 0),
        ("ring_capacity", 2**31),
        ("ring_stride", 64),
        ("ring_stride", 2**63),
        ("ring_data_offset", 8),
        ("ring_data_offset", 4097),
        ("rings_offset", 2**63),
        ("rings_offset", 0),
        ("strings_offset", 2**63 + 8),
        ("strings_capacity", 2**32 - 1),
        ("arena_offset", 4097),
        ("clock_capacity", 2**31),
        ("samples_capacity", 2**31),
        ("samples_offset", 2**63),
    ],
)
def test_nonsense_is_refused(agent: FakeAgent, field: str, value: int) -> None:
    agent.header[field] = value
    with pytest.raises(AttachFailed):
        AgentMemory(agent.path)


def test_what_is_no_memory_file_is_refused_without_opening_it() -> None:
    read, write = os.pipe()
    with pytest.raises(AttachFailed):
        AgentMemory(f"/proc/self/fd/{read}")
    with pytest.raises(AttachFailed):
        AgentMemory(write)
    os.close(read)
    os.close(write)


def test_a_short_file_is_refused() -> None:
    fd = os.memfd_create("short")
    os.ftruncate(fd, 100)
    with pytest.raises(AttachFailed):
        AgentMemory(fd)
    os.close(fd)


def test_a_gone_descriptor_is_a_gone_target() -> None:
    with pytest.raises(TargetGone):
        AgentMemory("/proc/self/fd/987")
