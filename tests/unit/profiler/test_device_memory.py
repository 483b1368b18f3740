"""The device section of the shared memory: what comes out is what went in, whatever went in."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gputap.profiler.agent_memory import AgentMemory
from gputap.profiler.device_memory import DeviceMemory
from gputap.profiler.errors import AttachFailed
from tests.fake_agent import FakeAgent

ALL = 1 << 30


class Bench:
    """A fake agent with a device ring of 4 KiB, and its reader."""

    def __init__(self, ring: int = 4096, clock: int = 8) -> None:
        self.agent = FakeAgent(1, 64, device_ring=ring, device_clock=clock)
        self.memory = AgentMemory(self.agent.path)
        self.device = DeviceMemory(self.memory)

    def drained(self) -> list[list[bytes]]:
        return [
            [chunk.data[a:b].tobytes() for a, b in spans(chunk.offsets, len(chunk.data))]
            for chunk in self.device.drain(ALL)
        ]


def spans(offsets: np.ndarray, size: int) -> Iterator[tuple[int, int]]:
    return pairwise([*offsets.tolist(), size])


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_records_come_out_as_they_went_in(bench: Bench) -> None:
    bench.agent.emit_device([b"a" * 16, b"b" * 40], version=1208)
    (chunk,) = bench.device.drain(ALL)
    assert chunk.data.tobytes() == b"a" * 16 + b"b" * 40
    assert chunk.offsets.tolist() == [0, 16]
    assert chunk.version == 1208
    assert bench.device.drain(ALL) == []


def test_what_was_read_makes_room_and_is_zeroed(bench: Bench) -> None:
    for _ in range(20):
        while bench.agent.emit_device([b"x" * 200] * 3):
            pass
        before = int(bench.agent.device_ring["head"])
        assert sum(map(len, bench.drained())) >= 3
        assert int(bench.agent.device_ring["tail"]) == before
        assert not bench.agent.device_bytes().any()
    assert bench.device.resyncs == 0


@given(st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=6), max_size=60))
def test_every_chunk_of_any_size_comes_once_and_in_order(sizes: list[list[int]]) -> None:
    bench = Bench()
    sent, got = [], []
    for number, chunk in enumerate(sizes):
        records = [bytes([number % 251 + 1]) * (8 * size) for size in chunk]
        if not bench.agent.emit_device(records):
            got += bench.drained()
            assert bench.agent.emit_device(records)
        sent.append(records)
    got += bench.drained()
    assert got == sent
    assert bench.device.resyncs == 0


def test_a_chunk_in_the_making_holds_up_those_behind_it(bench: Bench) -> None:
    bench.agent.emit_device([b"a" * 8])
    bench.agent.emit_device([b"b" * 8], ready=0)
    bench.agent.emit_device([b"c" * 8])
    assert bench.drained() == [[b"a" * 8]]
    bench.agent.device_bytes()[128:132].view("<u4")[0] = 1
    assert bench.drained() == [[b"b" * 8], [b"c" * 8]]


def test_reading_stops_at_the_limit(bench: Bench) -> None:
    for _ in range(4):
        bench.agent.emit_device([b"x" * 256])
    assert len(bench.device.drain(1)) == 1
    assert len(bench.device.drain(500)) == 2
    assert len(bench.device.drain(ALL)) == 1


@pytest.mark.parametrize(
    ("size", "why"),
    [(0, "smaller than its header"), (63, "no multiple"), (1 << 30, "beyond the end")],
)
def test_nonsense_is_skipped_to_the_head(bench: Bench, size: int, why: str) -> None:
    bench.agent.emit_device([b"x" * 64])
    bench.agent.device_bytes()[4:8].view("<u4")[0] = size
    assert bench.drained() == [], why
    assert bench.device.resyncs == 1
    bench.agent.emit_device([b"y" * 8])
    assert bench.drained() == [[b"y" * 8]]


def test_a_head_far_away_is_nonsense(bench: Bench) -> None:
    bench.agent.device_ring["head"] = 1 << 40
    assert bench.drained() == []
    assert bench.device.resyncs == 1


def test_more_records_than_the_chunk_has_room_for_are_left_out(bench: Bench) -> None:
    bench.agent.emit_device([b"x" * 64])
    bench.agent.device_bytes()[12:16].view("<u4")[0] = 1 << 31
    bench.agent.emit_device([b"y" * 8])
    assert bench.drained() == [[b"y" * 8]]
    assert bench.device.resyncs == 1


@given(st.integers(0, 1 << 30), st.integers(0, 8192), st.booleans())
def test_garbage_never_hangs_nor_raises(seed: int, head: int, small: bool) -> None:
    bench = Bench()
    random = np.random.default_rng(seed)
    # Small numbers look like sizes and flags more often than not.
    words = random.integers(0, 5 if small else 1 << 32, 1024, np.uint32)
    words[random.random(1024) < 0.2] *= np.uint32(64)
    bench.agent.device_bytes()[:] = words.view(np.uint8)
    bench.agent.device_ring["head"] = head
    for chunk in bench.device.drain(ALL):
        assert len(chunk.data) + 4 * len(chunk.offsets) <= 4096


def test_clock_samples_come_once_the_oldest_are_overwritten(bench: Bench) -> None:
    for i in range(5):
        bench.agent.device_clock_sample(10 * i, 1000 * i)
    samples, since = bench.device.clock_samples()
    assert samples["device_ns"].tolist() == [0, 1000, 2000, 3000, 4000]
    for i in range(5, 20):
        bench.agent.device_clock_sample(10 * i, 1000 * i)
    samples, since = bench.device.clock_samples(since)
    assert samples["ticks"].tolist() == [130, 140, 150, 160, 170, 180, 190]
    assert since == 20
    assert len(bench.device.clock_samples(since)[0]) == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"device_ring_capacity": 3000},
        {"device_ring_capacity": 0},
        {"device_ring_capacity": 1 << 30},
        {"device_ring_offset": 1 << 40},
        {"device_ring_offset": 12},
    ],
)
def test_a_section_that_does_not_fit_is_refused(fields: dict[str, int]) -> None:
    agent = FakeAgent(1, 64)
    for name, value in fields.items():
        agent.header[name] = value
    memory = AgentMemory(agent.path)
    with pytest.raises(AttachFailed, match="shared memory"):
        DeviceMemory(memory)
