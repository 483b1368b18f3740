"""Where the parts of a capture lie: hive-style paths, and Parquet settings for every table.

Partition values are percent-encoded, which pyarrow, DuckDB, pandas, polars and Spark all undo:
a job called `a/b=c` is one folder and reads back as `a/b=c`.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote

from gputap.profiler import schema
from gputap.profiler.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa

PARTITION_KEYS: Final = ("job", "host", "rank")

TABLES: Final = {table.name: table for table in schema.TABLES}

MAX_NAME: Final = 200
"""Longest folder name in bytes; file systems end at 255."""

_DELTA: Final = frozenset({"start_ns", "duration_ns", "seq", "time_ns"})
"""Columns that are smallest as differences."""

_PLAIN: Final = frozenset({"stack_id", "depth"})
"""Columns that repeat from step to step: zstd finds that in whole bytes, not in packed bits."""

_STATISTICS: Final = frozenset({"start_ns", "tid", "time_ns", "step"})
"""Columns that people filter on. Statistics of the others cost a third of the writing time."""


def table_named(name: str) -> schema.Table:
    """The table called `name`. Raises UsageError, naming those that exist."""
    try:
        return TABLES[name]
    except KeyError:
        known = ", ".join(TABLES)
        raise UsageError(f"There is no table {name!r}.", hint=f"Tables: {known}.") from None


def partition(job: str, host: str, rank: int) -> str:
    """Folder of one rank below a table's folder: `job=J/host=H/rank=R`."""
    return f"{_folder('job', job)}/{_folder('host', host)}/rank={rank}"


def _folder(key: str, value: str) -> str:
    name = f"{key}={quote(value or 'unknown', safe='', errors='replace')}"
    if len(name) <= MAX_NAME:
        return name
    digest = hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    cut = unquote(name[len(key) + 1 : MAX_NAME - 20], errors="ignore")
    return f"{key}={quote(cut, safe='')}-{digest}"


def parse_partition(folder: str) -> tuple[str, str, int] | None:
    """`job`, `host` and `rank` of a partition folder, or None if it is none."""
    pieces = [piece.partition("=") for piece in folder.split("/")]
    if tuple(key for key, _, _ in pieces) != PARTITION_KEYS:
        return None
    job, host, rank = (unquote(value) for _, _, value in pieces)
    return (job, host, int(rank)) if rank.lstrip("-").isdecimal() else None


def part_name(number: int) -> str:
    """File name of a part."""
    return f"part-{number:05d}.parquet"


def part_paths(root: Path, table: str) -> list[Path]:
    """Every part of `table` on disk, in order."""
    return sorted((root / table).glob("job=*/host=*/rank=*/part-*.parquet"))


def parquet_options(table: schema.Table) -> dict[str, Any]:
    """Arguments for `pyarrow.parquet.write_table`, as measured by benchmarks/ingest.py."""
    names = [column.name for column in table.columns]
    delta = [name for name in names if name in _DELTA]
    return {
        "compression": "zstd",
        "compression_level": 3,
        "use_dictionary": [name for name in names if name not in _DELTA | _PLAIN],
        "column_encoding": dict.fromkeys(delta, "DELTA_BINARY_PACKED"),
        "write_statistics": [name for name in names if name in _STATISTICS],
        "write_page_checksum": True,
        "row_group_size": 1 << 19,
    }


def conform(table: schema.Table, data: pa.Table) -> pa.Table:
    """`data` with exactly the columns and types of `table`; absent columns become null.

    Raises ValueError on a column that the schema does not have.
    """
    import pyarrow as pa

    wanted = schema.arrow_schema(table)
    unknown = set(data.schema.names) - set(wanted.names)
    if unknown:
        raise ValueError(f"table {table.name} has no column {', '.join(sorted(unknown))}")
    if data.schema.equals(wanted, check_metadata=True):
        return data
    columns = []
    for field in wanted:
        if field.name not in data.schema.names:
            columns.append(pa.nulls(data.num_rows, field.type))
            continue
        column = data.column(field.name)
        columns.append(column if column.type == field.type else column.cast(field.type))
    return pa.Table.from_arrays(columns, schema=wanted)
