"""The allocator's figures from a target's answers: whatever those are, a capture goes on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from gputap.profiler import schema
from gputap.profiler.agent_memory import Records
from gputap.profiler.memory_samples import METRICS, MemoryIngest
from tests.fake_agent import unix_clock

GOOD = ["cuda:0", *range(1, 1 + len(METRICS))]


class Answers:
    """A ring of samples with these answers in it."""

    def __init__(self, texts: Sequence[str], status: int = 0, skipped: int = 0) -> None:
        self._skipped = skipped
        self._rows = np.zeros(len(texts), schema.dtype(schema.PYTHON_SAMPLE))
        for at, (row, text) in enumerate(zip(self._rows, texts, strict=True)):
            raw = text.encode()[: len(row["text"])]
            row["text"][: len(raw)] = np.frombuffer(raw, np.uint8)
            row["length"], row["status"] = len(raw), status
            row["begin_ticks"], row["end_ticks"] = 1000 * at, 1000 * at + 200

    def python_samples(self, since: int = 0) -> tuple[Records, int]:
        end = self._skipped + len(self._rows)
        return self._rows[max(since - self._skipped, 0) :], end


def ingest(answers: Answers) -> tuple[MemoryIngest, list[dict[str, Any]]]:
    parts: list[pa.Table] = []
    memory = MemoryIngest(answers, lambda _, rows: parts.append(rows), clock=unix_clock)
    memory.finish()
    return memory, [row for part in parts for row in part.to_pylist()]


def test_each_number_is_a_row_of_its_own() -> None:
    memory, rows = ingest(Answers([json.dumps({"rows": [GOOD, ["cuda:1", *GOOD[1:]]]})] * 3))
    assert (memory.readings, memory.nonsense, memory.missed) == (3, 0, 0)
    assert memory.cost_ticks == 600
    assert len(rows) == 3 * 2 * len(METRICS)
    assert [(r["metric"], r["unit"]) for r in rows[: len(METRICS)]] == list(METRICS)
    assert [r["value"] for r in rows[: len(METRICS)]] == [float(v) for v in GOOD[1:]]
    assert {r["hw_id"] for r in rows} == {"cuda:0", "cuda:1"}
    assert sorted({r["time_ns"] for r in rows}) == [100, 1100, 2100]


def test_what_was_written_over_is_counted() -> None:
    memory, _ = ingest(Answers([json.dumps({"rows": [GOOD]})], skipped=7))
    assert (memory.readings, memory.missed) == (1, 7)


def test_no_device_is_no_reading() -> None:
    memory, rows = ingest(Answers(['{"rows": []}']))
    assert (memory.readings, memory.nonsense, rows) == (0, 0, [])


def test_an_exception_is_kept_in_words() -> None:
    memory, rows = ingest(Answers(["RuntimeError: no"], status=1))
    assert (memory.failure, memory.readings, rows) == ("RuntimeError: no", 0, [])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        '"rows"',
        "{}",
        '{"rows": 5}',
        '{"rows": [5]}',
        '{"rows": [[]]}',
        json.dumps({"rows": [GOOD[:-1]]}),
        json.dumps({"rows": [[*GOOD, 1]]}),
        json.dumps({"rows": [[5, *GOOD[1:]]]}),
        json.dumps({"rows": [["cuda:0", *[-1] * len(METRICS)]]}),
        json.dumps({"rows": [["cuda:0", *[1.5] * len(METRICS)]]}),
        json.dumps({"rows": [["cuda:0", *[True] * len(METRICS)]]}),
        json.dumps({"rows": [["cuda:0", *[2**63] * len(METRICS)]]}),
        '{"rows": [["cuda:0", ' + ", ".join(["NaN"] * len(METRICS)) + "]]}",
        json.dumps({"rows": [GOOD] * 65}),
        "[" * 4000,
        "\0" * 100,
        json.dumps({"rows": [GOOD] * 30})[:900],
    ],
)
def test_nonsense_is_counted_and_left_out(text: str) -> None:
    good = json.dumps({"rows": [GOOD]})
    memory, rows = ingest(Answers([good, text, good]))
    assert (memory.readings, memory.nonsense) == (2, 1)
    assert len(rows) == 2 * len(METRICS)
