"""The schema is declared once; everything generated from it must be what is in the tree."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from gputap.profiler import schema, schema_codegen

PINNED_IDS = {
    "EventKind": {
        "OPERATOR": 1,
        "AUTOGRAD": 2,
        "USER_SCOPE": 3,
        "TORCHSCRIPT": 4,
        "GC": 5,
        "COLLECTIVE": 6,
    },
    "AgentState": {
        "IDLE": 0,
        "CONFIGURED": 1,
        "CAPTURING": 2,
        "DETACHED": 3,
        "FORKED": 4,
        "FAILED": 5,
    },
    "Command": {"CONFIGURE": 1, "START": 2, "STOP": 3, "RUN_PYTHON": 4, "DETACH": 5},
    "CaptureMode": {"ALWAYS_ON": 0, "BURSTS": 1, "FULL": 2},
}
"""Ids already given out. Add lines when ids are added; a changed line breaks old captures."""


def test_generated_files_are_fresh() -> None:
    assert schema_codegen.main(["--check"]) == 0


def test_check_reports_a_stale_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stale = tmp_path / "wire.h"
    stale.write_text("old")
    monkeypatch.setattr(schema_codegen, "ROOT", tmp_path)
    monkeypatch.setattr(schema_codegen, "generated", lambda: {stale: "new"})
    assert schema_codegen.main(["--check"]) == 1
    assert "stale: wire.h" in capsys.readouterr().err


@pytest.mark.parametrize("struct", schema.STRUCTS, ids=lambda s: s.name)
def test_records_have_no_holes_and_the_declared_size(struct: schema.Struct) -> None:
    offsets = schema.layout(struct)
    assert schema.dtype(struct).itemsize == struct.size
    assert list(offsets) == [f.name for f in struct.fields]


def test_a_hole_is_refused() -> None:
    holed = schema.Struct(
        "Holed", 12, "", (schema.Field("a", "<u4", ""), schema.Field("b", "<u8", ""))
    )
    with pytest.raises(ValueError, match=r"Holed\.b"):
        schema.layout(holed)


@pytest.mark.parametrize("compiler", [["cc", "-xc", "-std=c11"], ["c++", "-xc++", "-std=c++17"]])
def test_what_c_writes_numpy_reads(tmp_path: Path, compiler: list[str]) -> None:
    source = tmp_path / "write.src"
    source.write_text(
        """
        #include "wire.h"
        #include <stdio.h>
        #include <string.h>
        int main(void) {
          struct gputap_event_record e;
          memset(&e, 0, sizeof e);
          e.start_ticks = 1; e.end_ticks = 1ull << 40; e.seq = -7; e.name_id = 3; e.stack_id = 4;
          e.tid = 5; e.fwd_tid = 6; e.shape_id = 7; e.depth = 8;
          e.kind = GPUTAP_EVENT_KIND_GC; e.flags = GPUTAP_EVENT_FLAG_NAME_LOST;
          fwrite(&e, sizeof e, 1, stdout);
          return 0;
        }
        """
    )
    native = schema_codegen.ROOT / "injectors/library/native"
    program = tmp_path / "write"
    subprocess.run([*compiler, "-I", native, "-o", program, source], check=True)
    raw = subprocess.run([program], check=True, capture_output=True).stdout
    record = np.frombuffer(raw, dtype=schema.dtype(schema.EVENT_RECORD))[0]
    assert record.tolist() == (1, 1 << 40, -7, 3, 4, 5, 6, 7, 8, schema.EventKind.GC, 4)


@pytest.mark.parametrize("enum", schema.ENUMS, ids=lambda e: e.__name__)
def test_ids_are_never_reused(enum: type) -> None:
    ids = {member.name: int(member) for member in enum}  # type: ignore[attr-defined]
    assert not schema.RETIRED.get(enum.__name__, frozenset()) & set(ids.values())
    for name, value in PINNED_IDS.get(enum.__name__, {}).items():
        assert ids[name] == value


@pytest.mark.parametrize("table", schema.TABLES, ids=lambda t: t.name)
def test_tables_have_arrow_types_and_documented_columns(table: schema.Table) -> None:
    arrow = schema.arrow_schema(table)
    assert arrow.names == [c.name for c in table.columns]
    assert all(c.doc.endswith(".") for c in table.columns)
    assert all(c.unit == "ns" for c in table.columns if c.name.endswith("_ns"))
