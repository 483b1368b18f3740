from __future__ import annotations

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from gputap.profiler import columns, schema


def test_numbers_with_and_without_nulls() -> None:
    values = np.array([1, 2, 3], np.int64)
    assert columns.numbers(values).to_pylist() == [1, 2, 3]
    missing = np.array([False, True, False])
    column = columns.numbers(values, missing)
    assert column.to_pylist() == [1, None, 3]
    assert column.null_count == 1


def test_dictionary_codes_below_zero_are_null() -> None:
    codes = np.array([1, -1, 0, 1], np.int32)
    column = columns.dictionary(codes, columns.strings(["a", "b"]))
    column.validate(full=True)
    assert column.to_pylist() == ["b", None, "a", "b"]


def test_strings_of_any_kind() -> None:
    column = columns.strings(["", "ä€🔥", "lone \udc80", "x" * 1000])
    column.validate(full=True)
    assert column.to_pylist() == ["", "ä€🔥", "lone ?", "x" * 1000]
    assert columns.strings([]).to_pylist() == []


def test_small_tables_from_values() -> None:
    table = columns.table(
        schema.THREADS, {"tid": [7, 8], "name": ["a", None], "is_main": [True, None]}
    )
    table.validate(full=True)
    assert table.schema.equals(schema.arrow_schema(schema.THREADS))
    assert table.to_pylist() == [
        {
            "tid": 7,
            "name": "a",
            "torch_tid": None,
            "is_main": True,
            "events": None,
            "dropped": None,
        },
        {
            "tid": 8,
            "name": None,
            "torch_tid": None,
            "is_main": None,
            "events": None,
            "dropped": None,
        },
    ]


@pytest.mark.parametrize("declared", schema.TABLES, ids=lambda table: table.name)
def test_a_table_of_nulls_of_every_kind(declared: schema.Table) -> None:
    table = columns.table(declared, {declared.columns[0].name: [1, None]})
    table.validate(full=True)
    assert table.num_rows == 2


@pytest.mark.skipif(
    int(pa.__version__.split(".")[0]) < 20, reason="older pyarrow imports it itself"
)
def test_writing_and_reading_a_capture_imports_no_pandas() -> None:
    code = """
import sys, tempfile
from gputap.profiler import columns, schema
from gputap.profiler.store import Capture, CaptureWriter, RankManifest
folder = tempfile.mkdtemp()
with CaptureWriter(folder + "/c", job="j") as writer:
    writer.set_rank(RankManifest(rank=0, host="h"))
    rows = {"tid": [1], "name": ["n"], "events": [3], "dropped": [0]}
    writer.write("threads", columns.table(schema.THREADS, rows), rank=0)
assert Capture.open(folder + "/c").table("threads").num_rows == 1
sys.exit("pandas" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
