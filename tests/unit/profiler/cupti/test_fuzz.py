"""Some thousand damaged chunks; `tests/soak/test_fuzz_cupti.py` is the long form."""

from __future__ import annotations

import random

import numpy as np

from gputap.profiler.cupti.tables import cuda_api_table, device_table
from tests.unit.profiler.cupti.fuzzing import CAUSES, Fuzzer, checked


def test_damaged_chunks_are_decoded_walked_and_counted() -> None:
    fuzzer = Fuzzer(1)
    found = dict.fromkeys((*CAUSES, "records"), 0)
    for _ in range(4000):
        decoded = checked(*fuzzer.chunk())
        for cause in found:
            found[cause] += getattr(decoded, cause)
    # The damage is of every kind, and most of what is whole is read.
    assert all(found[cause] > 20 for cause in CAUSES), found
    assert sum(found[cause] for cause in CAUSES) < found["records"] / 2


def test_rows_of_damaged_chunks_are_valid_tables() -> None:
    fuzzer, chance = Fuzzer(2), random.Random(2)
    for _ in range(60):
        decoded = [checked(*fuzzer.chunk()) for _ in range(10)]
        texts = ["", "_Z1fi", "_Zzz", chance.randbytes(30).decode("latin-1"), "\udc80"]
        device = device_table(decoded, texts, lambda times: times)
        device.validate(full=True)
        cuda_api_table(decoded, lambda times: times).validate(full=True)
        tables = ("kernels", "memcpys", "memsets", "syncs", "overheads", "graph_traces")
        assert device.num_rows == sum(len(getattr(d, name)) for d in decoded for name in tables)


def test_a_large_chunk_of_noise_costs_no_more_than_a_sound_one() -> None:
    """A million offsets into nothing: counted, and gone."""
    chance = np.random.default_rng(3)
    data = chance.integers(0, 256, 1 << 20, np.uint8)
    offsets = chance.integers(0, 1 << 32, 1 << 20, np.uint32)
    assert checked(data, offsets, 1300).bad_offset > 1_000_000
    data.view(np.uint32)[::2] = 10
    offsets = np.arange(0, 1 << 20, 8, dtype=np.uint32)
    assert checked(data, offsets, 1300).too_short == len(offsets)
