"""Long proof: a million damaged chunks of CUPTI's records; none raises, each record is counted."""

from __future__ import annotations

import os
import random
import resource
import time

import pytest

from gputap.profiler.cupti.tables import cuda_api_table, device_table
from tests import cycles
from tests.unit.profiler.cupti.fuzzing import CAUSES, Fuzzer, checked

pytestmark = pytest.mark.soak

CHUNKS = int(os.environ.get("GPUTAP_SOAK_CHUNKS", "1000000"))
SEED = int(os.environ.get("GPUTAP_SOAK_SEED", "11"))
IN_TABLE = 100
"""So many chunks become a table together, one time in ten."""

MAX_GROWTH_KB = 64 << 10


def test_a_million_damaged_chunks() -> None:
    fuzzer, chance = Fuzzer(SEED, 2000), random.Random(SEED)
    found = dict.fromkeys((*CAUSES, "records"), 0)
    longest_s, rows, parts, rss_kb = 0.0, 0, [], 0
    began = time.monotonic()
    for count in range(CHUNKS):
        made = fuzzer.chunk()
        before = time.thread_time()
        decoded = checked(*made)
        longest_s = max(longest_s, time.thread_time() - before)
        for name in found:
            found[name] += getattr(decoded, name)
        if count // IN_TABLE % 10 == 0:
            parts.append(decoded)
        if len(parts) == IN_TABLE:
            texts = ["", "_Z1fi", "_Z" + chance.choice("fZNIS") * 9]
            device = device_table(parts, texts, lambda times: times)
            device.validate(full=True)
            cuda_api_table(parts, lambda times: times).validate(full=True)
            rows += device.num_rows
            parts = []
        if count == CHUNKS // 10:
            rss_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - rss_kb
    cycles.keep(
        "fuzz_cupti",
        {
            "chunks": CHUNKS,
            "seed": SEED,
            **found,
            "device_rows": rows,
            "longest_cpu_ms": round(longest_s * 1e3, 2),
            "grown_kb": grown_kb,
            "took_s": round(time.monotonic() - began),
        },
    )
    assert all(found[cause] for cause in CAUSES)
    assert grown_kb < MAX_GROWTH_KB
